"""Converters of tools' schemas, each its framework's own: to the model, ``response_schema`` is still any object."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kimi_mcp.server.tools import TOOLS, input_schema

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
CONVERTERS = {
    "openai_agents": "agents",
    "google_adk": "agents-adk",
    "pydantic_ai_for_openai": "agents",
    "pydantic_ai_for_gemini": "agents",
    "langchain_for_gemini": "agents-sdk1",
}
"""The environment of each, which ``make soak`` makes."""


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_converter_leaves_the_schema_of_the_answer_an_object_that_may_have_properties(name: str) -> None:
    python = ROOT / ".venv" / CONVERTERS[name] / "bin" / "python"
    if not python.exists():
        pytest.skip("the agent frameworks are not installed: `make soak` does that where they can be downloaded")
    schema = input_schema(TOOLS["kimi_think"].arguments)
    done = subprocess.run(
        [python, Path(__file__).with_name("converters.py"), name],
        input=json.dumps({"name": "kimi_think", "description": "Thinks.", "inputSchema": schema}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads(done.stdout.splitlines()[-1])["properties"]["response_schema"]
    assert row["type"].lower() == "object"
    assert row.get("additionalProperties") is not False
    assert row["description"] == schema["properties"]["response_schema"]["description"]
