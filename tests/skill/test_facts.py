"""What skill.md says, held against the code, the catalogue and the policy: no fact in it stands alone."""

from __future__ import annotations

import json
import re

import pytest

from kimi_mcp import catalogue, policy
from kimi_mcp.catalogue import credentials
from kimi_mcp.core import settings
from kimi_mcp.media import loading
from kimi_mcp.pipeline.attachments import MediaLimits
from kimi_mcp.server.tools import MAX_WAIT_S, OUTPUT_SCHEMA, TOOLS
from kimi_mcp.simulator import Simulator
from kimi_mcp.skill.document import load_skill
from tests.simulator.requests import answer, data_url, mp4, png

SKILL = load_skill()
BODY = SKILL.text.split("---\n", 2)[2]
K25 = catalogue.load().models["kimi-k2.5"]
CEILINGS = policy.load_rules()["swarm-steps"].options["ceilings"]
FLOOR = policy.load_rules()["thinking-budget"].options["floor"]


def section(heading: str) -> str:
    return BODY.split(f"\n## {heading}\n")[1].split("\n## ")[0]


# ── the frontmatter ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_frontmatter_keeps_what_aims_knows_the_skill_by() -> None:
    assert (SKILL.id, SKILL.type, SKILL.status, SKILL.priority) == ("kimi-k2.5", "skill", "active", "high")
    assert SKILL.name.startswith("Kimi K2.5")
    assert SKILL.triggers == (
        "kimi",
        "kimi k2.5",
        "moonshot",
        "multimodal agent",
        "vision agent",
        "agent swarm",
        "visual reasoning",
        "video input",
        "1 trillion",
    )
    assert all(trigger == trigger.lower() for trigger in SKILL.triggers), "AIMS lowers the query alone"
    assert dict(SKILL.execution) == {"target": "mcp", "route": "", "command": "kimi-mcp"}


def test_the_dependencies_name_every_key_and_apis_that_are_no_console() -> None:
    keys = {name for provider in catalogue.load().providers.values() for name in provider.key_variables}
    assert set(SKILL.dependencies["env"]) == keys | {"KIMI_API_KEY"}
    urls = {provider.base_url for provider in catalogue.load().providers.values()}
    assert set(SKILL.dependencies["apis"]) <= urls
    assert "terms" not in SKILL.license
    assert "100M" in SKILL.license


def test_every_limit_is_the_codes_own() -> None:
    assert dict(SKILL.limits) == {
        "context_tokens": K25.context_tokens,
        "default_output_tokens": K25.default_output_tokens,
        "least_thinking_tokens": FLOOR,
        "media_bytes": loading.MOST_BYTES,
        "inline_bytes": MediaLimits().inline_most,
        "swarm_steps": CEILINGS["max_steps"],
        "swarm_agent_steps": CEILINGS["max_agent_steps"],
        "swarm_cost_usd": settings.read_settings({}).budget_usd_per_swarm,
        "wait_s": MAX_WAIT_S,
        "routed_chars": 4_000,
    }


def test_triggers_of_tools_are_in_lower_case_and_belong_to_one_tool() -> None:
    seen = [trigger for tool in SKILL.tools for trigger in tool.triggers]
    assert all(trigger == trigger.lower() for trigger in seen)
    assert len(seen) == len(set(seen))


# ── the body ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tool", TOOLS)
def test_the_guide_says_when_to_use_each_tool(tool: str) -> None:
    assert f"`{tool}`" in section("Which tool")


def test_the_guide_names_no_tool_that_there_is_not() -> None:
    assert set(re.findall(r"\bkimi_(?!mcp\b)[a-z]+\b", SKILL.text)) <= set(TOOLS)


def test_numbers_in_the_guide_are_the_catalogues() -> None:
    assert f"a context of {K25.context_tokens:,} tokens" in " ".join(BODY.split())
    assert f"Below {FLOOR:,} the answer may never begin" in BODY
    assert f"it is {K25.default_output_tokens:,} for K2.5" in " ".join(BODY.split())
    assert f"at most {loading.MOST_BYTES // 2**20} MB" in BODY
    assert K25.released is not None
    assert f"{K25.released.day} January {K25.released.year}" in BODY


def test_the_days_on_which_models_end_are_the_catalogues() -> None:
    facts = catalogue.load()
    moonshot = facts.profile("moonshot", "kimi-k2.5")
    assert moonshot is not None
    assert moonshot.serving.until is not None
    assert f"{moonshot.serving.until.day} August {moonshot.serving.until.year}" in BODY
    assert f"- {moonshot.serving.until.isoformat()}: Moonshot's own API ends K2.5" in BODY


