"""The user's catalogue: it changes what it names, adds what is new, and sends no key elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from kimi_mcp import catalogue
from kimi_mcp.catalogue import Catalogue, CatalogueError
from kimi_mcp.catalogue.credentials import access_to, chosen_provider, key_variables, keys
from kimi_mcp.core.errors import KimiError, NotConfigured
from kimi_mcp.core.settings import read_settings

ACME = """inherits = "together"
[about]
name = "Acme"
base_url = "https://api.acme.example/v1"
[key]
needed = true
variables = ["ACME_API_KEY"]
[[models]]
model = "kimi-k3"
wire_id = "acme/k3"
price = { input = 1.00, cached = 0.10, output = 5.00 }
"""
DAY = date(2026, 11, 23)

Lay = Callable[..., Catalogue]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Lays files, by their names, over the catalogue."""

    def read(**files: str) -> Catalogue:
        for name, text in files.items():
            kind, _, stem = name.partition("__")
            (tmp_path / "mine" / kind).mkdir(parents=True, exist_ok=True)
            stem = stem.replace("__", ".").replace("_", "-")
            (tmp_path / "mine" / kind / f"{stem}.toml").write_text(text, encoding="utf-8")
        return catalogue.load_for(read_settings({"KIMI_CATALOGUE": str(tmp_path / "mine")}))

    return read


def test_a_file_of_a_known_name_changes_only_what_it_names(lay: Lay) -> None:
    price = "price = { input = 2.50, cached = 0.25, output = 12.50 }"
    facts = lay(providers__moonshot=f'[[models]]\nmodel = "kimi-k3"\n{price}\nuntil = 2026-12-24\n')
    before, after = (each.providers["moonshot"] for each in (catalogue.load(), facts))
    assert [row.model for row in after.models] == [row.model for row in before.models]
    changed = {row.model: row for row in after.models}["kimi-k3"]
    assert (changed.price and changed.price.input, changed.until) == (2.50, date(2026, 12, 24))
    assert after.models[0] == before.models[0]
    assert after.hosts == before.hosts
    assert facts.models == catalogue.load().models
    heir = facts.profile("moonshot-cn", "kimi-k3")
    assert heir is not None
    assert heir.price == changed.price


def test_each_row_names_the_files_of_the_user_that_bear_on_it(lay: Lay) -> None:
    facts = lay(
        providers__moonshot='[[models]]\nmodel = "kimi-k3"\nuntil = 2027-02-01\n',
        models__kimi_k2__6="[limits]\ncontext_tokens = 131072\n",
    )
    yours = {(row.provider, row.model): row.yours for row in facts.rows(DAY)}
    assert yours["moonshot", "kimi-k3"] == yours["moonshot-cn", "kimi-k3"] == ("providers/moonshot.toml",)
    assert yours["novita", "kimi-k2.6"] == ("models/kimi-k2.6.toml",)
    assert yours["moonshot", "kimi-k2.5"] == ()
    (row,) = (row for row in facts.rows(DAY) if (row.provider, row.model) == ("moonshot", "kimi-k3"))
    assert row.source == "KIMI_CATALOGUE/providers/moonshot.toml"


def test_another_file_adds_a_provider_and_a_model(lay: Lay) -> None:
    facts = lay(
        providers__acme=ACME.replace('model = "kimi-k3"', 'model = "kimi-k4"'),
        models__kimi_k4='inherits = "kimi-k3"\n[about]\nname = "Kimi K4"\n[limits]\ncontext_tokens = 2097152\n',
    )
    acme = facts.profile("acme", "kimi-k4")
    assert acme is not None
    assert acme.provider.hosts == ("api.acme.example",)
    assert [row.model for row in acme.provider.models] == ["kimi-k4"], "an added provider inherits no rows"
    assert acme.provider.switch == facts.providers["together"].switch
    assert acme.model.context_tokens == 2_097_152
    assert list(facts.providers)[-1] == "acme"


