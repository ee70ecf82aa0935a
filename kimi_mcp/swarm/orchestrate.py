"""``run_swarm``: a whole swarm, from its call to its outcome. I/O through the pipeline, the tools, the record."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from kimi_mcp import policy
from kimi_mcp.core.background import carried_out
from kimi_mcp.core.errors import BudgetExceeded, NotConfigured
from kimi_mcp.core.json_values import to_json
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.plan import Plan
from kimi_mcp.core.profiles import Profile, dollars
from kimi_mcp.core.settings import Settings
from kimi_mcp.core.tokens import estimated_tokens, text_tokens
from kimi_mcp.core.types import Adjustment, CacheTtl, Request, system, user
from kimi_mcp.pipeline.pipeline import Pipeline
from kimi_mcp.pipeline.route import Route
from kimi_mcp.runs import Run
from kimi_mcp.runs.jobs import Fenced
from kimi_mcp.runs.registry import RunQueue
from kimi_mcp.runs.store.retries import WITHIN_S, with_retries
from kimi_mcp.swarm import prompts
from kimi_mcp.swarm.agent import AgentTask, ToolExecutor, run_agent
from kimi_mcp.swarm.agents import Agents, LocalAgents
from kimi_mcp.swarm.budget_raise import BudgetRaise, budget_raise
from kimi_mcp.swarm.cache_time import choose_ttl
from kimi_mcp.swarm.call import ITEM_PLACEHOLDER, SwarmCall, check_items
from kimi_mcp.swarm.coordinator import Coordinator
from kimi_mcp.swarm.items import check_lengths, only_look_like_files, set_text, with_files
from kimi_mcp.swarm.ledger import BudgetLedger
from kimi_mcp.swarm.limits import SWARM_WIDE, Limit, SwarmConcurrency, SwarmLimits
from kimi_mcp.swarm.recovery import recovered_stats
from kimi_mcp.swarm.stats import SwarmStats
from kimi_mcp.swarm.step_runner import StepRunner
from kimi_mcp.swarm.tools import BuiltinTools, SwarmTools, check_servers, open_tools
from kimi_mcp.swarm.tools.files import FileTools
from kimi_mcp.swarm.tools.source import ToolSource
from kimi_mcp.swarm.tools.web import WebTools

if TYPE_CHECKING:
    from kimi_mcp.media.documents import Document
    from kimi_mcp.media.roots import Roots
    from kimi_mcp.runs.store.steps import Steps
    from kimi_mcp.swarm.replicas import Replicas

OVERHEAD_TOKENS = 16_000
"""What the first request of an agent holds beside the file that is its item: prompts, and definitions of tools."""

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
    replicas: Replicas | None = None,
) -> Outcome:
    """The outcome of a swarm, good or bad; nothing but a cancellation is raised.

    ``limits``: those that neither the call nor the settings set. ``steps``: its record, from whose finished steps it
    continues; None: that of the run. ``concurrency``, ``tools``: None: as the settings and the call ask for.
    ``replicas``: who runs its agents; None: this process alone.
    """
    run.task = to_json(call)  # before anything of it is recorded: from here on another server can resume it
    work = _swarm(call, run, pipeline, limits or SwarmLimits(), steps, concurrency, tools, replicas)
    return await pipeline.outcome(run, work if replicas is None else _left_where_fenced(run, work))


async def submit_swarm(
    call: SwarmCall, run: Run, pipeline: Pipeline, *, queue: RunQueue, limits: SwarmLimits | None = None
) -> Outcome:
    """Record a swarm, and let whichever replica is free run it; an outcome only where it is refused."""
    run.task = to_json(call)
    return await pipeline.outcome(run, _submit(call, run, pipeline, queue, limits or SwarmLimits()))


async def _submit(call: SwarmCall, run: Run, pipeline: Pipeline, queue: RunQueue, limits: SwarmLimits) -> Outcome:
    await begin(call, run, pipeline, limits)
    await carried_out(queue.enqueue(run.id))
    return await run.leave_to_others()


async def _left_where_fenced(run: Run, work: Awaitable[Outcome]) -> Outcome:
    try:
        return await work
    except Fenced:  # another replica runs it by now
        return await run.leave_to_others()


def prepare_resume(
    task: Mapping[str, Any],
    pipeline: Pipeline,
    limits: SwarmLimits | None = None,
    replicas: Replicas | None = None,
) -> Callable[[Run], Awaitable[Outcome]]:
    """The function that resumes a dead server's swarm from its task. Raises what prevents that. Blocking."""
    call = SwarmCall.from_json(task)
    if call.first_provider is not None:
        pipeline.router.endpoint(call.first_provider)
    if call.tools != ():
        check_servers(pipeline.settings.swarm_mcp, os.environ, call.known_servers)
    return lambda run: run_swarm(call, run, pipeline, limits=limits, replicas=replicas)


