"""The part of a diagnosis that spends a few tokens: tiny calls along the one path, held against the catalogue. I/O."""

from __future__ import annotations

import anyio

from kimi_mcp.cli.doctor.diagnosis import Diagnosis
from kimi_mcp.cli.doctor.provider import QUESTION
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.profiles import Profile
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Mode
from kimi_mcp.pipeline.pipeline import Call, Pipeline
from kimi_mcp.runs import Run, Runs
from kimi_mcp.runs.store.store import RunStore
from kimi_mcp.server.client_quirks import LOCAL


async def probe_modes(found: Diagnosis, settings: Settings, profile: Profile) -> None:
    """One tiny call in each mode that the catalogue says there is."""
    pipeline = Pipeline(settings)
    try:
        for mode in profile.modes:
            outcome, name = await _tiny_call(pipeline, mode)
            found.probes.append(_noted(mode, outcome, name))
            _judge(found, profile, mode, outcome, name)
    finally:
        await pipeline.aclose()


async def _tiny_call(pipeline: Pipeline, mode: Mode) -> tuple[Outcome, str | None]:
    """How it ended, and under which name its reasoning came."""
    name: str | None = None

    async def work(run: Run) -> Outcome:
        nonlocal name
        outcome = await pipeline.run(Call(mode=mode, prompt=QUESTION), run)
        name = run.request_state.accumulator.completion().reasoning_field  # a run that has ended lets go of it
        return outcome

    run = Run(caller=LOCAL, tool="probe", prompt=QUESTION)
    async with anyio.create_task_group() as tasks:
        Runs(tasks, RunStore(None)).start(run, work)
    return run.snapshot(), name


def _noted(mode: Mode, outcome: Outcome, name: str | None) -> dict[str, object]:
    usage = outcome.usage
    return {
        "mode": mode,
        "status": outcome.status,
        "model": outcome.model_answered,
        "reasoning_field": name,
        "usage": usage is not None,
        "total_tokens": usage.total_tokens if usage else None,
        "total_s": round(outcome.timing.total_s, 3),
        "error": outcome.error.code if outcome.error else None,
    }


def _judge(found: Diagnosis, profile: Profile, mode: Mode, outcome: Outcome, name: str | None) -> None:
    if outcome.error is not None:
        found.add("probe", "bad", f"In {mode} mode: {outcome.error.message}", outcome.error.fix)
        return
    found.add("probe", "ok", f"In {mode} mode {outcome.model_answered} answered in {outcome.timing.total_s:.1f} s.")
    for entry in outcome.policy:
        if entry.action == "warned":
            found.add("probe", "warn", entry.why)
    expected = profile.provider.reasoning_read[0]
    if mode == "thinking" and name is not None:
        state = "ok" if name == expected else "warn"
        more = "" if name == expected else f"; the catalogue expects {expected} (all known names are read)"
        found.add("probe", state, f"Its reasoning came as {name}{more}.")
    if mode == "instant" and outcome.reasoning:
        found.add("probe", "warn", "It thought although it was told not to: the switch for thinking has no effect.")
    if outcome.usage is None:
        found.add("probe", "warn", "It told no usage: what calls cost can't be counted.")