def test_an_added_provider_is_used_where_it_is_named_with_its_own_key(lay: Lay) -> None:
    facts = lay(providers__acme=ACME)
    environment = {"KIMI_PROVIDER": "acme", "ACME_API_KEY": "sk-acme", "MOONSHOT_API_KEY": "sk-moonshot"}
    settings = read_settings(environment)
    chosen = chosen_provider(settings, facts)
    access = access_to(chosen, settings, chosen)
    assert (access.base_url, access.key) == ("https://api.acme.example/v1", "sk-acme")
    assert set(keys(settings, facts)) == {"ACME_API_KEY", "MOONSHOT_API_KEY"}, "both are hidden in logs"
    by_argument = access_to(facts.providers["acme"], settings, facts.providers["moonshot"])
    assert by_argument.key == "sk-acme"


def test_the_key_of_an_added_provider_alone_chooses_nothing(lay: Lay) -> None:
    facts = lay(providers__acme=ACME.replace("[about]", "[about]\norder = 1"))
    assert "ACME_API_KEY" not in key_variables(facts)
    with pytest.raises(NotConfigured) as raised:
        chosen_provider(read_settings({"ACME_API_KEY": "sk-acme"}), facts)
    assert "KIMI_PROVIDER=acme" in raised.value.fix
    assert chosen_provider(read_settings({"KIMI_API_KEY": "sk-any"}), facts).id == "moonshot"
    assert chosen_provider(read_settings({"KIMI_BASE_URL": "http://10.0.0.7:8000/v1"}), facts).id == "vllm"


STOLEN = [
    ("providers__moonshot", '[about]\nbase_url = "https://evil.example/v1"\n', "lead the key of moonshot elsewhere"),
    (
        "providers__moonshot",
        '[about]\nbase_url = "https://evil.example/v1"\nhosts = ["evil.example"]\n',
        "lead the key of moonshot elsewhere",
    ),
    ("providers__moonshot", '[about]\nhosts = ["api.moonshot.ai", "evil.example"]\n', "lead the key of moonshot"),
    ("providers__moonshot", '[about]\nbase_url = "http://api.moonshot.ai/v1"\n', "allowed: https"),
    ("providers__moonshot", '[about]\nbase_url = "https://api.moonshot.ai@evil.example/v1"\n', "about.base_url is"),
    ("providers__moonshot", "[about]\norder = 9\n", "about.order can't be changed"),
    ("providers__moonshot", 'inherits = "vllm"\n', "inherits is for an added file"),
    ("providers__novita", '[key]\nvariables = ["MOONSHOT_API_KEY"]\n', "'MOONSHOT_API_KEY', which belongs to moonshot"),
    ("providers__vllm", '[key]\nborrowed = ["HF_TOKEN"]\n', "key.borrowed has 'HF_TOKEN', which belongs to hug"),
    ("providers__simulator", '[key]\nvariables = ["KIMI_API_KEY"]\n', "belongs to kimi-mcp"),
    (
        "providers__acme",
        ACME.replace("ACME_API_KEY", "HF_TOKEN"),
        "'HF_TOKEN', which belongs to huggingface and goes",
    ),
    ("providers__acme", ACME.replace('variables = ["ACME_API_KEY"]', ""), "which belongs to together"),
    (
        "providers__acme",
        ACME.replace("api.acme.example", "api.novita.ai"),
        "which belongs to providers/novita.toml",
    ),
    (
        "providers__acme",
        ACME.replace("[key]", 'hosts = ["other.example"]\n[key]'),
        "about.hosts lacks the host of about.base_url, api.acme.example",
    ),
]


@pytest.mark.parametrize(("file", "text", "found"), STOLEN)
def test_no_file_can_send_a_key_to_another_host(lay: Lay, file: str, text: str, found: str) -> None:
    with pytest.raises(CatalogueError) as raised:
        lay(**{file: text})
    assert raised.value.message.startswith("KIMI_CATALOGUE is wrong: providers/")
    assert found in raised.value.message
    assert "KIMI_CATALOGUE" in raised.value.fix


