"""A wrong file is named with its key and what would be allowed there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kimi_mcp.catalogue import CatalogueError, load

K25, K3 = "models/kimi-k2.5.toml", "models/kimi-k3.toml"
MOONSHOT, VLLM, SGLANG = "providers/moonshot.toml", "providers/vllm.toml", "providers/sglang.toml"
SIMULATOR = "providers/simulator.toml"
WHY = "; every table says where its facts come from (source) and of which day they are (date)"

Edit = Callable[[str, str, str], Path]

WRONG: list[tuple[str, str, str, str]] = [
    # a value that is not one of the words
    (
        VLLM,
        'switch = "chat-template"',
        'switch = "chat_template"',
        (
            "providers/vllm.toml: dialect.switch is 'chat_template'; "
            "allowed: thinking-object, chat-template, reasoning-object, reasoning-effort, none"
        ),
    ),
    (
        VLLM,
        'response_format = ["json_object", "json_schema"]',
        'response_format = ["json_object", "xml"]',
        "providers/vllm.toml: output.response_format[2] is 'xml'; allowed: json_object, json_schema",
    ),
    # a value of another type: nothing is coerced
    (
        VLLM,
        "sends_sampling = true",
        'sends_sampling = "true"',
        "providers/vllm.toml: dialect.sends_sampling is 'true'; allowed: true, false",
    ),
    (
        VLLM,
        "self_hosted = true",
        'self_hosted = "unknown"',
        "providers/vllm.toml: about.self_hosted is 'unknown'; allowed: true, false",
    ),
    (
        VLLM,
        "image = true",
        'image = "maybe"',
        "providers/vllm.toml: media.image is 'maybe'; allowed: true, false, unknown",
    ),
    (
        VLLM,
        'max_tokens = "unknown"',
        'max_tokens = "lots"',
        "providers/vllm.toml: output.max_tokens is 'lots'; allowed: a whole number, unknown",
    ),
    (
        VLLM,
        'max_tokens = "unknown"',
        "max_tokens = 1.0",
        "providers/vllm.toml: output.max_tokens is 1.0; allowed: a whole number, unknown",
    ),
    (
        VLLM,
        'max_tokens = "unknown"',
        "max_tokens = 0",
        "providers/vllm.toml: output.max_tokens is 0; allowed: greater than 0, unknown",
    ),
    (VLLM, "hosts = []", 'hosts = "a.example"', "providers/vllm.toml: about.hosts is 'a.example'; allowed: a list"),
    (
        VLLM,
        "hosts = []",
        'hosts = ["https://a.example"]',
        (
            "providers/vllm.toml: about.hosts[1] is 'https://a.example'; "
            "allowed: a host name in small letters, without scheme, port and path"
        ),
    ),
    (
        VLLM,
        ":8000/v1",
        ":8000/v1/",
        (
            "providers/vllm.toml: about.base_url is 'http://127.0.0.1:8000/v1/'; "
            "allowed: an http or https URL without a slash at its end"
        ),
    ),
    (
        MOONSHOT,
        '["MOONSHOT_API_KEY"]',
        '["$MOONSHOT_API_KEY"]',
        (
            "providers/moonshot.toml: key.variables[1] is '$MOONSHOT_API_KEY'; "
            "allowed: the name of an environment variable"
        ),
    ),
    (
        MOONSHOT,
        "until = 2026-08-31",
        'until = "2026-08-31"',
        "providers/moonshot.toml: models[1].until is '2026-08-31'; allowed: a date such as 2026-01-27, unknown",
    ),
    (
        MOONSHOT,
        "until = 2026-08-31",
        "until = 2026-08-31T09:00:00",
        "providers/moonshot.toml: models[1].until is 2026-08-31 09:00:00; allowed: a date such as 2026-01-27, unknown",
    ),
    (
        VLLM,
        'price = "unknown"',
        'price = "free"',
        "providers/vllm.toml: models[1].price is 'free'; allowed: a table, unknown",
    ),
    (
        MOONSHOT,
        "input = 0.60",
        "input = -0.60",
        "providers/moonshot.toml: models[1].price.input is -0.6; allowed: greater than or equal to 0",
    ),
    (
        K25,
        "temperature = 0.6",
        'temperature = "0.6"',
        "models/kimi-k2.5.toml: sampling.instant.temperature is '0.6'; allowed: a number",
    ),
    (
        K25,
        "date = 2026-01-27",
        'date = "2026-01-27"',
        "models/kimi-k2.5.toml: about.date is '2026-01-27'; allowed: a date such as 2026-01-27",
    ),
    (
        K25,
        'source = "MoonshotAI/Kimi-K2.5 README.md"',
        'source = ""',
        "models/kimi-k2.5.toml: about.source is ''; allowed: text that is not empty",
    ),
    # a key that is not one
    (
        VLLM,
        "switch =",
        "swich =",
        "providers/vllm.toml: dialect.switch is missing; also dialect.swich is not a key here; did you mean switch?",
    ),
    (VLLM, "[dialect]", "[dialekt]", "providers/vllm.toml: dialekt is not a key here; did you mean dialect?"),
    (
        K25,
        "[about]",
        'zzz = "x"\n[about]',
        "models/kimi-k2.5.toml: zzz is not a key here; allowed: inherits, about, thinking, sampling, limits, media",
    ),
    (
        K25,
        "temperature = 1.0",
        "temprature = 1.0",
        "models/kimi-k2.5.toml: sampling.thinking.temprature is not a key here; did you mean temperature?",
    ),
    (
        MOONSHOT,
        "output = 3.00 }",
        "output = 3.00, outpt = 1.0 }",
        "providers/moonshot.toml: models[1].price.outpt is not a key here; did you mean output?",
    ),
    # a key that is not there
    (
        K25,
        "context_tokens = 262_144\n",
        "",
        "models/kimi-k2.5.toml: limits.context_tokens is missing",
    ),
    (
        MOONSHOT,
        "input = 0.60, ",
        "",
        "providers/moonshot.toml: models[1].price.input is missing",
    ),
    (
        K25,
        'source = "MoonshotAI/Kimi-K2.5 README.md"\n',
        "",
        "models/kimi-k2.5.toml: about has no source" + WHY,
    ),
    (
        SIMULATOR,
        "date = 2026-11-23\n",
        "",
        "providers/simulator.toml: about has no date" + WHY,
    ),
    (
        VLLM,
        'source = "huggingface.co/moonshotai/Kimi-K2.6"\n',
        "",
        "providers/vllm.toml: models[2] has no source" + WHY,
    ),
    (
        SIMULATOR,
        'model = "kimi-k2.5"\n',
        "",
        "providers/simulator.toml: models[1].model is missing; allowed: the id of a file in models",
    ),
    # things that don't fit each other
    (
        VLLM,
        'model = "kimi-k2.6"',
        'model = "kimi-k26"',
        "providers/vllm.toml: models[2].model is 'kimi-k26', and models has no such file; did you mean kimi-k2.6?",
    ),
    (
        VLLM,
        'model = "kimi-k2.6"',
        'model = "kimi-k2.5"',
        "providers/vllm.toml: models[2].model is 'kimi-k2.5', which an earlier row has already",
    ),
    (
        VLLM,
        '"moonshotai/Kimi-K2.6"',
        '"moonshotai/Kimi-K2.5"',
        "providers/vllm.toml: models[2].wire_id is 'moonshotai/Kimi-K2.5', which an earlier row has already",
    ),
    (
        VLLM,
        "hosts = []",
        'hosts = ["api.moonshot.ai"]',
        "providers/vllm.toml: about.hosts has 'api.moonshot.ai', which belongs to providers/moonshot.toml already",
    ),
    (
        K3,
        'default_effort = "max"',
        'default_effort = "ultra"',
        "models/kimi-k3.toml: thinking.default_effort is 'ultra'; allowed: low, high, max",
    ),
    (
        K3,
        'default_effort = "max"',
        'default_effort = "none"',
        "models/kimi-k3.toml: thinking.default_effort is missing; allowed: low, high, max",
    ),
    (
        K25,
        "efforts = []",
        'efforts = ["low"]',
        "models/kimi-k2.5.toml: thinking.default_effort is missing; allowed: low",
    ),
    (
        K25,
        "can_stop = true",
        "can_stop = false",
        "models/kimi-k2.5.toml: sampling.instant is given while thinking.can_stop is false; allowed: none",
    ),
    (
        K25,
        "instant = {",
        'instant = "unknown"\n# {',
        "models/kimi-k2.5.toml: sampling.thinking and sampling.instant are known together or both unknown",
    ),
    (
        K25,
        "instant = {",
        'instant = "none"\n# {',
        "models/kimi-k2.5.toml: sampling.instant is none while thinking.can_stop is true; allowed: its values, unknown",
    ),
    # inheritance
    (
        SGLANG,
        'inherits = "vllm"',
        'inherits = "vlm"',
        "providers/sglang.toml: inherits is 'vlm', and providers has no such file; did you mean vllm?",
    ),
    (
        SGLANG,
        'inherits = "vllm"',
        "inherits = 3",
        "providers/sglang.toml: inherits is 3; allowed: the id of another file",
    ),
    (
        K25,
        "[about]",
        'inherits = "kimi-k2.6"\n[about]',
        "models/kimi-k2.6.toml: inherits goes round in a circle: kimi-k2.5 → kimi-k2.6 → kimi-k2.5",
    ),
    (
        K25,
        "[about]",
        'inherits = "kimi-k2.5"\n[about]',
        "models/kimi-k2.5.toml: inherits goes round in a circle: kimi-k2.5 → kimi-k2.5",
    ),
]


def message_of(error: CatalogueError) -> str:
    """What the error reports of the file."""
    assert error.code == "not_configured"
    return error.message.removeprefix("A file of the catalogue is wrong: ").removesuffix(".")


@pytest.mark.parametrize(("file", "old", "new", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_a_wrong_file_is_named_with_its_key_and_what_is_allowed(
    edit: Edit, file: str, old: str, new: str, message: str
) -> None:
    folder = edit(file, old, new)
    with pytest.raises(CatalogueError) as caught:
        load(folder)
    assert message_of(caught.value) == message


def test_a_file_that_is_not_toml_is_named(edit: Edit) -> None:
    folder = edit(K25, "[about]", "[about")
    with pytest.raises(
        CatalogueError, match=r"^A file of the catalogue is wrong: models/kimi-k2\.5\.toml: is not TOML: .*line"
    ):
        load(folder)


def test_a_file_that_is_not_text_is_named(edit: Edit) -> None:
    folder = edit(K25, "# Kimi", "# Kimi")
    (folder / K25).write_bytes(b"\xff\xfe")
    with pytest.raises(
        CatalogueError, match=r"^A file of the catalogue is wrong: models/kimi-k2\.5\.toml: is not UTF-8 text\.$"
    ):
        load(folder)


def test_a_value_in_the_place_of_a_table_is_named(edit: Edit) -> None:
    folder = edit(K25, "[about]", "limits = 3\n[about]")
    text = (folder / K25).read_text(encoding="utf-8")
    (folder / K25).write_text(text.replace("[limits]", "[media.more]"), encoding="utf-8")
    with pytest.raises(CatalogueError) as caught:
        load(folder)
    assert message_of(caught.value) == "models/kimi-k2.5.toml: limits is 3; allowed: a table"


def test_a_folder_without_files_is_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(
        CatalogueError, match=r"^A file of the catalogue is wrong: models: no \*\.toml file is there\.$"
    ):
        load(tmp_path)
