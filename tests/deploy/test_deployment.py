"""What is in ``deploy/`` fits the server, and its parts fit each other."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from kimi_mcp.catalogue import credentials, load
from kimi_mcp.cluster.limits import EngineLimits
from kimi_mcp.core.settings import VARIABLES, Settings
from kimi_mcp.server.http.bodies import HttpLimits
from kimi_mcp.server.http.gate import HEALTH
from tests.deploy.parts import DEPLOY, KUBERNETES, ROOT, compose, context, manifest, named, stages, unit
from tests.server.http.served import served

PORT = "8000"
LIVE, READY = HEALTH
SETTINGS = {variable.name for variable in VARIABLES} | set(credentials.key_variables(load()))


def pod() -> dict[str, Any]:
    return manifest("base/deployment.yaml")["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_every_setting_that_is_named_there_is_one() -> None:
    text = "".join(path.read_text("utf-8") for path in DEPLOY.rglob("*") if path.is_file())
    assert set(re.findall(r"\bKIMI_[A-Z_]+\b", text)) <= SETTINGS


def test_probes_ask_for_what_the_server_answers() -> None:
    probes = {name: container()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": LIVE,
        "liveness": LIVE,
        "readiness": READY,
    }
    assert {probe["port"] for probe in probes.values()} == {port["name"] for port in container()["ports"]}
    (health,) = named(stages()[-1], "HEALTHCHECK")
    assert f"GET {LIVE} " in health


def test_all_listen_and_look_at_the_same_port() -> None:
    last = stages()[-1]
    assert named(last, "EXPOSE") == [PORT]
    assert f"('127.0.0.1', {PORT})" in named(last, "HEALTHCHECK")[0]
    assert [port["containerPort"] for port in container()["ports"]] == [int(PORT)]
    assert compose()["services"]["kimi-mcp"]["ports"] == [f"127.0.0.1:${{PORTS:-{PORT}}}:{PORT}"]
    for proxy in (DEPLOY / "proxies").iterdir():
        assert f"127.0.0.1:{PORT}" in proxy.read_text("utf-8")


def test_as_many_replicas_are_started_as_the_proxies_know() -> None:
    variables = dict(re.findall(r"(?m)^(\w+)=(.*)$", (DEPLOY / "cluster.env").read_text("utf-8")))
    first, last = map(int, variables["PORTS"].split("-"))
    ports = list(range(first, last + 1))
    assert (str(first), str(len(ports))) == (PORT, variables["REPLICAS"])
    for name in ("Caddyfile.cluster", "nginx.cluster.conf"):
        text = (DEPLOY / "proxies" / name).read_text("utf-8")
        assert [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", text)] == ports
    assert set(re.findall(r"\$\{(\w+):-", (DEPLOY / "compose.yaml").read_text("utf-8"))) == variables.keys()


def test_a_server_gets_longer_to_end_than_its_calls() -> None:
    server = compose()["services"]["kimi-mcp"]
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", (KUBERNETES / "base" / "settings.env").read_text("utf-8")))
    pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert seconds(server["stop_grace_period"]) > float(server["environment"]["KIMI_DRAIN_S"]) + 5
    least = float(settings["KIMI_DRAIN_S"]) + pause + 5
    assert pod()["terminationGracePeriodSeconds"] > least
    replica = manifest("cluster/deployment.yaml")["spec"]["template"]["spec"]
    assert replica["terminationGracePeriodSeconds"] > least + HttpLimits().unready_s + 3 * EngineLimits().leave_s
    assert seconds(unit()["TimeoutStopSec"]) > Settings().drain_s + 5


def test_images_of_others_are_pinned_by_digest() -> None:
    images = [rest.split()[0] for stage in stages() for rest in named(stage, "FROM")]
    images += [service["image"] for service in compose()["services"].values() if "build" not in service]
    assert len(images) == 3
    assert all(re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in images)


def test_the_image_installs_only_what_is_locked_and_keeps_no_tool_that_installs() -> None:
    build, last = stages()
    installs = re.findall(r"\b(?:install|wheel) (?=-)([^&]+)", " && ".join(named(build, "RUN")))
    assert len(installs) == 4
    for arguments in installs:
        assert "--require-hashes" in arguments or "--no-deps" in arguments, arguments
    assert "pip install" not in str(last)
    assert any("pip uninstall --yes" in run for run in named(last, "RUN"))
    assert named(last, "COPY") == ["--from=build /opt/kimi-mcp /opt/kimi-mcp"]


def test_what_the_build_needs_is_let_into_it() -> None:
    held = {path.as_posix() for path in context()}
    assert all((ROOT / path).exists() for path in held)
    assert set(re.findall(r"requirements/\S+\.txt", str(stages()[0]))) <= held


def test_nobody_is_root_and_the_disk_is_read_only() -> None:
    (user,) = named(stages()[-1], "USER")
    security = pod()["securityContext"]
    assert user == f"{security['runAsUser']}:{security['runAsGroup']}" != "0:0"
    assert f"--owner {security['runAsUser']} --group {security['fsGroup']} " in str(stages()[-1])
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for service in compose()["services"].values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("folder", ["base", "cluster", "autoscaling", "example"])
def test_a_kustomization_names_every_file_beside_it_and_no_other(folder: str) -> None:
    known = manifest(f"{folder}/kustomization.yaml")
    listed = [*known.get("resources", []), *(patch["path"] for patch in known.get("patches", []))]
    listed += [name for generator in known.get("configMapGenerator", []) for name in generator.get("envs", [])]
    assert all((KUBERNETES / folder / name).exists() for name in listed)
    beside = {path.name for path in (KUBERNETES / folder).iterdir()} - {"kustomization.yaml"}
    assert beside == {name for name in listed if "/" not in name}


def test_whatever_selects_the_servers_selects_their_pods() -> None:
    labels = manifest("base/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifest("base/deployment.yaml")["spec"]["selector"]["matchLabels"],
        manifest("base/disruption-budget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("base/network-policy.yaml")["spec"]["podSelector"]["matchLabels"],
        manifest("base/service.yaml")["spec"]["selector"],
    ]
    assert selectors == [labels] * 4
    scaled = manifest("autoscaling/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", manifest("base/deployment.yaml")["metadata"]["name"])


async def test_the_autoscaler_counts_what_the_server_shows() -> None:
    (metric,) = manifest("autoscaling/autoscaler.yaml")["spec"]["metrics"]
    async with served(None) as http:
        shown = (await http.raw.get("/metrics")).text
    assert f"# TYPE {metric['pods']['metric']['name']} gauge\n" in shown


def test_no_secret_is_kept_there() -> None:
    for path in DEPLOY.rglob("*.yaml"):
        assert "Secret" not in [each.get("kind") for each in yaml.safe_load_all(path.read_text("utf-8"))]
