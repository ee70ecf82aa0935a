"""Texts that would act if they became markup, and runs that have one of them in every field. Reads ``xss.txt``."""

from __future__ import annotations

import json
import re
from pathlib import Path

from kimi_mcp.core.errors import AnswerCutOff
from kimi_mcp.core.types import Adjustment, Source
from kimi_mcp.runs.store.records import Phase
from scripts.view.recording import RecordedRun, usage

FILE = Path(__file__).with_name("xss.txt")

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|([nrt0\\]))", re.IGNORECASE)

HOST = "x.invalid"
"""What nobody may ever be asked for."""


def spellings() -> list[str]:
    """The texts, each once."""
    lines = FILE.read_text("utf-8").split("\n")
    found = [_ESCAPE.sub(_character, line) for line in lines if line and not line.startswith("%%")]
    return list(dict.fromkeys(found))


def _character(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPES[found[3]]


async def record(run: RecordedRun, text: str, *more: str, running: bool = False) -> None:
    """Record a swarm in which every text that anybody else writes is this one; each of ``more`` has an agent."""
    run.agents = {
        f"agent-{number}": {
            "id": f"agent-{number}",
            "name": each,
            "status": "failed",
            "steps": 1,
            "tool_calls": 1,
            "usage": {"total_tokens": 3, "cost_usd": None},
        }
        for number, each in enumerate((text, *more), 1)
    }
    await run.begin(model_asked=text, provider=text)
    await run.request("main", 0, 1, answer=text, reasoning=text, system=text, task=text, tool_calls=[{"name": text}])
    for number, each in enumerate((text, *more), 1):
        await _steps(run, f"agent-{number}", each)
    if running:
        for of in ("answer", "reasoning"):
            await run.write(of, text, provider=text, phase=Phase(doing=text, lines=(text,), reported=1))
        return
    await run.end(
        "partial",
        4,
        answer=text,
        reasoning=text,
        parsed={text: [text, {"__proto__": text}]},
        model_asked=text,
        model_sent=text,
        model_answered=text,
        provider=text,
        usage=usage(1_000),
        policy=(Adjustment(rule=text, action="adjusted", field=text, asked=text, sent={text: text}, why=text),),
        sources=(Source(title=text, url=text), Source(title=text, url=f"https://{HOST}/?{text}")),
        error=AnswerCutOff(text, fix=text),
    )


async def _steps(run: RecordedRun, agent: str, text: str) -> None:
    words = {"name": text, "system": text, "task": text, "answer": text, "reasoning": text}
    await run.request(agent, 1, 2, tool_calls=[{"name": text}], **words)
    await run.tool_call(agent, text, json.dumps({text: text}), 2, 3, text=text)
    await run.tool_call(agent, text, text, 2, 3, text=json.dumps({"__proto__": text, text: [text]}), is_error=True)
    await run.request(agent, 3, 4, name=text, error={"code": text, "message": text, "fix": text})