def test_rules_and_settings_that_the_guide_names_exist() -> None:
    rules = set(policy.load_rules())
    named = re.findall(r"(?m)\| `([a-z-]+)` \| (?:adjust|warn|refuse) \|", section("Mistakes that the policy catches"))
    assert set(named) == rules
    known = {variable.name for variable in credentials.variables(catalogue.load())}
    assert set(re.findall(r"\bKIMI_[A-Z_]+\b", BODY)) <= known
    assert settings.read_settings({})


def test_fields_of_a_result_that_the_guide_names_exist() -> None:
    named = set(re.findall(r"`([a-z_]+)`", section("What comes back").split("\n\n")[0]))
    assert {"answer", "reasoning", "policy", "error"} <= named <= set(OUTPUT_SCHEMA["properties"])


def test_what_instant_calls_are_asked_with_is_what_the_limit_a_minute_allows() -> None:
    text, tier_1, requested = " ".join(BODY.split()), 2_000_000, K25.default_output_tokens
    assert requested is not None
    assert f"it allows {tier_1 // requested} instant calls a minute" in text
    assert tier_1 // 8_192 >= 200
    assert "(200 requests, 2 million tokens)" in text


@pytest.mark.anyio
async def test_a_message_that_a_caller_copies_from_the_guide_is_taken() -> None:
    fenced = section("Calling an API yourself").split("```json\n")[1].split("```")[0]
    for kind, medium in (("image/png", png()), ("video/mp4", mp4())):
        fenced = fenced.replace(f"data:{kind};base64,…", data_url(kind, medium))
    async with Simulator(provider="simulator") as sim:
        message = await answer(sim, {"model": "kimi-k2.5", "messages": [json.loads(fenced)]})
    assert "image png" in message["content"]
    assert "video mp4" in message["content"]


@pytest.mark.parametrize(
    ("claim", "reply"),
    [
        ("no gating", "open and not gated: anybody may download them"),
        ("video at the official API only", "Clips work at more hosts than Moonshot's own API"),
        ("do not self-host", "Don't host the model yourself just to use it"),
        (
            "NVIDIA NIM is preferred, with HF_TOKEN",
            "NVIDIA's endpoint (NIM) is often recommended first. Here it is not",
        ),
        ("platform.moonshot.ai is the endpoint", "The console of Moonshot is platform.moonshot.ai"),
        ("a thinking sample of 4,096 tokens", "also the 4,096 that many samples for thinking have"),
        ("thinking: {type: disabled} officially", '"thinking": {"type": "disabled"}'),
        ("chat_template_kwargs at vLLM and SGLang", '"chat_template_kwargs": {"thinking": false}'),
        ("instant with 4K to 8K", "although 4K to 8K is often advised"),
        ("96K for reasoning", "The 96K in K2.5's published scores is a budget of the evaluation"),
        ("min_p 0.01", "advise `min_p` 0.01 while thinking"),
        ("coding in instant mode", "Coding in a tool loop is a special case"),
        ("swarm mode of the official API", "Moonshot's API has no swarm: this server runs it"),
        ("15 steps of the main agent", "For WideSearch Moonshot gave the main agent 100 as well"),
        ("4x H200", "widely quoted figures for BF16 on four H200 (630 GB) match neither"),
        ("AesSedai's UD-Q4_K_XL", "UD-Q4_K_XL is unsloth's, not AesSedai's"),
        ("download on a server only", "Download onto the server that is to run it"),
        ("transformers 4.57.1", "transformers 4.57.1 or later"),
        ("target internal", "it was internal"),
    ],
)
def test_each_claim_of_the_first_skill_that_does_not_hold_as_it_stood_has_its_reply(claim: str, reply: str) -> None:
    assert reply in " ".join(SKILL.text.split()), claim


def test_published_scores_name_their_source_and_its_day() -> None:
    scores = section("Published scores")
    assert re.search(r"Source: MoonshotAI/Kimi-K2\.5 README\.md, .*20\d\d-\d\d-\d\d", scores)
    assert len(re.findall(r"(?m)^\| .+ \| \d+(?:\.\d)?", scores)) >= 10


@pytest.mark.parametrize(
    "mistake",
    [
        "no terms/conditions",
        "no T&C",
        "api_key=HF_TOKEN",
        "Bearer $HF_TOKEN",
        "Full BF16",
        "/home/user/AIMS",
        "max_tokens=4096",
        "Endpoint: https://platform.moonshot.ai",
        "SWE tasks (coding, terminal) | Instant",
    ],
)
def test_what_was_wrong_in_the_first_skill_is_not_in_this_one(mistake: str) -> None:
    assert mistake not in SKILL.text
