"""What is in ``deploy/`` by the judgement of programs that nobody here wrote."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.parts import DEPLOY, KUBERNETES
from tests.deploy.programs import accepted

pytestmark = pytest.mark.soak

VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: the oldest that has all that is used, and the newest."""


def test_hadolint_has_nothing_to_say_about_the_container_file() -> None:
    assert accepted("hadolint", DEPLOY / "Containerfile") == ""


def test_the_compose_file_is_one_by_its_schema() -> None:
    accepted("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_objects_of_kubernetes(version: str) -> None:
    files = [path for folder in ("base", "example") for path in (KUBERNETES / folder).glob("*.yaml")]
    objects = [path for path in files if path.name != "kustomization.yaml"]
    accepted("kubernetes-validate", "--strict", "-k", version, *objects, KUBERNETES / "autoscaling" / "autoscaler.yaml")


@pytest.mark.parametrize(
    ("components", "objects", "replicas"),
    [((), 8, 1), (("cluster",), 7, 3), (("cluster", "autoscaling"), 8, None)],
)
def test_kustomize_builds_objects_of_kubernetes(
    components: tuple[str, ...], objects: int, replicas: int | None, tmp_path: Path
) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize, is not on this machine")
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    example = tmp_path / "kubernetes" / "example"
    if components:
        with (example / "kustomization.yaml").open("a", encoding="utf-8") as file:
            file.write("".join(["components:\n", *(f"  - ../{each}\n" for each in components)]))
    built = subprocess.run([kubectl, "kustomize", example], capture_output=True, text=True, check=False, timeout=60)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    (tmp_path / "built.yaml").write_text(built.stdout, "utf-8")
    accepted("kubernetes-validate", "--strict", "-k", VERSIONS[-1], tmp_path / "built.yaml")
    assert len(re.findall(r"(?m)^  namespace: kimi$", built.stdout)) == objects
    assert re.findall(r"(?m)^  replicas: (\d+)$", built.stdout) == ([] if replicas is None else [str(replicas)])
    assert ("PersistentVolumeClaim" in built.stdout) != bool(components)
