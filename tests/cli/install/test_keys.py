"""Where the keys are that a server in a host gets."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from kimi_mcp.cli.install import (
    HostRow,
    LaunchCommand,
    snippet,
)
from kimi_mcp.cli.install.documents import FORMATS
from kimi_mcp.core.errors import InvalidArguments
from tests.cli.install.example_files import HOSTS, KEY, each_host, put, servers, take


@each_host
def test_a_key_is_written_only_where_the_host_has_no_better_place_for_it(host: HostRow, file: Path) -> None:
    done = put(host, file, {"MOONSHOT_API_KEY": KEY})
    plain = host.keys.way == "plain"
    assert (KEY in file.read_text("utf-8")) == plain
    assert done.in_clear == (("MOONSHOT_API_KEY",) if plain else ())
    assert done.keys == ("MOONSHOT_API_KEY",)


def test_whoever_removes_a_key_learns_that_the_copy_still_holds_it(file: Path) -> None:
    put(HOSTS["claude-desktop"], file, {"MOONSHOT_API_KEY": KEY, "KIMI_POLICY": "strict"})
    assert take(HOSTS["claude-desktop"], file).in_clear == ("MOONSHOT_API_KEY",)
    put(HOSTS["claude-code"], file, {"MOONSHOT_API_KEY": KEY})
    assert take(HOSTS["claude-code"], file).in_clear == ()


@each_host
def test_what_is_no_utf_8_is_reported_and_nothing_is_written(host: HostRow, file: Path) -> None:
    with pytest.raises(InvalidArguments, match="KIMI_ROOTS is no UTF-8"):
        put(host, file, {"KIMI_ROOTS": "/data/\udcff"})
    with pytest.raises(InvalidArguments, match="path is no UTF-8"):
        snippet(host, "kimi", LaunchCommand(command="/opt/\udcff/kimi-mcp"), {}, {})
    assert not file.exists()


def test_a_secret_is_known_in_small_letters_too(file: Path) -> None:
    put(HOSTS["cursor"], file, {"search_api_key": KEY})
    assert servers(HOSTS["cursor"], file)["kimi"]["env"]["search_api_key"] == "${env:search_api_key}"


def test_one_host_alone_has_no_place_for_secrets() -> None:
    assert [host.id for host in HOSTS.values() if host.keys.way == "plain"] == ["claude-desktop"]


@each_host
def test_the_key_of_the_environment_is_named_and_never_read_into_the_file(host: HostRow, file: Path) -> None:
    done = put(host, file, OPENROUTER_API_KEY=KEY)
    assert done.keys == ("OPENROUTER_API_KEY",)
    assert KEY not in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("env", "environment", "key"),
    [
        ({}, {}, "MOONSHOT_API_KEY"),
        ({}, {"NOVITA_API_KEY": KEY}, "NOVITA_API_KEY"),
        ({}, {"KIMI_API_KEY": KEY}, "KIMI_API_KEY"),
        ({}, {"KIMI_API_KEY": KEY, "NOVITA_API_KEY": KEY}, "NOVITA_API_KEY"),
        ({"KIMI_PROVIDER": "openrouter"}, {"NOVITA_API_KEY": KEY}, "OPENROUTER_API_KEY"),
        ({"KIMI_PROVIDER": "novita"}, {"NOVITA_API_KEY": KEY, "KIMI_API_KEY": KEY}, "KIMI_API_KEY"),
        ({"KIMI_PROVIDER": "simulator"}, {"NOVITA_API_KEY": KEY}, None),
        ({"KIMI_BASE_URL": "http://127.0.0.1:8000/v1"}, {}, None),
        ({"KIMI_API_KEY": KEY}, {"NOVITA_API_KEY": KEY}, "KIMI_API_KEY"),
        ({"NOVITA_API_KEY": ""}, {"MOONSHOT_API_KEY": KEY}, "NOVITA_API_KEY"),
    ],
)
def test_the_key_that_a_call_would_carry_is_provided_for(
    env: dict[str, str], environment: dict[str, str], key: str | None, file: Path
) -> None:
    done = put(HOSTS["codex"], file, env, **environment)
    assert done.keys == ((key,) if key else ())
    assert tomllib.loads(file.read_text("utf-8"))["mcp_servers"]["kimi"].get("env_vars") == ([key] if key else None)
    assert KEY not in file.read_text("utf-8")


TWO = {"KIMI_PROVIDER": "moonshot", "KIMI_ALLOWED_PROVIDERS": "nim,openrouter"}


@pytest.mark.parametrize(
    ("env", "environment", "keys"),
    [
        (TWO, {"OPENROUTER_API_KEY": KEY}, ("MOONSHOT_API_KEY", "OPENROUTER_API_KEY")),
        (TWO, {"OPENROUTER_API_KEY": KEY, "NVIDIA_API_KEY": KEY, "NOVITA_API_KEY": KEY},
         ("MOONSHOT_API_KEY", "NVIDIA_API_KEY", "OPENROUTER_API_KEY")),
        (TWO, {"KIMI_API_KEY": KEY, "NVIDIA_API_KEY": " "}, ("KIMI_API_KEY",)),
        (TWO | {"KIMI_PROVIDER": "simulator"}, {"NVIDIA_API_KEY": KEY}, ("NVIDIA_API_KEY",)),
        (TWO | {"OPENROUTER_API_KEY": KEY}, {}, ("OPENROUTER_API_KEY", "MOONSHOT_API_KEY")),
        (TWO | {"MOONSHOT_API_KEY": KEY}, {"OPENROUTER_API_KEY": KEY}, ("MOONSHOT_API_KEY", "OPENROUTER_API_KEY")),
        ({"KIMI_ALLOWED_PROVIDERS": "openrouter"}, {"NVIDIA_API_KEY": KEY, "OPENROUTER_API_KEY": KEY},
         ("NVIDIA_API_KEY", "OPENROUTER_API_KEY")),
        ({"KIMI_PROVIDER": "nim"}, {"HF_TOKEN": KEY}, ("HF_TOKEN",)),
    ],
)  # fmt: skip
def test_the_keys_of_allowed_providers_go_the_same_way_as_the_chosen_ones(
    env: dict[str, str], environment: dict[str, str], keys: tuple[str, ...], file: Path
) -> None:
    done = put(HOSTS["codex"], file, env, **environment)
    assert done.keys == keys
    assert tomllib.loads(file.read_text("utf-8"))["mcp_servers"]["kimi"]["env_vars"] == list(keys)
    assert KEY not in file.read_text("utf-8")


@each_host
def test_no_allowed_providers_key_of_the_environment_is_read_into_the_file(host: HostRow, file: Path) -> None:
    done = put(host, file, TWO, OPENROUTER_API_KEY=KEY)
    assert done.keys == ("MOONSHOT_API_KEY", "OPENROUTER_API_KEY")
    assert done.in_clear == ()
    assert KEY not in file.read_text("utf-8")


@pytest.mark.parametrize("given", ["NOVITA_API_KEY", "KIMI_API_KEY"])
def test_an_allowed_providers_key_that_would_choose_another_provider_stays_out(given: str, file: Path) -> None:
    done = put(HOSTS["codex"], file, {given: KEY, "KIMI_ALLOWED_PROVIDERS": "moonshot"}, MOONSHOT_API_KEY=KEY)
    assert done.keys == (given,), "without KIMI_PROVIDER the first key of all decides where everything goes"


def test_providers_that_are_allowed_later_bring_their_keys_and_change_no_other(file: Path) -> None:
    put(HOSTS["codex"], file, NVIDIA_API_KEY=KEY)
    put(HOSTS["codex"], file, {"KIMI_ALLOWED_PROVIDERS": "novita"}, MOONSHOT_API_KEY=KEY, NOVITA_API_KEY=KEY)
    entry = tomllib.loads(file.read_text("utf-8"))["mcp_servers"]["kimi"]
    assert entry["env_vars"] == ["NVIDIA_API_KEY", "NOVITA_API_KEY"]


def test_a_key_that_stands_in_the_entry_is_not_asked_for_when_others_are_allowed(file: Path) -> None:
    entry = {"type": "stdio", "command": "/old/kimi-mcp", "args": [], "env": {"MOONSHOT_API_KEY": KEY}}
    file.write_text(json.dumps({"servers": {"kimi": entry}}), "utf-8")
    put(HOSTS["vscode"], file, {"KIMI_ALLOWED_PROVIDERS": "novita"}, NOVITA_API_KEY=KEY)
    value = json.loads(file.read_text("utf-8"))
    assert value["servers"]["kimi"]["env"]["MOONSHOT_API_KEY"] == KEY
    assert [each["id"] for each in value["inputs"]] == ["kimi-mcp-novita-api-key"]


def test_an_allowed_provider_that_is_none_is_refused_and_nothing_is_written(file: Path) -> None:
    with pytest.raises(InvalidArguments, match="KIMI_ALLOWED_PROVIDERS") as error:
        put(HOSTS["codex"], file, {"KIMI_ALLOWED_PROVIDERS": "openruoter"})
    assert "openrouter" in error.value.fix
    assert not file.exists()


@pytest.mark.parametrize("name", ["MY_TOKEN", "KIMI_DATABASE_URL", "PROXY_PASSWORD"])
def test_other_secrets_are_kept_out_of_the_file_too_and_the_key_is_provided_for_all_the_same(
    name: str, file: Path
) -> None:
    done = put(HOSTS["claude-code"], file, {name: f"x://me:{KEY}@host"})
    assert done.keys == (name, "MOONSHOT_API_KEY")
    assert KEY not in file.read_text("utf-8")


def test_a_reference_that_is_given_is_written_as_it_is(file: Path) -> None:
    put(HOSTS["vscode"], file, {"MOONSHOT_API_KEY": "${input:mine}"})
    assert json.loads(file.read_text("utf-8"))["servers"]["kimi"]["env"] == {"MOONSHOT_API_KEY": "${input:mine}"}
    assert "inputs" not in json.loads(file.read_text("utf-8"))


def test_a_key_that_a_person_put_in_by_hand_is_not_touched(file: Path) -> None:
    entry = {"type": "stdio", "command": "/old/kimi-mcp", "args": [], "env": {"MOONSHOT_API_KEY": KEY}}
    file.write_text(json.dumps({"mcpServers": {"kimi": entry}}), "utf-8")
    put(HOSTS["claude-code"], file, {"KIMI_POLICY": "strict"})
    env = json.loads(file.read_text("utf-8"))["mcpServers"]["kimi"]["env"]
    assert env == {"MOONSHOT_API_KEY": KEY, "KIMI_POLICY": "strict"}


def test_vscode_asks_once_and_forgets_the_question_with_the_entry(file: Path) -> None:
    host = HOSTS["vscode"]
    file.write_text('{\n  "inputs": [{"id": "theirs", "type": "promptString"}] // mine\n}\n', "utf-8")
    put(host, file)
    put(host, file, name="second")
    value = FORMATS["jsonc"].read(file.read_text("utf-8"))
    assert [each["id"] for each in value["inputs"]] == ["theirs", "kimi-mcp-moonshot-api-key"]
    assert value["inputs"][1]["password"] is True
    take(host, file)
    assert "kimi-mcp-moonshot-api-key" in file.read_text("utf-8"), "the second still needs it"
    take(host, file, "second")
    assert [each["id"] for each in FORMATS["jsonc"].read(file.read_text("utf-8"))["inputs"]] == ["theirs"]


@pytest.mark.parametrize("variable", ["NVIDIA_API_KEY", "MY_NAME_TOKEN"])
def test_the_question_names_the_variable_whatever_its_name_holds(variable: str, file: Path) -> None:
    put(HOSTS["vscode"], file, {"KIMI_PROVIDER": "simulator", variable: KEY})
    value = json.loads(file.read_text("utf-8"))
    id = f"kimi-mcp-{variable.lower().replace('_', '-')}"
    (question,) = value["inputs"]
    assert (question["id"], question["description"]) == (id, f"{variable}, for kimi-mcp")
    assert value["servers"]["kimi"]["env"][variable] == f"${{input:{id}}}"


@pytest.mark.parametrize(
    ("id", "hint"),
    [
        ("claude-code", "${MOONSHOT_API_KEY:-}"),
        ("cursor", "${env:MOONSHOT_API_KEY}"),
        ("vscode", "${input:kimi-mcp-moonshot-api-key}"),
        ("gemini", "${MOONSHOT_API_KEY}"),
        ("goose", "MOONSHOT_API_KEY"),
        ("codex", "MOONSHOT_API_KEY"),
    ],
)
def test_each_host_has_its_own_hint_where_the_key_is(id: str, hint: str, file: Path) -> None:
    put(HOSTS[id], file)
    entry = servers(HOSTS[id], file)["kimi"]
    named = entry.get("env_keys") or entry.get("env_vars") or list(entry["env"].values())
    assert named == [hint]


@each_host
def test_another_provider_takes_the_place_of_the_old_one_s_key(host: HostRow, file: Path) -> None:
    put(host, file)
    put(host, file, {"KIMI_PROVIDER": "openrouter"}, OPENROUTER_API_KEY=KEY)
    text = file.read_text("utf-8")
    assert "MOONSHOT_API_KEY" not in text
    assert "moonshot-api-key" not in text, "nor does a host ask for it"
    assert ("OPENROUTER_API_KEY" in text) == (host.keys.way in ("reference", "input", "named"))


def test_a_key_in_clear_text_stays_for_its_person_to_remove(file: Path) -> None:
    put(HOSTS["claude-desktop"], file, {"MOONSHOT_API_KEY": KEY})
    put(HOSTS["claude-desktop"], file, {"KIMI_PROVIDER": "simulator"})
    assert servers(HOSTS["claude-desktop"], file)["kimi"]["env"]["MOONSHOT_API_KEY"] == KEY
