"""``run_swarm``: a whole swarm, from what was asked for to its outcome. I/O through the path, the toolbox, the record.

With items there is one sub-agent an item and one synthesis; without, a main agent makes sub-agents and gives out tasks.
Both write the same record by the same rules, so that either can be taken up again where it was cut off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from kimi_mcp import policy
from kimi_mcp.core.errors import Internal, KimiError
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.types import Adjustment, Request, user
from kimi_mcp.pipeline.pipeline import Pipeline, Route
from kimi_mcp.runs import Run
from kimi_mcp.runs.steps import Steps
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.agent import AgentTask, work
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.concurrency import SwarmConcurrency
from kimi_mcp.swarm.coordinator import Coordinator
from kimi_mcp.swarm.limits import Ledger, SwarmLimits, exceeded
from kimi_mcp.swarm.recovery import known_before
from kimi_mcp.swarm.stats import Agent, SwarmStats, naming, told
from kimi_mcp.swarm.step_runner import StepRunner
from kimi_mcp.swarm.tool_executor import ToolExecutor
from kimi_mcp.swarm.tool_interface import NoTools, RecordedTools, Toolbox
from kimi_mcp.swarm.tools import OfficialTools, check_servers, open_toolbox

KEPT_TOKENS = 32_000
"""What the main agent's last request is taken to send: money for it is kept back from the sub-agents."""

log = logging.getLogger(__name__)

OpenToolbox = Callable[[], AbstractAsyncContextManager[Toolbox]]
"""Starts the tools of one swarm, and ends them with it."""


async def run_swarm(
    call: SwarmCall,
    run: Run,
    pipeline: Pipeline,
    *,
    steps: Steps | None = None,
    pace: SwarmConcurrency | None = None,
    toolbox: OpenToolbox | None = None,
) -> Outcome:
    """The outcome of a swarm, good or bad; nothing but a cancellation is raised.

    ``steps``: its record, where it is another than the journal's; one that holds finished steps makes it go on from
    there. ``pace`` and ``toolbox`` are for who wants others than the settings ask for.
    """
    run.task = call.as_json()  # before anything is written down of it: another server can go on with it from here on
    return await pipeline.concluded(run, _swarm(call, run, pipeline, steps, pace, toolbox))


def taken_up(task: Mapping[str, Any], pipeline: Pipeline) -> Callable[[Run], Awaitable[Outcome]]:
    """What goes on with a swarm whose server has died, by what it wrote down as its task.

    Raises ``InvalidArguments`` for a task that another version wrote, and what keeps this server from its provider or
    from its tools: it is left for one that can go on with it. Blocking: it reads the file of tools.
    """
    call = SwarmCall.of_json(task)
    if call.first_provider is not None:
        pipeline.check_reach(call.first_provider)
    if call.tools != ():
        check_servers(pipeline.settings.swarm_mcp, os.environ, call.known_servers)
    return lambda run: run_swarm(call, run, pipeline)


async def _swarm(
    call: SwarmCall,
    run: Run,
    pipeline: Pipeline,
    steps: Steps | None,
    pace: SwarmConcurrency | None,
    toolbox: OpenToolbox | None,
) -> Outcome:
    run.mode, run.turns, tally = "thinking", (user(_asked(call)),), SwarmStats()
    if call.first_provider is not None:  # it is gone on with: what it has used is known from the first
        tally.before, run.work = known_before(call, await run.journal.steps_of(run.id)), tally
    provider = call.provider or call.first_provider
    route = await pipeline.resolve_route(run, model=call.model, provider=provider, preferred=call.first_model)
    asked = {name: value for name in ("max_steps", "max_agent_steps") if (value := getattr(call, name)) is not None}
    first = Request(mode="thinking", turns=(user(call.prompt),), limits=asked, model_asked=route.model_asked)
    plan = route.decide(first)  # what can't be had is refused here, before anything is started or paid for
    tally.report(plan.adjustments)
    limits = _limits(call, plan.limits, pipeline.settings)
    run.work = tally
    begun = replace(call, first_provider=route.endpoint.provider.id, first_model=plan.profile.model.id)
    run.task = begun.as_json()
    await run.begin(plan)
    async with (toolbox or _toolbox_of(call, pipeline, route))() as there:
        tools = there if call.known_definitions is None else RecordedTools(there, call.known_definitions)
        if call.known_definitions is None:
            known = {"known_tools": there.fingerprints, "known_definitions": tuple(there.definitions)}
            run.task = replace(begun, **known, known_servers=there.servers).as_json()
        await run.record()  # before any of them is called
        tally.report(_on_tools(call, tools))
        desk = StepRunner(
            pipeline=pipeline,
            route=route.with_tools(tools.definitions),
            profile=plan.profile,
            run=run,
            steps=steps or run.journal.steps(run.id),
            pace=pace or SwarmConcurrency(pipeline.settings.max_concurrency),
            ledger=Ledger(limits, lived_s=run.lived()),
            tally=tally,
        )
        await (_items if call.items else _led)(call, desk, tools)
        tally.before = None
        tally.report(_on_tools(call, tools))  # what went wrong with them meanwhile
        tally.report(_overrun(desk.ledger))
        run.concluded = outcome = _outcome(call, run, desk)  # whoever stops it while its tools end loses nothing
    return outcome


def _asked(call: SwarmCall) -> str:
    """What was asked, as a conversation remembers it that branches off behind the swarm."""
    if not call.items:
        return call.prompt
    return prompts.said("synthesis.asked", prompt=call.prompt, items="\n".join(f"- {item}" for item in call.items))