def first_request(call: SwarmCall, model_asked: str) -> Request:
    """What the policy judges before a swarm begins: its prompt, its effort, and the limits of steps that it names."""
    given = {name: value for name in ("max_steps", "max_agent_steps") if (value := getattr(call, name)) is not None}
    turns = (user(call.prompt),)
    return Request(mode="thinking", turns=turns, effort=call.effort, limits=given, model_asked=model_asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A swarm that is recorded, and whose tools are not opened yet."""

    call: SwarmCall
    """With what a resumed one must know."""
    route: Route
    plan: Plan
    """Of what it begins with."""
    stats: SwarmStats
    before: SwarmStats | None
    """How far it was where it is resumed."""


async def begin(call: SwarmCall, run: Run, pipeline: Pipeline, limits: SwarmLimits) -> Begun:
    """Record a swarm, once nothing refuses it. Raises what does."""
    call = await prepare(call, pipeline, run.caller)
    question, stats, before = call.prompt, SwarmStats(), None
    if call.items:  # a conversation may continue from the swarm
        items = "\n".join(f"- {item}" for item in call.items)
        question = prompts.render("synthesis.question", prompt=call.prompt, items=items)
    run.mode, run.turns = "thinking", (user(question),)
    if call.first_provider is not None:  # it is resumed: what it has used is known from the start
        run.progress = before = recovered_stats(call, await run.store.steps(run.id).recorded())
    route, plan = await resolve(call, run, pipeline)  # before anything is started or paid for
    check_lengths(call, plan.profile.model.context_tokens - limits.step_tokens - OVERHEAD_TOKENS)
    stats.report(plan.adjustments)
    if only_look_like_files(call):
        fault = "No item is a text file within the roots, though all look like files: each agent gets a name alone."
        stats.report([policy.reported("swarm-tools", field="items", fault=fault)])
    run.progress = before or stats
    call = replace(call, first_provider=route.endpoint.provider.id, first_model=plan.profile.model.id)
    run.task = to_json(call)
    await _recorded(run, partial(run.begin, plan))
    return Begun(call=call, route=route, plan=plan, stats=stats, before=before)


async def _recorded(run: Run, record: Callable[[], Awaitable[None]]) -> None:
    """Record it; a swarm that goes on waits for a store that is away, and one that begins is refused."""
    await with_retries(record, faults=NotConfigured, within_s=WITHIN_S if run.recorded else 0.0)


async def resolve(call: SwarmCall, run: Run, pipeline: Pipeline) -> tuple[Route, Plan]:
    """Where its requests go, and what the policy makes of them. Raises what refuses it."""
    provider = call.provider or call.first_provider
    route = await pipeline.router.resolve(run, model=call.model, provider=provider, preferred=call.first_model)
    return route, route.decide(first_request(call, route.model_asked))


async def _swarm(
    call: SwarmCall,
    run: Run,
    pipeline: Pipeline,
    limits: SwarmLimits,
    steps: Steps | None,
    concurrency: SwarmConcurrency | None,
    tools_of: OpenTools | None,
    replicas: Replicas | None,
) -> Outcome:
    begun = await begin(call, run, pipeline, limits)
    call, plan, stats = begun.call, begun.plan, begun.stats
    async with tools_of() if tools_of else open_swarm_tools(call, pipeline, begun.route, run.caller) as tools:
        if call.known_definitions is None:
            known = {"known_tools": tools.fingerprints, "known_definitions": tools.definitions}
            run.task = to_json(replace(call, **known, known_servers=tools.servers))
        else:  # it offers the tools that its agents know, whatever there is by now: a replay decides the same
            tools.definitions = call.known_definitions
        await _recorded(run, run.record)  # before any of them is called
        stats.report(tool_warnings(call, tools.warnings))
        limits = effective_limits(limits, call, plan.limits, pipeline.settings)
        concurrency = concurrency or SwarmConcurrency(pipeline.settings.max_concurrency, limits)
        raises = _raise_of(call, run, stats, limits, pipeline.settings)
        limits = limits if raises is None else await raises.known(limits)
        shared = None if replicas is None else await replicas.share(run, limits, concurrency, raises)
        local = BudgetLedger(limits, elapsed_s=run.active_s(), clock=concurrency.clock, raises=raises)
        runner = StepRunner(
            pipeline=pipeline,
            route=begun.route.with_tools(tools.definitions),
            profile=plan.profile,
            run=run,
            steps=shared.steps if shared else steps or run.store.steps(run.id),
            concurrency=concurrency,
            ledger=shared.ledger if shared else local,
            stats=stats,
            effort=call.effort,
            cache_ttl=pipeline.settings.cache_ttl or _cache_ttl(call, plan.profile, tools, concurrency),
            before=begun.before,
        )
        run.limits = lambda: runner.ledger.limits.shown()
        try:
            here = nullcontext(LocalAgents(runner, tools))
            async with replicas.agents(runner, call, shared.steps) if replicas and shared else here as agents:
                await (_run_items(call, runner, agents) if call.items else _run_main(call, runner, agents, tools.names))
        finally:
            runner.close()
        run.progress = stats
        stats.report(tool_warnings(call, tools.warnings))  # what went wrong with them meanwhile
        limits = limits if raises is None else await raises.known(limits)
        usd = await runner.ledger.total_usd()
        if limits.usd is not None and usd > limits.usd:  # before a request is sent its cost is known only roughly
            amounts = {"asked": limits.usd, "sent": round(usd, 6)}
            texts = {"cost": dollars(usd, estimated=True), "limit": dollars(limits.usd)}
            stats.report([policy.reported("budget-overrun", field=limits.usd_set_by, **amounts, **texts)])
        declined = raises is not None and await raises.is_declined()
        outcome = _outcome(call, run, stats, limits, declined)
        run.concluded = outcome  # a stop while the tools end loses nothing
    return outcome


async def prepare(call: SwarmCall, pipeline: Pipeline, caller: str) -> SwarmCall:
    """The call with its files as items, and the roots that it keeps wherever it is resumed. Refuses bad items."""
    if call.first_provider is not None:
        return call  # it was prepared when it began
    roots = await anyio.to_thread.run_sync(pipeline.find_roots, call.offered_roots, caller, abandon_on_cancel=True)
    pdfs: dict[str, Document] = {}
    call = await anyio.to_thread.run_sync(with_files, call, roots, pdfs, abandon_on_cancel=True)
    for name, pdf in pdfs.items():
        call = set_text(call, name, await pipeline.pdfs.text(f"`{pdf.name}`", pdf, pdf.pages))
    if pipeline.settings.roots is None:
        call = replace(call, offered_roots=tuple(Path(root.path).as_uri() for root in roots.folders))
    return check_items(call)


def open_swarm_tools(
    call: SwarmCall, pipeline: Pipeline, route: Route, caller: str
) -> AbstractAsyncContextManager[SwarmTools]:
    """The operator's tools, the provider's own, files and the web, as far as the call wants them."""
    if call.tools == ():
        return nullcontext(SwarmTools(warnings=["Sub-agents have no tools: the call asked for none."]))
    provider = route.endpoint.provider
    builtin: list[ToolSource] = [BuiltinTools(pipeline.upstream, route.endpoint)] if provider.formulas else []
    builtin.append(FileTools(partial(_find_roots, call, pipeline, caller)))
    if not any("/fetch:" in uri for uri in (*provider.formulas, *provider.free_formulas)):
        builtin.append(WebTools())
    return open_tools(
        pipeline.settings.swarm_mcp,
        patterns=call.tools or (),
        moonshot_schemas=provider.moonshot_schemas,
        builtin=builtin,
        recorded=call.known_tools,
    )


def _find_roots(call: SwarmCall, pipeline: Pipeline, caller: str) -> Roots:
    """The folders that agents may read from: where it is resumed never those that a process finds by itself."""
    roots = pipeline.find_roots(call.offered_roots, caller)
    if call.first_provider is not None and roots.source == "working directory":
        return replace(roots, folders=(), why_none="the swarm is resumed, and began with others or none")
    return roots


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


def _raise_of(
    call: SwarmCall, run: Run, stats: SwarmStats, limits: SwarmLimits, settings: Settings
) -> BudgetRaise | None:
    """How it asks its host's user for a larger budget; None: it asks nobody."""

    async def doing() -> str:
        return stats.phase()

    def on_ask(is_open: bool) -> None:
        stats.asks = is_open
        if is_open:
            run.reports.add("waits for its user: its budget may not pay for its next request")

    if not call.asks:
        return None
    return budget_raise(
        call,
        run.store,
        run.id,
        caller=run.caller,
        limits=limits,
        settings=settings,
        doing=doing,
        on_ask=on_ask,
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


def tool_warnings(call: SwarmCall, warnings: Iterable[str]) -> list[Adjustment]:
    """What is missing of the tools, as the result reports it."""
    asked = list(call.tools) if call.tools is not None else None
    return [policy.reported("swarm-tools", field="tools", asked=asked, fault=each) for each in warnings]


async def _run_main(call: SwarmCall, runner: StepRunner, agents: Agents, tools: Sequence[str]) -> None:
    """A main agent, which creates sub-agents."""
    limits = runner.ledger.limits
    system = prompts.system_prompt("main", tools, steps=limits.steps, agents=limits.agents)
    task = AgentTask(system=system, prompt=call.prompt, steps=limits.steps, is_main=True)
    await run_agent(runner.stats.main, task, Coordinator(runner, agents), runner)


async def _run_items(call: SwarmCall, runner: StepRunner, run_by: Agents) -> None:
    """One sub-agent an item, and the synthesis of their results."""
    stats, main = runner.stats, runner.stats.main
    stats.begin_stage()
    agents = [stats.add_agent(name) for name in call.names]
    async with anyio.create_task_group() as tasks:
        for agent, task in zip(agents, call.tasks, strict=True):
            tasks.start_soon(run_by.run, agent, None, task)
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


def _outcome(call: SwarmCall, run: Run, stats: SwarmStats, limits: SwarmLimits, declined: bool) -> Outcome:
    """The swarm's status, what is missing of it, and how to go on."""
    main, error = stats.main, stats.main.error
    reached: list[Limit | None] = [agent.limit for agent in stats.everyone if agent.limit in SWARM_WIDE]
    if error is None and (limit := reached[0] if reached else main.limit) is not None:
        error = limits.error(limit)
    elif error is None and call.items and stats.missing:
        error = next((agent.error for agent in stats.missing if agent.error), limits.error("agent_steps"))
    if error is None:
        return run.snapshot("completed")
    if declined and error.message == (by_money := limits.error("usd")).message:
        error = BudgetExceeded(f"{by_money.message} The user declined to raise it.", fix=by_money.fix)
    error = stats.with_missing(error)
    if main.answer.strip():
        return run.snapshot("partial", error)
    if not (results := stats.results()):
        return run.snapshot("failed", error)
    return replace(run.snapshot("partial", error), answer=results, finish_reason=None)
