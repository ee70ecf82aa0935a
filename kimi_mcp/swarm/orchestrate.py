"""``run_swarm``: a whole swarm, from what was asked for to its outcome. I/O through the path, the toolbox, the record.

With items there is one sub-agent an item and one synthesis; without, a main agent makes sub-agents and gives out tasks.
Both write the same record by the same rules, so that either can be taken up again where it was cut off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
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
from kimi_mcp.swarm.agent import AgentTask, run_agent
from kimi_mcp.swarm.call import SwarmCall
from kimi_mcp.swarm.concurrency import SwarmConcurrency
from kimi_mcp.swarm.coordinator import Coordinator
from kimi_mcp.swarm.limits import BudgetLedger, SwarmLimits, limit_error
from kimi_mcp.swarm.recovery import recovered_stats
from kimi_mcp.swarm.stats import Agent, SwarmStats, agent_report, with_missing_agents
from kimi_mcp.swarm.step_runner import StepRunner
from kimi_mcp.swarm.tool_executor import ToolExecutor
from kimi_mcp.swarm.tools import BuiltinTools, SwarmTools, check_servers, open_tools

KEPT_TOKENS = 32_000
"""What the main agent's last request is taken to send: money for it is kept back from the sub-agents."""

log = logging.getLogger(__name__)

OpenTools = Callable[[], AbstractAsyncContextManager[SwarmTools]]
"""Starts the tools of one swarm, and ends them with it."""


async def run_swarm(
    call: SwarmCall,
    run: Run,
    pipeline: Pipeline,
    *,
    steps: Steps | None = None,
    concurrency: SwarmConcurrency | None = None,
    toolbox: OpenTools | None = None,
) -> Outcome:
    """The outcome of a swarm, good or bad; nothing but a cancellation is raised.

    ``steps``: its record, where it is another than the journal's; one that holds finished steps makes it go on from
    there. ``concurrency`` and ``toolbox`` are for who wants others than the settings ask for.
    """
    run.task = call.as_json()  # before anything is written down of it: another server can go on with it from here on
    return await pipeline.concluded(run, _swarm(call, run, pipeline, steps, concurrency, toolbox))


def prepare_resume(task: Mapping[str, Any], pipeline: Pipeline) -> Callable[[Run], Awaitable[Outcome]]:
    """What goes on with a swarm whose server has died, by what it wrote down as its task.

    Raises ``InvalidArguments`` for a task that another version wrote, and what keeps this server from its provider or
    from its tools: it is left for one that can go on with it. Blocking: it reads the file of tools.
    """
    call = SwarmCall.from_json(task)
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
    concurrency: SwarmConcurrency | None,
    toolbox: OpenTools | None,
) -> Outcome:
    run.mode, run.turns, stats = "thinking", (user(_asked(call)),), SwarmStats()
    if call.first_provider is not None:  # it is gone on with: what it has used is known from the first
        stats.before, run.progress = recovered_stats(call, await run.store.steps_of(run.id)), stats
    provider = call.provider or call.first_provider
    route = await pipeline.resolve_route(run, model=call.model, provider=provider, preferred=call.first_model)
    asked = {name: value for name in ("max_steps", "max_agent_steps") if (value := getattr(call, name)) is not None}
    first = Request(mode="thinking", turns=(user(call.prompt),), limits=asked, model_asked=route.model_asked)
    plan = route.decide(first)  # what can't be had is refused here, before anything is started or paid for
    stats.report(plan.adjustments)
    limits = _limits(call, plan.limits, pipeline.settings)
    run.progress = stats
    begun = replace(call, first_provider=route.endpoint.provider.id, first_model=plan.profile.model.id)
    run.task = begun.as_json()
    await run.begin(plan)
    async with (toolbox or _tools_of(call, pipeline, route))() as tools:
        if call.known_definitions is None:
            known = {"known_tools": tools.fingerprints, "known_definitions": tools.definitions}
            run.task = replace(begun, **known, known_servers=tools.servers).as_json()
        else:  # it offers what its agents know of, whatever is there by now: a replay takes the same way
            tools.definitions = call.known_definitions
        await run.record()  # before any of them is called
        stats.report(_on_tools(call, tools))
        runner = StepRunner(
            pipeline=pipeline,
            route=route.with_tools(tools.definitions),
            profile=plan.profile,
            run=run,
            steps=steps or run.store.steps(run.id),
            concurrency=concurrency or SwarmConcurrency(pipeline.settings.max_concurrency),
            ledger=BudgetLedger(limits, lived_s=run.active_s()),
            stats=stats,
        )
        await (_items if call.items else _led)(call, runner, tools)
        stats.before = None
        stats.report(_on_tools(call, tools))  # what went wrong with them meanwhile
        stats.report(_overrun(runner.ledger))
        run.concluded = outcome = _outcome(call, run, runner)  # whoever stops it while its tools end loses nothing
    return outcome


def _asked(call: SwarmCall) -> str:
    """What was asked, as a conversation remembers it that branches off behind the swarm."""
    if not call.items:
        return call.prompt
    return prompts.render("synthesis.asked", prompt=call.prompt, items="\n".join(f"- {item}" for item in call.items))


