"""``run_swarm``: a whole swarm, from its call to its outcome. I/O through the pipeline, the tools, the record."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from kimi_mcp import policy
from kimi_mcp.core.errors import KimiError, NotConfigured, internal_error
from kimi_mcp.core.json_values import UNREADABLE, to_json
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.profiles import Profile, dollars
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.tokens import estimated_tokens, text_tokens
from kimi_mcp.core.types import Adjustment, CacheTtl, Request, system, user
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.pipeline.route import Route
from kimi_mcp.runs import Run
from kimi_mcp.runs.store.records import JSON, RunRecord, StepRecord
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.agent import AgentTask, ToolExecutor, conclude, run_agent
from kimi_mcp.swarm.cache_time import choose_ttl
from kimi_mcp.swarm.call import ITEM_PLACEHOLDER, SwarmCall, check_items
from kimi_mcp.swarm.coordinator import Coordinator
from kimi_mcp.swarm.items import check_lengths, only_look_like_files, set_text, with_files
from kimi_mcp.swarm.limits import SWARM_WIDE, BudgetLedger, Limit, SwarmConcurrency, SwarmLimits
from kimi_mcp.swarm.stats import Agent, StepResult, SwarmStats
from kimi_mcp.swarm.step_runner import StepRunner
from kimi_mcp.swarm.tools import BuiltinTools, SwarmTools, check_servers, open_tools
from kimi_mcp.swarm.tools.files import FileTools
from kimi_mcp.swarm.tools.source import ToolSource
from kimi_mcp.swarm.tools.web import WebTools

if TYPE_CHECKING:
    from kimi_mcp.media.documents import Document
    from kimi_mcp.runs.store.store import Steps

RESERVED_TOKENS = 32_000
"""The assumed prompt of the main agent's last request, whose cost the sub-agents must leave."""

ROOM_TOKENS = 16_000
"""What the first request of an agent holds beside the file that is its item: prompts, and definitions of tools."""

log = logging.getLogger(__name__)

OpenTools = Callable[[], AbstractAsyncContextManager[SwarmTools]]
"""Starts the tools of one swarm, and ends them with it."""


async def run_swarm(
    call: SwarmCall,
    run: Run,
    pipeline: Pipeline,
    *,
    limits: SwarmLimits | None = None,
    steps: Steps | None = None,
    concurrency: SwarmConcurrency | None = None,
    tools: OpenTools | None = None,
) -> Outcome:
    """The outcome of a swarm, good or bad; nothing but a cancellation is raised.

    ``limits``: those that neither the call nor the settings set. ``steps``: its record, from whose finished steps it
    continues; None: that of the run. ``concurrency``, ``tools``: None: as the settings and the call ask for.
    """
    run.task = to_json(call)  # before anything of it is recorded: from here on another server can resume it
    work = _swarm(call, run, pipeline, limits or SwarmLimits(), steps, concurrency, tools)
    return await pipeline.outcome(run, work)


def prepare_resume(
    task: Mapping[str, Any], pipeline: Pipeline, limits: SwarmLimits | None = None
) -> Callable[[Run], Awaitable[Outcome]]:
    """The function that resumes a dead server's swarm from its task. Raises what prevents that. Blocking."""
    call = SwarmCall.from_json(task)
    if call.first_provider is not None:
        pipeline.router.endpoint(call.first_provider)
    if call.tools != ():
        check_servers(pipeline.settings.swarm_mcp, os.environ, call.known_servers)
    return lambda run: run_swarm(call, run, pipeline, limits=limits)


def first_request(call: SwarmCall, model_asked: str) -> Request:
    """What the policy judges before a swarm begins: its prompt, its effort, and the limits of steps that it names."""
    given = {name: value for name in ("max_steps", "max_agent_steps") if (value := getattr(call, name)) is not None}
    turns = (user(call.prompt),)
    return Request(mode="thinking", turns=turns, effort=call.effort, limits=given, model_asked=model_asked)


