"""Which weights fit which machine, and whether the commands are right for them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kimi_mcp import catalogue
from kimi_mcp.cli.selfhost import Fit, Machine, fits, load, misses, this_machine

WEIGHTS, ENGINES = load()
NOTHING = Machine(ram_gb=None, gpus=None, gpu_gb=None, cores=4)
EVERYTHING = Machine(ram_gb=2000, gpus=8, gpu_gb=1128, cores=96)


def machine(ram: float = 0, gpu: float = 0, gpus: int | None = None) -> Machine:
    return Machine(ram_gb=ram, gpus=gpus if gpus is not None else int(gpu > 0), gpu_gb=gpu, cores=8)


def found(there: Machine) -> list[tuple[str, str]]:
    return [(fit.option.engine, fit.weights.id) for fit in fits(there)]


@pytest.mark.parametrize(
    ("there", "first", "count"),
    [
        (machine(256, 24), ("llama.cpp", "ud-tq1-0"), 1),
        (machine(216, 24), ("llama.cpp", "ud-tq1-0"), 1),
        (machine(375), ("llama.cpp", "ud-q2-k-xl"), 1),
        (machine(399, 24), ("llama.cpp", "ud-q2-k-xl"), 2),
        (machine(600, 48, 2), ("KTransformers", "int4"), 4),
        (machine(64, 714, 4), ("vLLM", "int4"), 6),
        (machine(200, 1128, 8), ("vLLM", "int4"), 6),
        (EVERYTHING, ("vLLM", "int4"), 7),
    ],
)
def test_the_best_that_fits_comes_first(there: Machine, first: tuple[str, str], count: int) -> None:
    assert found(there)[0] == first
    assert len(found(there)) == count


@pytest.mark.parametrize(
    "there",
    [
        NOTHING,
        machine(),
        machine(215, 24),
        machine(256, 23),
        machine(256),
        machine(374),
        machine(64, 175),
        machine(100, 120, 4),
    ],
)
def test_what_is_a_little_too_small_does_not_fit(there: Machine) -> None:
    assert found(there) == []
    assert all(lacks for _, _, lacks in misses(there))


def test_engines_come_in_the_order_that_they_are_preferred_in() -> None:
    engines = [fit.option.engine for fit in fits(EVERYTHING)]
    assert list(dict.fromkeys(engines)) == ["vLLM", "SGLang", "KTransformers", "llama.cpp", "vLLM on Blackwell"]


def test_weights_that_are_in_doubt_come_last_and_say_why() -> None:
    doubts = [fit.weights.doubt is not None for fit in fits(EVERYTHING)]
    assert doubts == sorted(doubts)
    assert doubts.count(True) == 2


@pytest.mark.parametrize(("engine", "split"), [("vLLM", " -tp 4 "), ("SGLang", " --tp 4 ")])
def test_the_memory_that_vllms_recipe_names_counts_on_however_many_gpus(engine: str, split: str) -> None:
    (launch,) = (fit.launch for fit in fits(machine(64, 768, 4)) if fit.option.engine == engine)
    assert split in launch
    assert engine not in [engine for engine, _ in found(machine(64, 713, 8))]


def test_of_six_gpus_four_are_used_and_only_their_memory_counts() -> None:
    assert "vLLM" not in [engine for engine, _ in found(machine(64, 846, 6))]
    lacks = next(lacks for _, option, lacks in misses(machine(64, 846, 6)) if option.engine == "vLLM")
    assert lacks == ["714 GB of GPU memory on 4 of the 6 GPUs"]
    assert "vLLM" in [engine for engine, _ in found(machine(64, 1080, 6))]


# ------------------------------------------------------------------------------------------------- commands


def test_gguf_files_are_run_by_llama_cpp_alone_and_native_weights_never() -> None:
    for option in ENGINES:
        gguf = {id for id in option.weights if "GGUF" in WEIGHTS[id].repo}
        assert gguf == (set(option.weights) if option.launch.startswith("llama-server") else set())


def test_every_way_names_weights_and_needs_that_are_there() -> None:
    for option in ENGINES:
        assert set(option.weights) <= WEIGHTS.keys()
        assert {needs.weights for needs in option.needs} == set(option.weights)


@pytest.mark.parametrize("fit", fits(EVERYTHING), ids=lambda fit: f"{fit.option.engine}-{fit.weights.id}")
def test_what_is_served_is_what_the_catalogue_asks_for_where_it_asks(fit: Fit) -> None:
    profile = catalogue.load().profile(fit.settings["KIMI_PROVIDER"], fit.settings["KIMI_MODEL"])
    assert profile is not None
    assert profile.provider.self_hosted
    words = shlex.split(fit.launch)
    named = next(words[words.index(flag) + 1] for flag in ("--served-model-name", "--alias") if flag in words)
    assert named == profile.serving.wire_id
    assert words[words.index("--host") + 1] == "127.0.0.1", "nobody else is to reach it"
    assert int(words[words.index("--port") + 1]) == urlsplit(fit.settings["KIMI_BASE_URL"]).port
    assert "--reasoning-parser" in words or "--reasoning-format" in words
    assert not re.search(r"\{\w*\}", fit.launch + fit.download)


@pytest.mark.parametrize("fit", fits(EVERYTHING), ids=lambda fit: f"{fit.option.engine}-{fit.weights.id}")
def test_the_download_is_one_command_of_right_python(fit: Fit) -> None:
    python, flag, program = shlex.split(fit.download)
    assert (python, flag) == ("python", "-c")
    compile(program, "download", "exec")
    assert f"snapshot_download('{fit.weights.repo}'" in program
    assert all(repr(pattern) in program for pattern in fit.weights.patterns)
    assert fit.weights.folder in fit.launch


@pytest.mark.parametrize(
    ("there", "option"),
    [
        (machine(400), ""),
        (machine(375, 24), "--n-gpu-layers 99 --n-cpu-moe 99"),
        (machine(64, 500), "--n-gpu-layers 99 --host"),
    ],
)
def test_llama_cpp_gets_what_is_on_the_gpus(there: Machine, option: str) -> None:
    (launch,) = (fit.launch for fit in fits(there) if fit.weights.id == "ud-q2-k-xl")
    assert option in launch
    assert ("--n-cpu-moe" in launch) == ("--n-cpu-moe" in option)


@pytest.mark.parametrize(
    ("gpu", "gpus", "experts", "parallel"), [(48, 2, 0, 2), (96, 4, 30, 4), (144, 6, 30, 4), (4000, 8, 384, 8)]
)
def test_ktransformers_gets_how_much_fits_on_the_gpus(gpu: float, gpus: int, experts: int, parallel: int) -> None:
    (launch,) = (fit.launch for fit in fits(machine(700, gpu, gpus)) if fit.option.engine == "KTransformers")
    assert f"--kt-num-gpu-experts {experts} --tensor-parallel-size {parallel} " in launch


def test_every_row_says_where_it_is_from() -> None:
    assert all(row.source and row.checked for row in (*WEIGHTS.values(), *ENGINES))


# ------------------------------------------------------------------------------------------------- this machine


def test_this_machine_has_memory_and_cores() -> None:
    there = this_machine()
    assert there.cores >= 1
    assert there.ram_gb is None or there.ram_gb > 0.1


def test_gpus_are_read_from_what_the_driver_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '24564\\n24564\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    there = this_machine()
    assert there.gpus == 2
    assert there.gpu_gb is not None
    assert 51 < there.gpu_gb < 52


@pytest.mark.parametrize("script", ["exit 9", "echo no devices were found", "echo [N/A]"])
def test_a_driver_that_does_not_answer_says_nothing(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert not this_machine().gpus


def test_a_container_has_what_it_may_have(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1000000000\n")
    assert this_machine(limit).ram_gb == 1.0
    limit.write_text("max\n")
    assert (this_machine(limit).ram_gb or 0) > 1.0