def test_two_added_providers_can_not_share_a_key(lay: Lay) -> None:
    with pytest.raises(CatalogueError, match="'ACME_API_KEY', which belongs to acme"):
        lay(providers__acme=ACME, providers__zeta=ACME.replace("api.acme", "api.zeta"))


WRONG = [
    (
        "providers/acme.toml",
        ACME.replace("base_url", "base_ulr"),
        "about.base_ulr is not a key here; did you mean base",
    ),
    ("providers/acme.toml", ACME.replace("price", "prize"), "models[1].prize is not a key here; did you mean price?"),
    ("providers/acme.toml", ACME.partition("[[models]]")[0], "providers/acme.toml: models is missing"),
    ("providers/acme.toml", ACME.replace('"together"', '"togehter"'), "did you mean together?"),
    ("providers/acme.toml", ACME.replace('"kimi-k3"', '"kimi-k9"'), "models[1].model is 'kimi-k9'"),
    ("providers/moonshot.toml", '[[models]]\nmodel = "kimi-k4"\nprice = "unknown"\n', ": models[1].wire_id is missing"),
    ("providers/moonshot.toml", "[models]\n", "models is a table; allowed: rows, each under [[models]]"),
    ("providers/acme.toml", "about = 3\n", "providers/acme.toml: about is 3; allowed: a table"),
    ("providers/acme.toml", "[about\n", "providers/acme.toml: is not TOML"),
    ("models/kimi-k3.toml", '[thinking]\nefforts = ["low"]\n', "models/kimi-k3.toml: thinking.default_effort is 'max'"),
    ("models/kimi-k4.toml", '[about]\nname = "K4"\n', "models/kimi-k4.toml: about.released is missing"),
    ("models/deep.toml", "x = " + "[" * 3_000 + "]" * 3_000, "models/deep.toml: is nested too deep"),
    ("models/big.toml", "# " + "x" * 300_000, "models/big.toml: is no file of at most 262,144 bytes"),
    ("models/Kimi K4.toml", "", "models/Kimi K4.toml is no name of a file here"),
    ("models/kimi-k4.tml", "", "models/kimi-k4.tml is no name of a file here"),
    ("moonshot.toml", "", "moonshot.toml: it belongs into models or providers"),
    ("provider/acme.toml", "", "provider is no folder of a catalogue; did you mean providers?"),
    ("README.md", "mine", "it has none of the folders models and providers"),
]


@pytest.mark.parametrize(("file", "text", "found"), WRONG, ids=[f"{file}: {found}" for file, _, found in WRONG])
def test_a_wrong_file_is_named_with_its_key_and_no_path(tmp_path: Path, file: str, text: str, found: str) -> None:
    path = tmp_path / "mine" / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError) as raised:
        catalogue.load_for(read_settings({"KIMI_CATALOGUE": str(tmp_path / "mine")}))
    assert found in raised.value.message
    assert str(tmp_path) not in raised.value.message + raised.value.fix


def test_a_folder_that_is_not_there_is_not_configured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(KimiError) as raised:
            catalogue.load_for(read_settings({"KIMI_CATALOGUE": str(folder)}))
        assert (raised.value.code, str(tmp_path) in raised.value.message) == ("not_configured", False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_in_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    os.mkfifo(tmp_path / "models/kimi-k4.toml")
    with pytest.raises(CatalogueError, match="is no file"):
        catalogue.load_for(read_settings({"KIMI_CATALOGUE": str(tmp_path)}))


def test_a_mended_file_is_read_without_a_restart(lay: Lay) -> None:
    with pytest.raises(CatalogueError):
        lay(providers__acme="[about\n")
    assert "acme" in lay(providers__acme=ACME).providers


def test_the_examples_of_the_guide_are_a_catalogue(lay: Lay) -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/providers.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```toml\n# (\S+)\.toml\n(.*?)```", guide, re.DOTALL))
    assert len(files) == 3
    named = {name.replace("/", "__").replace(".", "__").replace("-", "_"): text for name, text in files.items()}
    facts = lay(**named)
    assert {file.name.removesuffix(".toml") for file in facts.user_files.values()} == set(files)