async def _swarm(
    call: SwarmCall,
    run: Run,
    pipeline: Pipeline,
    limits: SwarmLimits,
    steps: Steps | None,
    concurrency: SwarmConcurrency | None,
    tools_of: OpenTools | None,
) -> Outcome:
    call = await prepare(call, pipeline)
    question, stats, before = call.prompt, SwarmStats(), None
    if call.items:  # a conversation may continue from the swarm
        items = "\n".join(f"- {item}" for item in call.items)
        question = prompts.render("synthesis.question", prompt=call.prompt, items=items)
    run.mode, run.turns = "thinking", (user(question),)
    if call.first_provider is not None:  # it is resumed: what it has used is known from the start
        run.progress = before = recovered_stats(call, await run.store.steps(run.id).recorded())
    provider = call.provider or call.first_provider
    route = await pipeline.router.resolve(run, model=call.model, provider=provider, preferred=call.first_model)
    plan = route.decide(
        first_request(call, route.model_asked)
    )  # refuses what is not possible, before anything is started or paid for
    check_lengths(call, plan.profile.model.context_tokens - limits.step_tokens - ROOM_TOKENS)
    stats.report(plan.adjustments)
    if only_look_like_files(call):
        fault = "No item is a text file within the roots, though all look like files: each agent gets a name alone."
        stats.report([policy.reported("swarm-tools", field="items", fault=fault)])
    run.progress = before or stats
    begun = replace(call, first_provider=route.endpoint.provider.id, first_model=plan.profile.model.id)
    run.task = to_json(begun)
    await run.begin(plan)
    async with tools_of() if tools_of else _open_tools(call, pipeline, route) as tools:
        if call.known_definitions is None:
            known = {"known_tools": tools.fingerprints, "known_definitions": tools.definitions}
            run.task = to_json(replace(begun, **known, known_servers=tools.servers))
        else:  # it offers the tools that its agents know, whatever there is by now: a replay decides the same
            tools.definitions = call.known_definitions
        await run.record()  # before any of them is called
        stats.report(_tool_warnings(call, tools))
        limits = effective_limits(limits, call, plan.limits, pipeline.settings)
        concurrency = concurrency or SwarmConcurrency(pipeline.settings.max_concurrency, limits)
        runner = StepRunner(
            pipeline=pipeline,
            route=route.with_tools(tools.definitions),
            profile=plan.profile,
            run=run,
            steps=steps or run.store.steps(run.id),
            concurrency=concurrency,
            ledger=BudgetLedger(limits, elapsed_s=run.active_s(), clock=concurrency.clock),
            stats=stats,
            effort=call.effort,
            cache_ttl=pipeline.settings.cache_ttl or _cache_ttl(call, plan.profile, tools, concurrency),
            before=before,
        )
        try:
            await (_run_items if call.items else _run_main)(call, runner, tools)
        finally:
            runner.close()
        run.progress = stats
        stats.report(_tool_warnings(call, tools))  # what went wrong with them meanwhile
        usd = runner.ledger.usd
        if limits.usd is not None and usd > limits.usd:  # before a request is sent its cost is known only roughly
            amounts = {"asked": limits.usd, "sent": round(usd, 6)}
            texts = {"cost": dollars(usd, estimated=True), "limit": dollars(limits.usd)}
            stats.report([policy.reported("budget-overrun", field=limits.usd_set_by, **amounts, **texts)])
        run.concluded = outcome = _outcome(call, run, stats, limits)  # a stop while the tools end loses nothing
    return outcome


async def prepare(call: SwarmCall, pipeline: Pipeline) -> SwarmCall:
    """The call with its files as items, and the roots that it keeps wherever it is resumed. Refuses bad items."""
    if call.first_provider is not None:
        return call  # it was prepared when it began
    roots = await anyio.to_thread.run_sync(pipeline.find_roots, call.offered_roots, abandon_on_cancel=True)
    pdfs: dict[str, Document] = {}
    call = await anyio.to_thread.run_sync(with_files, call, roots, pdfs, abandon_on_cancel=True)
    for name, pdf in pdfs.items():
        call = set_text(call, name, await pipeline.pdfs.text(f"`{pdf.name}`", pdf, pdf.pages))
    if pipeline.settings.roots is None:
        call = replace(call, offered_roots=tuple(Path(root.path).as_uri() for root in roots.folders))
    return check_items(call)