def no_tools() -> AbstractAsyncContextManager[SwarmTools]:
    """The tools of a swarm whose call asked for none."""
    return nullcontext(SwarmTools(warnings=["Sub-agents have no tools: the call asked for none."]))


def _tools_of(call: SwarmCall, pipeline: Pipeline, route: Route) -> OpenTools:
    """The operator's tools and the provider's own, as far as the call wants them."""
    if call.tools == ():
        return no_tools
    provider = route.endpoint.provider
    return partial(
        open_tools,
        pipeline.settings.swarm_mcp,
        patterns=call.tools or (),
        moonshot_schemas=provider.moonshot_schemas,
        builtin=BuiltinTools(pipeline.upstream, route.endpoint) if provider.formulas else None,
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


def _on_tools(call: SwarmCall, tools: SwarmTools) -> list[Adjustment]:
    asked = list(call.tools) if call.tools is not None else None
    return [policy.reported("swarm-tools", field="tools", asked=asked, fault=each) for each in tools.warnings]


# ── with a main agent ─────────────────────────────────────────────────────────────────────────────────────────────


async def _led(call: SwarmCall, runner: StepRunner, tools: SwarmTools) -> None:
    limits = runner.ledger.limits

    async def start(agent: Agent, own: str, prompt: str) -> None:
        await _work(agent, own, prompt, runner, tools)

    names = _names(tools)
    task = AgentTask(
        system=prompts.main_system(steps=limits.steps, agents=limits.agents, tools=names),
        prompt=call.prompt,
        steps=limits.steps,
        leads=True,
    )
    await run_agent(runner.stats.main, task, Coordinator(runner, start), runner)


async def _work(agent: Agent, own: str | None, prompt: str, runner: StepRunner, tools: SwarmTools) -> None:
    """A sub-agent's whole life; whatever goes wrong with it, the others go on."""
    task = AgentTask(
        system=prompts.agent_system(own, _names(tools)),
        prompt=prompt,
        steps=runner.ledger.limits.agent_steps,
        kept_usd=runner.most_usd(KEPT_TOKENS, runner.step_tokens),
    )
    try:
        await run_agent(agent, task, ToolExecutor(tools, runner), runner)
    except KimiError as error:
        agent.end("failed", error=error, answer=agent.arrived)
    except Exception:
        log.exception("a sub-agent failed by a fault of our own")
        fault = Internal("The server made a mistake while this agent worked.", fix="Report it with the server's log.")
        agent.end("failed", error=fault, answer=agent.arrived)


def _names(tools: SwarmTools) -> Sequence[str]:
    return [tool["name"] for tool in tools.definitions]


# ── with items ────────────────────────────────────────────────────────────────────────────────────────────────────


class _NoHands:
    """Of an agent that only writes."""

    definitions: Sequence[Mapping[str, Any]] = ()

    async def use(self, agent: Agent, key: str, calls: Sequence[Any]) -> Sequence[str]:
        raise LookupError(agent.id, key, calls)


async def _items(call: SwarmCall, runner: StepRunner, tools: SwarmTools) -> None:
    stats, main = runner.stats, runner.stats.main
    stats.begin_stage()
    agents = [stats.add_agent(name) for name in call.names]
    async with anyio.create_task_group() as tasks:
        for agent, task in zip(agents, call.tasks, strict=True):
            tasks.start_soon(_work, agent, None, task, runner, tools)
    if not any(agent.answer.strip() for agent in agents):
        main.end("failed", error=next(agent.error for agent in agents if agent.error))
        return
    share = runner.share(len(agents))
    results = "\n\n".join(
        f"## Item {number} of {len(agents)}: {agent.name}\n\n{agent_report(agent, share)}"
        for number, agent in enumerate(agents, 1)
    )
    task = AgentTask(
        system=prompts.render("synthesis.system"),
        prompt=prompts.render("synthesis.task", prompt=call.prompt, results=results),
        steps=1,
        leads=True,
    )
    await run_agent(main, task, _NoHands(), runner)


def _overrun(ledger: BudgetLedger) -> list[Adjustment]:
    """That it cost more than it may: what a request may cost is known before it is sent only about."""
    limits = ledger.limits
    if limits.usd is None or ledger.usd <= limits.usd:
        return []
    return [policy.reported("budget-overrun", field=limits.usd_set_by, asked=limits.usd, sent=round(ledger.usd, 6))]


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _outcome(call: SwarmCall, run: Run, runner: StepRunner) -> Outcome:
    """How the swarm is to be called, what is missing of it, and how to go on."""
    stats, main = runner.stats, runner.stats.main
    limit = stats.limit or main.limit
    missing = [agent for agent in stats.agents if agent.status != "completed"]
    error = main.error
    if error is None and limit is not None:
        error = limit_error(limit, runner.ledger.limits)
    elif error is None and call.items and missing:
        first = next((agent.error for agent in missing if agent.error), None)
        error = first or limit_error("agent_steps", runner.ledger.limits)
    if error is None:
        return run.snapshot("completed")
    error = with_missing_agents(error, missing)
    if main.answer.strip():
        return run.snapshot("partial", error)
    if not (results := stats.results()):
        return run.snapshot("failed", error)
    return replace(run.snapshot("partial", error), answer=results, finish_reason=None)
