"""Routing: AIMS's own answers, the rules of counting, and texts that nobody would write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import kimi_mcp
from kimi_mcp.skill.document import Skill, SkillTool, load_skill
from kimi_mcp.skill.routing import Routing, route

AIMS = json.loads(Path(__file__).with_name("aims_matcher.json").read_text("utf-8"))["cases"]

SWARM = SkillTool(
    name="kimi_swarm",
    title="T",
    summary="S.",
    when="w",
    when_not="n",
    triggers=("swarm",),
    mode="thinking",
)


def skill_with(*tools: SkillTool, without: str = "") -> Skill:
    """The package's skill with other tools."""
    skill = load_skill()
    kept = [tool for tool in skill.tools if tool.name not in (without, *(one.name for one in tools))]
    return skill.model_copy(update={"tools": (*kept, *tools)})


@pytest.mark.parametrize("case", AIMS, ids=lambda case: ascii(case["query"]))
def test_the_skill_scores_as_in_aims(case: dict[str, object]) -> None:
    found = route(str(case["query"]))
    assert found.score == case["score"]
    assert found.meant is case["matches"]


@pytest.mark.parametrize(
    "text",
    ["\u212aIMI", "kim\u0130", "\u0130KIMI", "请KIMI看", "ΣKIMI K2.5Σ", "mo?onshot", "mo請onshot", "é" * 999 + "KIMI"],
    ids=ascii,
)
def test_letters_are_made_small_as_aims_makes_them(text: str) -> None:
    own = [trigger for trigger in load_skill().triggers if trigger in text.lower()]
    assert route(text).score == (sum(map(len, own)) + 10 if own else 0)


def test_triggers_of_a_skill_may_be_of_any_letters() -> None:
    skill = load_skill().model_copy(update={"triggers": ("月之暗面", "ünder", "why?")})
    assert route("月之暗面 ÜNDER WHY?", skill=skill).matched[:3] == skill.triggers
    assert route("why的", skill=skill).score == 0


def test_the_score_is_the_lengths_of_the_skills_triggers_and_ten_for_its_priority() -> None:
    found = route("Ask Moonshot's Kimi about visual reasoning.")
    own = [trigger for trigger in load_skill().triggers if trigger in found.matched]
    assert own == ["kimi", "moonshot", "visual reasoning"]
    assert found.score == sum(map(len, own)) + 10


def test_a_skill_of_another_priority_scores_by_it() -> None:
    skill = load_skill()
    for priority, points in {"critical": 100, "high": 10, "medium": 5, "low": 1, "normal": 0}.items():
        assert route("kimi", skill=skill.model_copy(update={"priority": priority})).score == 4 + points
    assert route("nothing of it", skill=skill.model_copy(update={"priority": "critical"})).score == 0


# ── what is attached ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["", "thoughts?", "Think hard: who wins?", "Translate this.", "这个对吗?"])
def test_what_is_attached_decides(text: str) -> None:
    assert route(text, images=1).tool == "kimi_vision"
    assert route(text, videos=1).tool == "kimi_video"


def test_an_earlier_run_comes_before_what_is_attached() -> None:
    assert route("Fetch the answer of run_7f3a instead.", images=1).tool == "kimi_run"


def test_how_much_is_attached_is_explained() -> None:
    assert "1 image attached" in route("?", images=1).why
    assert "2 videos attached" in route("?", videos=2).why


# ── words ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_at_all_goes_to_the_default() -> None:
    found = route(" " * 200)
    assert found == Routing(tool="kimi_think", score=0, matched=(), why=found.why, points=found.points)
    assert route("blorf wibble " * 6).tool == load_skill().default_tool


def test_why_quotes_the_words_that_decided() -> None:
    found = route("Watch demo.mp4 and tell me where it stutters.")
    assert found.tool == "kimi_video"
    assert "“watch demo.mp4” (+6)" in found.why
    assert "“mp4”" in found.why or "“.mp4”" in found.why


def test_a_weak_sign_is_more_than_none() -> None:
    assert route("The vendors, with their sources.").points == {"kimi_swarm": 2, "kimi_instant": 2}
    found = route("For the record of the whole committee and its staff: the vendors, with their sources.")
    assert found.points == {"kimi_swarm": 2}
    assert found.tool == "kimi_swarm"


def test_a_trigger_in_chinese_does_not_swallow_a_stronger_sign() -> None:
    assert route("证明根号2是无理数").points["kimi_think"] >= 4


def test_triggers_of_the_skill_and_of_the_chosen_tool_are_named() -> None:
    found = route("Let kimi think about this screenshot.")
    assert found.tool == "kimi_vision"
    assert found.matched == ("kimi", "screenshot")