def _open_tools(call: SwarmCall, pipeline: Pipeline, route: Route) -> AbstractAsyncContextManager[SwarmTools]:
    """The operator's tools, the provider's own, files and the web, as far as the call wants them."""
    if call.tools == ():
        return nullcontext(SwarmTools(warnings=["Sub-agents have no tools: the call asked for none."]))
    provider = route.endpoint.provider
    builtin: list[ToolSource] = [BuiltinTools(pipeline.upstream, route.endpoint)] if provider.formulas else []
    builtin.append(FileTools(partial(pipeline.find_roots, call.offered_roots)))
    if not any("/fetch:" in uri for uri in (*provider.formulas, *provider.free_formulas)):
        builtin.append(WebTools())
    return open_tools(
        pipeline.settings.swarm_mcp,
        patterns=call.tools or (),
        moonshot_schemas=provider.moonshot_schemas,
        builtin=builtin,
        recorded=call.known_tools,
    )


def effective_limits(base: SwarmLimits, call: SwarmCall, decided: Mapping[str, int], settings: Settings) -> SwarmLimits:
    """The limits of the call, of the settings and of the paper: whichever is the smallest."""
    ceilings = policy.load_rules()["swarm-steps"].options["ceilings"]
    usd, usd_set_by = settings.budget_usd_per_swarm, "KIMI_BUDGET_USD_PER_SWARM"
    if call.max_cost_usd is not None and call.max_cost_usd < usd:
        usd, usd_set_by = call.max_cost_usd, "max_cost_usd"
    return replace(
        base,
        steps=decided.get("max_steps", ceilings["max_steps"]),
        agent_steps=decided.get("max_agent_steps", ceilings["max_agent_steps"]),
        agents=base.agents if call.max_agents is None else call.max_agents,
        usd=usd,
        usd_set_by=usd_set_by,
    )


def _cache_ttl(call: SwarmCall, profile: Profile, tools: SwarmTools, concurrency: SwarmConcurrency) -> CacheTtl | None:
    """How long the beginning that the agents of a call share is to stay in the provider's cache."""
    beginning, _, _ = call.prompt.partition(ITEM_PLACEHOLDER)
    common = (system(prompts.system_prompt("agent", tools.names)), user(beginning))
    own = sum(text_tokens(task.removeprefix(beginning)) for task in call.tasks)
    return choose_ttl(
        profile,
        common=estimated_tokens(common, tools.definitions),
        own=own,
        agents=len(call.items),
        at_once=int(concurrency.capacity),
        may_call=bool(tools.definitions),
    )


def _tool_warnings(call: SwarmCall, tools: SwarmTools) -> list[Adjustment]:
    asked = list(call.tools) if call.tools is not None else None
    return [policy.reported("swarm-tools", field="tools", asked=asked, fault=each) for each in tools.warnings]


async def _run_main(call: SwarmCall, runner: StepRunner, tools: SwarmTools) -> None:
    """A main agent, which creates sub-agents."""
    limits = runner.ledger.limits
    system = prompts.system_prompt("main", tools.names, steps=limits.steps, agents=limits.agents)
    task = AgentTask(system=system, prompt=call.prompt, steps=limits.steps, is_main=True)
    coordinator = Coordinator(runner, partial(_run_subagent, runner=runner, tools=tools))
    await run_agent(runner.stats.main, task, coordinator, runner)


async def _run_items(call: SwarmCall, runner: StepRunner, tools: SwarmTools) -> None:
    """One sub-agent an item, and the synthesis of their results."""
    stats, main = runner.stats, runner.stats.main
    stats.begin_stage()
    agents = [stats.add_agent(name) for name in call.names]
    async with anyio.create_task_group() as tasks:
        for agent, task in zip(agents, call.tasks, strict=True):
            tasks.start_soon(partial(_run_subagent, agent, None, task, runner=runner, tools=tools))
    if not any(agent.answer.strip() for agent in agents):
        main.end("failed", error=next(agent.error for agent in agents if agent.error))
        return
    share = runner.share(len(agents))
    results = "\n\n".join(
        f"## Item {number} of {len(agents)}: {agent.name}\n\n{agent.report(share)}"
        for number, agent in enumerate(agents, 1)
    )
    prompt = prompts.render("synthesis.task", prompt=call.prompt, results=results)
    task = AgentTask(system=prompts.render("synthesis.system"), prompt=prompt, steps=1, is_main=True)
    await run_agent(main, task, ToolExecutor(SwarmTools(), runner), runner)