def _toolbox_of(call: SwarmCall, pipeline: Pipeline, route: Route) -> OpenToolbox:
    """The operator's tools and the provider's own, as far as the call wants them."""
    if call.tools == ():
        return NoTools
    provider = route.endpoint.provider
    return partial(
        open_toolbox,
        pipeline.settings.swarm_mcp,
        patterns=call.tools or (),
        moonshot_schemas=provider.moonshot_schemas,
        official=OfficialTools(pipeline.upstream, route.endpoint) if provider.formulas else None,
        recorded=call.known_tools,
    )


def _limits(call: SwarmCall, decided: Mapping[str, int], settings: Settings) -> SwarmLimits:
    """The limits of the call, of the settings and of the paper: whichever is the smallest."""
    most = policy.load_rules()["swarm-steps"].options["ceilings"]
    usd, by = settings.budget_usd_per_swarm, "KIMI_BUDGET_USD_PER_SWARM"
    if call.max_cost_usd is not None and call.max_cost_usd < usd:
        usd, by = call.max_cost_usd, "max_cost_usd"
    limits = SwarmLimits(
        steps=decided.get("max_steps", most["max_steps"]),
        agent_steps=decided.get("max_agent_steps", most["max_agent_steps"]),
        usd=usd,
        usd_set_by=by,
    )
    return limits if call.max_agents is None else replace(limits, agents=call.max_agents)


def _on_tools(call: SwarmCall, tools: Toolbox) -> list[Adjustment]:
    asked = list(call.tools) if call.tools is not None else None
    return [policy.reported("swarm-tools", field="tools", asked=asked, fault=each) for each in tools.warnings]


# ── with a main agent ─────────────────────────────────────────────────────────────────────────────────────────────


async def _led(call: SwarmCall, desk: StepRunner, tools: Toolbox) -> None:
    limits = desk.ledger.limits

    async def start(agent: Agent, own: str, prompt: str) -> None:
        await _work(agent, own, prompt, desk, tools)

    names = _names(tools)
    task = AgentTask(
        system=prompts.main_system(steps=limits.steps, agents=limits.agents, tools=names),
        prompt=call.prompt,
        steps=limits.steps,
        leads=True,
    )
    await work(desk.tally.main, task, Coordinator(desk, start), desk)


async def _work(agent: Agent, own: str | None, prompt: str, desk: StepRunner, tools: Toolbox) -> None:
    """A sub-agent's whole life; whatever goes wrong with it, the others go on."""
    task = AgentTask(
        system=prompts.agent_system(own, _names(tools)),
        prompt=prompt,
        steps=desk.ledger.limits.agent_steps,
        kept_usd=desk.most_usd(KEPT_TOKENS, desk.step_tokens),
    )
    try:
        await work(agent, task, ToolExecutor(tools, desk), desk)
    except KimiError as error:
        agent.end("failed", error=error, answer=agent.arrived)
    except Exception:
        log.exception("a sub-agent failed by a fault of our own")
        fault = Internal("The server made a mistake while this agent worked.", fix="Report it with the server's log.")
        agent.end("failed", error=fault, answer=agent.arrived)


def _names(tools: Toolbox) -> Sequence[str]:
    return [tool["name"] for tool in tools.definitions]


# ── with items ────────────────────────────────────────────────────────────────────────────────────────────────────


class _NoHands:
    """Of an agent that only writes."""

    definitions: Sequence[Mapping[str, Any]] = ()

    async def use(self, agent: Agent, key: str, calls: Sequence[Any]) -> Sequence[str]:
        raise LookupError(agent.id, key, calls)


async def _items(call: SwarmCall, desk: StepRunner, tools: Toolbox) -> None:
    tally, main = desk.tally, desk.tally.main
    tally.stage()
    agents = [tally.agent(name) for name in call.names]
    async with anyio.create_task_group() as tasks:
        for agent, task in zip(agents, call.tasks, strict=True):
            tasks.start_soon(_work, agent, None, task, desk, tools)
    if not any(agent.answer.strip() for agent in agents):
        main.end("failed", error=next(agent.error for agent in agents if agent.error))
        return
    share = desk.share(len(agents))
    results = "\n\n".join(
        f"## Item {number} of {len(agents)}: {agent.name}\n\n{told(agent, share)}"
        for number, agent in enumerate(agents, 1)
    )
    task = AgentTask(
        system=prompts.said("synthesis.system"),
        prompt=prompts.said("synthesis.task", prompt=call.prompt, results=results),
        steps=1,
        leads=True,
    )
    await work(main, task, _NoHands(), desk)


def _overrun(ledger: Ledger) -> list[Adjustment]:
    """That it cost more than it may: what a request may cost is known before it is sent only about."""
    limits = ledger.limits
    if limits.usd is None or ledger.usd <= limits.usd:
        return []
    return [policy.reported("budget-overrun", field=limits.usd_set_by, asked=limits.usd, sent=round(ledger.usd, 6))]


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _outcome(call: SwarmCall, run: Run, desk: StepRunner) -> Outcome:
    """How the swarm is to be called, what is missing of it, and how to go on."""
    tally, main = desk.tally, desk.tally.main
    limit = tally.limit or main.limit
    missing = [agent for agent in tally.agents if agent.status != "completed"]
    error = main.error
    if error is None and limit is not None:
        error = exceeded(limit, desk.ledger.limits)
    elif error is None and call.items and missing:
        first = next((agent.error for agent in missing if agent.error), None)
        error = first or exceeded("agent_steps", desk.ledger.limits)
    if error is None:
        return run.snapshot("completed")
    error = naming(error, missing)
    if main.answer.strip():
        return run.snapshot("partial", error)
    if not (results := tally.results()):
        return run.snapshot("failed", error)
    return replace(run.snapshot("partial", error), answer=results, finish_reason=None)