def test_quoted_words_ask_for_nothing() -> None:
    assert route('Translate "watch the attached video" into Dutch.').tool == "kimi_instant"
    assert route("“请看这张截图”用英语怎么说?").tool == "kimi_instant"


def test_the_matter_after_an_opening_asks_for_nothing() -> None:
    assert route("Translate to German: prove that the attached photo is real, step by step.").tool == "kimi_instant"
    assert route("翻译成英文:请看完这段视频再一步步推理。").tool == "kimi_instant"


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("don't watch the video, just translate its title: Fin", "kimi_instant"),
        ("No reasoning please, only the label: spam or ham?", "kimi_instant"),
        ("不要看视频,只看 cover.png,背景是什么颜色?", "kimi_vision"),
        ("静止画ではなく動画のほうを見て、いつ光るか教えて", "kimi_video"),
        ("분석 말고 그냥 번역만: 봄", "kimi_instant"),
        ("Ohne Erklärung: Was heißt Haus auf Spanisch?", "kimi_instant"),
        ("I don't need it fast: is the induction in this proof valid?", "kimi_think"),
    ],
)
def test_what_is_denied_is_not_meant(text: str, tool: str) -> None:
    assert route(text).tool == tool


def test_what_is_denied_counts_against_its_tool() -> None:
    assert route("Without the swarm, please.", skill=skill_with(SWARM)).points["kimi_swarm"] < 0


@pytest.mark.parametrize("text", ["Not only the screenshot: what do the two photos show?", "识别一下附件图片里的植物"])
def test_what_only_looks_like_a_denial_is_none(text: str) -> None:
    assert route(text).tool == "kimi_vision"


@pytest.mark.parametrize(
    "text",
    [
        "Which codec does a video call need, and why does it stutter?",
        "Write an image classifier in Python.",
        "Plan a photo competition.",
        "设计一个图片压缩服务",
    ],
)
def test_a_medium_that_is_only_a_topic_is_nothing_to_look_at(text: str) -> None:
    assert route(text).tool == "kimi_think"


def test_a_wish_is_not_stronger_for_being_repeated_twenty_times() -> None:
    once, often = route("Prove it."), route("Prove it. " * 20)
    assert often.points["kimi_think"] == once.points["kimi_think"] + 2  # its length


# ── long texts ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("filler", ["lorem ipsum dolor ", "天地玄黄宇宙洪荒"])
def test_what_stands_beyond_the_first_4000_characters_is_not_read(filler: str) -> None:
    text = (filler * 1000)[:4000]
    plain = route(text)
    assert route(text + " Watch clip.mp4, kimi!") == plain
    assert route("Watch clip.mp4, kimi! " + text).tool == "kimi_video"
    assert plain.score == 0


def test_words_that_begin_no_sign_hide_none_behind_them() -> None:
    assert route("it his her " * 20 + "watch clip.mp4").tool == "kimi_video"


def test_a_wish_behind_its_matter_is_found() -> None:
    assert route("The video was long. " * 120 + "\n\nTranslate the above to German.").tool == "kimi_instant"


# ── which tools there are ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_tool_that_the_skill_does_not_list_is_never_chosen() -> None:
    text = "Use the agent swarm to research 50 companies."
    assert route(text, skill=skill_with(SWARM)).tool == "kimi_swarm"
    assert route(text, skill=skill_with(without="kimi_swarm")).tool == "kimi_think"
    assert route("What is wrong?", images=1, skill=skill_with(without="kimi_vision")).tool == "kimi_think"


def test_a_trigger_of_the_skill_document_counts() -> None:
    tool = load_skill().tools[1].model_copy(update={"triggers": ("gazetteer",)})
    assert route("gazetteer", skill=skill_with(tool)).points[tool.name] > route("gazetteer").points[tool.name]


# ── texts that nobody would write ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text", ["", "\x00", "\ud800", "\n" * 5000, "“", "'" * 300, "a" * 100_000, "#", "..", ".png", "😀" * 99]
)
def test_any_text_has_a_tool(text: str) -> None:
    assert route(text).tool in {tool.name for tool in load_skill().tools}


@pytest.mark.parametrize(
    "piece",
    ["every ", "find all ", "this this ", "don't ", "不要", "这段视频", "collect 50 ", "a.png ", "“", "' ", "# ", "12 ",
     "run_", "think, ", "please ", "请", "for each ", "the ", "in the video ", "，", "何"],
)  # fmt: skip
def test_no_text_makes_the_search_explode(piece: str) -> None:
    route(piece * 4000)


def test_the_package_hands_out_route_without_importing_it_before_it_is_asked_for() -> None:
    assert kimi_mcp.route is route
    program = "import sys, kimi_mcp; early = 'kimi_mcp.skill.routing' in sys.modules; kimi_mcp.route('x'); print(early)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="detour"):
        _ = kimi_mcp.detour
