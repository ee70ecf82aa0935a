"""What a host receives: the listed tools, results, lists of runs and pages. Pure, no I/O."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mcp_types import CallToolResult, ContentBlock, Icon, ResourceLink, TextContent, ToolAnnotations
from mcp_types import Tool as ListedTool

from kimi_mcp.core.errors import InvalidArguments
from kimi_mcp.core.outcome import Outcome, ResultPage, cut_answer, kimi_run_call, reasoning_uri, structured, text
from kimi_mcp.server import apps, client_quirks
from kimi_mcp.server.tools import OUTPUT_SCHEMA, Tool, input_schema

if TYPE_CHECKING:
    from kimi_mcp.runs.store.records import RunEntry
    from kimi_mcp.skill.document import SkillTool

PAGE_CHARS = 20_000
"""Code points in a page of an answer or of a reasoning: every known host shows its model as many."""

MOST_RESULT_CHARS = 500_000
"""Characters of a result that Claude Code accepts, in its own ``_meta`` field: the most that it allows."""

MOST_ANSWER_CHARS = 200_000
"""Code points of an answer in one result, which carries it twice; the rest comes in pages."""

LINKS_SINCE = "2025-06-18"
"""The first version of the protocol that knows links to resources in a result."""

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><rect width="48" height="48" rx="11" fill="#16181d"/>'
    '<path d="M31 35.5A14.5 14.5 0 1 1 27.6 9.6 11.6 11.6 0 1 0 36.9 30 14.4 14.4 0 0 1 31 35.5Z" fill="#f4f1e8"/>'
    '<circle cx="33.5" cy="15" r="2.6" fill="#5b8cff"/></svg>'
)


def icon() -> Icon:
    """The server's picture."""
    content = b64encode(_ICON.encode()).decode()
    return Icon(src=f"data:image/svg+xml;base64,{content}", mime_type="image/svg+xml", sizes=["any"])


def listed(tool: Tool, row: SkillTool, *, always_loaded: bool) -> ListedTool:
    """A tool in the list of tools.

    Claude Code hides tools from its model until a search finds them, by name, description and ``searchHint``; one that
    is ``always_loaded`` it never hides (version 2.1.332, tried on 2026-11-29).
    """
    meta: dict[str, Any] = {
        "anthropic/maxResultSizeChars": MOST_RESULT_CHARS,
        "anthropic/searchHint": ", ".join(row.triggers),
    }
    if always_loaded:
        meta["anthropic/alwaysLoad"] = True
    if tool.name in apps.TOOLS:
        meta |= apps.TOOL_META
    return ListedTool(
        name=tool.name,
        title=row.title,
        description=row.description,
        input_schema=input_schema(tool.arguments),
        output_schema=OUTPUT_SCHEMA,
        annotations=ToolAnnotations(
            read_only_hint=tool.read_only,
            destructive_hint=False,
            open_world_hint=tool.mode is not None,
        ),
        _meta=meta,
    )


def takes_links(protocol: str, host: str | None) -> bool:
    """Whether a result may carry a link: the protocol knows them, and this host is not known to fail over them."""
    return protocol >= LINKS_SINCE and not client_quirks.has("refuses_links", host)


def rejoined(outcome: Outcome) -> Outcome:
    """The outcome of a run that another call has joined."""
    from kimi_mcp.policy import reported

    return replace(outcome, policy=(*outcome.policy, reported("run-rejoined", field="prompt")))


def for_host(context: Any, outcome: Outcome) -> CallToolResult:
    """A tool's result, as the host of a request takes it."""
    host, chars = client_quirks.host_of(context), context.lifespan_context.settings.reasoning_inline_chars
    return result(outcome, reasoning_chars=chars, host=host, links=takes_links(context.protocol_version, host))


def result(outcome: Outcome, *, reasoning_chars: int, host: str | None, links: bool) -> CallToolResult:
    """A tool's result. A reasoning that is cut inline is linked to, where ``links`` says that the host takes that."""
    whole, outcome = outcome, cut_answer(outcome, MOST_ANSWER_CHARS)
    value = structured(outcome, reasoning_chars=reasoning_chars)
    if outcome is not whole and outcome.run_id is not None:
        value["next_step"] = f"{kimi_run_call(outcome.run_id, 'answer', MOST_ANSWER_CHARS)} reads on."
    names_run = client_quirks.has("sees_text_alone", host)
    content: list[ContentBlock] = [TextContent(text=text(outcome, names_run=names_run))]
    if links and len(outcome.reasoning or "") > reasoning_chars and outcome.run_id is not None:
        content.append(_link(outcome, outcome.run_id))
    return CallToolResult(
        content=content,
        structured_content=value,
        is_error=outcome.status == "failed" and outcome.page is None,
    )


def _link(outcome: Outcome, run_id: str) -> ResourceLink:
    reasoning = outcome.reasoning or ""
    growing = outcome.status == "running"
    return ResourceLink(
        uri=reasoning_uri(run_id),
        name="reasoning",
        title=f"The whole reasoning, {len(reasoning):,} characters{' so far' if growing else ''}",
        mime_type="text/plain",
        size=None if growing else len(reasoning.encode("utf-8", "replace")),
    )


def run_list(runs: Sequence[RunEntry]) -> str:
    """Runs, a line each."""
    if not runs:
        return "No run is known to this server yet."
    return "\n".join(f"{run.id}  {run.outcome.status:<9}  {run.tool}  {run.prompt_head}" for run in runs)


def paged(outcome: Outcome, of: str, offset: int) -> Outcome:
    """The outcome with a page of its answer or of its reasoning; raises ``InvalidArguments`` beyond the end."""
    whole = (outcome.answer if of == "answer" else outcome.reasoning) or ""
    if offset > len(whole):
        raise InvalidArguments(
            f"`offset` {offset} is beyond the {len(whole)} characters there are.", fix="Give a smaller `offset`."
        )
    end = offset + PAGE_CHARS
    following = min(end, len(whole)) if end < len(whole) or outcome.status == "running" else None
    page = ResultPage(of=of, text=whole[offset:end], offset=offset, next_offset=following)
    return replace(outcome, answer="", reasoning=None, page=page)
