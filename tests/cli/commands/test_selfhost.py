"""``kimi-mcp selfhost`` as a person types it."""

from __future__ import annotations

import pytest

from tests.cli.commands.shell import kimi


async def test_given_figures_are_read_instead_of_this_machine() -> None:
    ended = await kimi("selfhost", "--ram-gb", "256", "--vram-gb", "24", "--json")
    assert ended.status == 0, ended.err
    assert ended.json["machine"] | {"cores": 0} == {"ram_gb": 256, "gpus": 1, "vram_gb": 24, "cores": 0}
    (fit,) = ended.json["fits"]
    assert (fit["engine"], fit["repo"]) == ("llama.cpp", "unsloth/Kimi-K2.5-GGUF")
    assert fit["settings"]["KIMI_BASE_URL"] == "http://127.0.0.1:8080/v1"
    assert {row["engine"] for row in ended.json["lacks"]} == {
        "vLLM",
        "SGLang",
        "KTransformers",
        "llama.cpp",
        "vLLM on Blackwell",
    }


async def test_a_person_gets_every_command_and_what_to_set() -> None:
    ended = await kimi("selfhost", "--ram-gb", "1000", "--vram-gb", "1128", "--gpus", "8")
    assert ended.status == 0
    for text in ("snapshot_download('moonshotai/Kimi-K2.5'", "vllm serve ./kimi-k2.5", "KIMI_PROVIDER=vllm", "-tp 8"):
        assert text in ended.out
    assert ended.out.index("in vLLM") < ended.out.index("in SGLang") < ended.out.index("in KTransformers")


async def test_nothing_that_fits_is_reported_plainly_with_what_is_lacking() -> None:
    ended = await kimi("selfhost", "--ram-gb", "64")
    assert ended.status == 1
    assert "Nothing fits" in ended.out
    assert "256 GB of main memory" in ended.out
    assert "kimi-mcp models" in ended.out
    as_json = await kimi("selfhost", "--ram-gb", "64", "--json")
    assert as_json.status == 1
    assert as_json.json["fits"] == []


async def test_memory_without_a_number_of_gpus_is_that_of_large_ones() -> None:
    ended = await kimi("selfhost", "--ram-gb", "64", "--vram-gb", "1128", "--json")
    assert ended.json["machine"]["gpus"] == 8
    assert ended.json["fits"][0]["engine"] == "vLLM"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--gpus", "8"),
        ("--ram-gb", "-1"),
        ("--ram-gb", "much"),
        ("--gpus", "1.5"),
        ("--vram-gb", "nan"),
        ("--vram-gb", "inf"),
        ("--ram-gb", "1e309"),
        ("--vram-gb", "80", "--gpus", "0"),
    ],
)
async def test_wrong_figures_end_with_2(arguments: tuple[str, ...]) -> None:
    ended = await kimi("selfhost", *arguments)
    assert ended.status == 2
    assert "--" in ended.err


async def test_without_figures_this_machine_is_read() -> None:
    ended = await kimi("selfhost", "--json")
    assert ended.status in (0, 1)
    assert ended.json["machine"]["cores"] >= 1