async def _run_subagent(
    agent: Agent, own_system: str | None, prompt: str, *, runner: StepRunner, tools: SwarmTools
) -> None:
    """A sub-agent from its start to its end; whatever goes wrong with it, the others go on."""
    common = prompts.system_prompt("agent", tools.names)
    task = AgentTask(
        system=f"{own_system}\n\n{common}" if own_system else common,
        prompt=prompt,
        steps=runner.ledger.limits.agent_steps,
        reserved_usd=runner.most_usd(RESERVED_TOKENS, runner.step_tokens),
    )
    try:
        await run_agent(agent, task, ToolExecutor(tools, runner), runner)
    except KimiError as error:
        agent.end("failed", error=error, answer=agent.arrived)
    except Exception as fault:
        log.exception("a sub-agent failed because of a bug in kimi-mcp")
        agent.end("failed", error=internal_error(fault), answer=agent.arrived)


def _outcome(call: SwarmCall, run: Run, stats: SwarmStats, limits: SwarmLimits) -> Outcome:
    """The swarm's status, what is missing of it, and how to go on."""
    main, error = stats.main, stats.main.error
    reached: list[Limit | None] = [agent.limit for agent in stats.everyone if agent.limit in SWARM_WIDE]
    if error is None and (limit := reached[0] if reached else main.limit) is not None:
        error = limits.error(limit)
    elif error is None and call.items and stats.missing:
        error = next((agent.error for agent in stats.missing if agent.error), limits.error("agent_steps"))
    if error is None:
        return run.snapshot("completed")
    error = stats.with_missing(error)
    if main.answer.strip():
        return run.snapshot("partial", error)
    if not (results := stats.results()):
        return run.snapshot("failed", error)
    return replace(run.snapshot("partial", error), answer=results, finish_reason=None)


# ── recovery, from the steps of a swarm whose server died ─────────────────────────────────────────────────────────


def recovered_outcome(record: RunRecord, steps: Sequence[StepRecord]) -> Outcome:
    """The outcome of a swarm that is ended, with the results and the usage of its finished steps.

    The record's own outcome has the reason. Nothing is known of requests that were running. Where another version's
    steps can't be read, it is the record's own.
    """
    try:
        stats = _stats_of(SwarmCall.from_json(record.request["task"]), steps, record.outcome.provider)
    except (NotConfigured, *UNREADABLE):
        return record.outcome
    policy, stats.policy = stats.policy, {}
    stats.report((*record.outcome.policy, *policy.values()))
    ended = [step.ended_at for step in steps if step.ended_at is not None]
    took = max([record.outcome.timing.total_s, *(at - record.started_at for at in ended)])
    timing = replace(record.outcome.timing, total_s=took, attempts=stats.attempts)
    return stats.stopped(replace(record.outcome, timing=timing))


def recovered_stats(call: SwarmCall, steps: Sequence[StepRecord]) -> SwarmStats | None:
    """How far a resumed swarm was; None: it had sent nothing, or another version's steps can't be read."""
    try:
        stats = _stats_of(call, steps, call.first_provider)
    except UNREADABLE:
        return None
    return stats if stats.attempts else None


def _stats_of(call: SwarmCall, steps: Sequence[StepRecord], provider: str | None) -> SwarmStats:
    """The stats of finished steps."""
    stats = SwarmStats()
    agents = {"main": stats.main}
    if call.items:
        stats.begin_stage()
        agents |= {agent.id: agent for agent in map(stats.add_agent, call.names)}
    tool_calls: dict[str, list[JSON]] = {}
    for step in sorted(steps, key=_order):
        about, record = step.description, step.result
        if about["agent"] not in agents:
            agents[about["agent"]] = stats.add_agent(about["name"])
        agent, is_request = agents[about["agent"]], about["kind"] == "request"
        if is_request or record is not None:
            agent.status = "running"  # whatever came before was not its end
        if record is None:
            continue
        if not is_request:
            tool_calls.setdefault(step.key.rpartition("/")[0], []).append(record)
            continue
        result = StepResult.from_json(record)
        stats.add(agent, result)
        if result.error is not None:
            agent.end("failed", error=result.error, answer=result.completion.answer)
        elif result.limit is not None or not (result.completion.tool_calls or result.completion.malformed_calls):
            conclude(agent, result, provider or "the provider")
    for turn, records in tool_calls.items():
        agents[turn.partition("/")[0]].add_tool_calls(records)
    return stats


def _order(step: StepRecord) -> tuple[float, int, str]:
    """Steps in the order in which they were begun; at the same moment in the order of their agents."""
    number = str(step.description.get("agent", "")).rpartition("-")[2]
    return step.began_at, int(number) if number.isdecimal() else 0, step.key
