"""What a person sees: commands to paste, findings first, errors in the words of a shell, one spelling of money."""

from __future__ import annotations

import ast
import io
import re
import sys
import tomllib
from pathlib import Path

import pytest

import kimi_mcp
from kimi_mcp.cli.commands import app
from kimi_mcp.cli.console import OPTIONS, Printer, in_a_shell, requests
from kimi_mcp.core import errors
from kimi_mcp.core.outcome import Outcome
from kimi_mcp.core.profiles import Price, cost_usd, dollars, rounded
from kimi_mcp.core.types import Timing, Usage
from kimi_mcp.server.tools import TOOLS
from kimi_mcp.simulator import Simulator
from tests.cli.commands.shell import kimi, to

PACKAGE = Path(kimi_mcp.__file__).parent


class Terminal(io.StringIO):
    """Something that a person looks at."""

    def isatty(self) -> bool:
        return True

    def seen(self) -> str:
        """What stands there, without its colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


# ── lines that are meant to be pasted ─────────────────────────────────────────────────────────────────────────────


def test_a_command_is_never_folded(terminal: Terminal) -> None:
    command = "vllm serve ./kimi-k2.5 " + " ".join(f"--option-{number} value" for number in range(20))
    Printer(terminal, label=10).command("serve", command)
    assert terminal.seen() == f"  serve     {command}\n"


def test_what_stands_in_backticks_stays_on_one_line(terminal: Terminal) -> None:
    Printer(terminal, label=4).row("", "word " * 13 + "then run `kimi-mcp runs resume ID`, and see what comes of it.")
    lines = terminal.seen().splitlines()
    assert len(lines) == 2
    assert "`kimi-mcp runs resume ID`" in lines[1]
    assert max(map(len, lines)) <= 80


def test_the_other_texts_fold_at_the_width_of_the_terminal(terminal: Terminal) -> None:
    Printer(terminal).row("note", "word " * 60)
    assert max(map(len, terminal.seen().splitlines())) <= 80


def test_lines_and_headings_fold_without_trailing_blanks(terminal: Terminal) -> None:
    page = Printer(terminal, indent=0)
    page.heading("A heading of many words, " * 5)
    page.line("Then run `kimi-mcp runs resume ID`. " * 5)
    lines = terminal.seen().splitlines()
    assert all(line == line.rstrip() and len(line) <= 80 for line in lines), lines
    assert "".join(lines).count("`kimi-mcp runs resume ID`") == 5


COMMAND = re.compile(r"kimi-mcp (?:ask|runs|models|install|doctor|simulator|files|policy|selfhost|demo)\b")


def test_a_sentence_holds_a_command_in_backticks() -> None:
    bare = [text for text in messages() if COMMAND.search(re.sub(r"`[^`]*`?", "", text))]
    assert bare == []


def test_a_text_to_be_copied_keeps_its_own_lines(terminal: Terminal) -> None:
    code = "value = " + " + ".join(f"number_{number}" for number in range(20))
    Printer(terminal, indent=0).text(f"{code}\n{code}")
    assert terminal.seen() == f"{code}\n{code}\n"


def test_a_table_leaves_out_columns_and_cuts_the_last_to_fit(terminal: Terminal) -> None:
    page = Printer(terminal, indent=0)
    page.table(("ID", "A", "B", "LAST"), [("x" * 50, "a" * 20, "b" * 10, "word " * 30)], optional=(1, 2), cut_last=True)
    head, line = terminal.seen().splitlines()
    assert head.split() == ["ID", "B", "LAST"]
    assert len(line) <= 80
    assert line.endswith("word…")


# ── errors in the words of a shell ────────────────────────────────────────────────────────────────────────────────


def messages() -> list[str]:
    """Every sentence that an error or a rule may say, as it stands in the code; values are left out."""
    leaves = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    found: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("simulator", "demo", "generate", "manifests", "commands"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in leaves | {"Row"}:
                found += ("".join(_pieces(each)) for each in [*node.args, *(word.value for word in node.keywords)])
    rules = tomllib.loads((PACKAGE / "policy" / "rules.toml").read_text("utf-8"))
    return [*filter(None, found), *(rule[key] for rule in rules.values() for key in ("message", "fix"))]


def _pieces(node: ast.expr) -> list[str]:
    parts = [each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return [str(each.value) for each in parts]


def test_no_error_in_a_shell_speaks_of_a_hosts_tools_and_arguments() -> None:
    sentences = messages()
    assert len(sentences) > 200
    for sentence in sentences:
        shown = in_a_shell(sentence)
        assert not re.search(r"\bkimi_(?!mcp)\w+|\boperator\b|this server|[Ww]hoever runs", shown), shown
        assert not re.search(rf"`(?:{'|'.join(OPTIONS)})`", shown), shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`a.png` is a picture, not text.", "`a.png` is a picture, not text."),
        ("Pass it to kimi_vision in `images`; `files` takes text.", "Pass it to --image; --file takes text."),
        ("Leave `provider` out, or let the operator add it to KIMI_ALLOWED_PROVIDERS.",
         "Leave --provider out, or add it to KIMI_ALLOWED_PROVIDERS."),
        ("Raise KIMI_BUDGET_USD_PER_SWARM, which only the operator can, ask for less at once.",
         "Raise KIMI_BUDGET_USD_PER_SWARM, ask for less at once."),
        ("`prompt` has no {{item}}.", "The prompt has no {{item}}."),
        ("Set KIMI_MODEL (or the argument `model`) to another.", "Set KIMI_MODEL (or --model) to another."),
        ("`images[1]`: The picture is broken.", "--image number 2: The picture is broken."),
        ("`items[0]` and `items[2]` are the same.", "--item number 1 and --item number 3 are the same."),
        ("Leave `temperature` out: the mode fixes it.", "Leave --temperature out: the mode fixes it."),
    ],
)  # fmt: skip
def test_a_sentence_names_options(text: str, shown: str) -> None:
    assert in_a_shell(text) == shown


def test_every_option_that_an_error_names_is_one_of_ask() -> None:
    from typer.main import get_command

    ask = get_command(app).commands["ask"]  # type: ignore[attr-defined]
    known = {option for parameter in ask.params for option in parameter.opts}
    assert set(OPTIONS.values()) <= known
    arguments = {name for tool in TOOLS.values() for name in tool.arguments.model_fields}
    assert set(OPTIONS) <= arguments


# ── a pipe gets the answer and nothing else ───────────────────────────────────────────────────────────────────────


async def test_a_pipe_gets_the_answer_alone_and_stderr_what_the_policy_did(sim: Simulator) -> None:
    plain = await kimi("ask", "hi", settings=to(sim))
    changed = await kimi("ask", "hi", "--temperature", "0.3", settings=to(sim))
    assert (plain.status, plain.err) == (0, "")
    assert changed.status == 0
    assert "temperature-fixed" not in changed.out
    assert changed.out == plain.out
    assert "temperature-fixed: --temperature 0.3 → left out. " in changed.err


@pytest.mark.parametrize(
    ("option", "number", "allowed"),
    [
        ("--temperature", "5", "2 or less"),
        ("--max-cost-usd", "0", "more than 0"),
        ("--max-agents", "500", "100 or less"),
    ],
)
async def test_a_number_that_is_refused_is_reported_without_needless_digits(
    option: str, number: str, allowed: str
) -> None:
    assert (await kimi("ask", "x", option, number)).err.startswith(f"kimi-mcp: {option} must be {allowed}.\n")


def test_a_swarm_in_a_terminal_says_how_to_continue(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from kimi_mcp.cli.commands.run_progress import LiveWatch

    monkeypatch.setattr(sys, "stderr", terminal)
    LiveWatch().end(Outcome(status="completed", run_id="run_1", answer="Done.", swarm={"agents": []}))
    assert "Continue with --conversation run_1" in terminal.seen()


def test_wrong_usage_is_a_sentence_that_is_folded(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["ask", "--tool", "foo", "hi"])
    assert (shown.exit_code, "Value error" in shown.stderr, "'foo' is not one of" in shown.stderr) == (2, False, True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(SystemExit):
        app(["ask", "--mode", "thinking", "--item", "a", "--tool", "think", "hi"])
    assert max(map(len, terminal.seen().splitlines())) <= 80


# ── money ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "unknown"),
        (0.0, "0.00 USD"),
        (0.00000004, "under 0.0001 USD"),
        (0.0123456, "0.0123 USD"),
        (1234.5, "1,234.50 USD"),
    ],
)
def test_money_is_spelled_one_way(usd: float | None, text: str) -> None:
    assert dollars(usd) == text
    about = text if usd is None or text.startswith("under") else f"about {text}"
    assert dollars(usd, estimated=True) == about


def test_a_cost_has_no_digits_of_binary_fractions() -> None:
    usage = Usage(prompt_tokens=7, completion_tokens=3, reasoning_tokens=None, cached_tokens=0, total_tokens=10)
    assert repr(cost_usd(usage, Price(input=0.95, cached=0.16, output=4.0))) == "1.865e-05"
    assert repr(rounded(0.1 + 0.2)) == "0.3"


def test_nobody_formats_money_but_the_one_function() -> None:
    others = [
        (path.relative_to(PACKAGE).as_posix(), line.strip())
        for path in (*PACKAGE.rglob("*.py"), PACKAGE / "policy" / "rules.toml")
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"\} USD\b|\$\{[a-z_.]+:|about \{dollars", line) and path.name != "profiles.py"
    ]
    assert others == []


# ── requests and attempts ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_swarms_requests_are_no_attempts() -> None:
    swarm = {"agents": [], "steps": 1, "critical_steps": 1, "speedup": None}
    timing = Timing(first_token_s=None, total_s=1.0, attempts=7)
    assert requests(Outcome(status="cancelled", timing=timing, swarm=swarm)) == "7 requests"
    assert requests(Outcome(status="completed", timing=timing)) == "7 attempts"


# ── the doctor and the entry of a host ────────────────────────────────────────────────────────────────────────────


async def test_the_doctor_begins_with_its_findings_and_counts_what_is_unset() -> None:
    out = (await kimi("doctor", settings={"KIMI_MODEL": "kimi-k2.5"})).out
    assert out.lstrip().startswith("Findings")
    assert out.index("No provider is configured") < out.index("Variables") < out.index("No call would work")
    assert "KIMI_BUDGET_USD_PER_DAY" not in out
    assert re.search(r"unset +\d+ of \d+: `kimi-mcp doctor --json` names them", out)
    assert re.search(r"set +KIMI_MODEL", out)


async def test_an_exported_provider_stands_in_the_entry_and_is_reported() -> None:
    exported = {"KIMI_PROVIDER": "novita", "MOONSHOT_API_KEY": "sk-another"}
    ended = await kimi("install", "codex", "--print", settings=exported)
    assert 'KIMI_PROVIDER = "novita"' in ended.out
    assert 'env_vars = ["NOVITA_API_KEY"]' in ended.out
    assert "Taken from this shell: KIMI_PROVIDER." in ended.err
    for option in ("KIMI_PROVIDER=vllm", "MOONSHOT_API_KEY=sk-mine"):
        ended = await kimi("install", "codex", "--print", "--env", option, settings=exported)
        assert "novita" not in ended.out.lower()
        assert "Taken from this shell" not in ended.err


# ── wrong usage and failures ──────────────────────────────────────────────────────────────────────────────────────

KEYLESS = {"KIMI_PROVIDER": "moonshot"}


@pytest.mark.parametrize(
    "command",
    [
        ("ask", ""),
        ("ask", "x", "--temperature", "5"),
        ("ask", "x", "--temperature", "nan"),
        ("ask", "x", "--temperature", "warm"),
        ("ask", "x", "--max-tokens", "0"),
        ("ask", "x", "--max-tokens", "lots"),
        ("ask", "x", "--model", ""),
        ("ask", "x", "--file", ""),
        ("ask", "x", "--file", "no/such/*.txt"),
        ("ask", "x", "--image", ""),
        ("ask", "x", "--image", "a.png", "--video", "b.mp4"),
        ("ask", "x", "--schema", "no such file"),
        ("ask", "x", "--schema", __file__),
        ("ask", "x", "--tool", "dream"),
        ("ask", "x", "--max-agents", "5000"),
        ("ask", "x", "--max-steps", "0"),
        ("ask", "x", "--max-cost-usd", "0"),
        ("ask", "x {{item}}", "--item", "one"),
        ("ask", "x", "--item", "one", "--item", "two"),
        ("ask", "x {{item}}", "--item", "one", "--item", "one"),
        ("ask", "x", "--model", "gpt-7"),
        ("ask", "x", "--provider", "nobody"),
        ("ask", "x", "--json", "--max-tokens", "0"),
        ("doctor", "--prob"),
        ("models", "--provider", "nobody"),
        ("models", "--model", "gpt-7"),
        ("files", "shred"),
        ("files", "--provider", "nobody"),
        ("files", "--older-than-days", "-1"),
        ("install", "notepad"),
        ("install", "cursor", "--env", "KIMI_NO_SUCH=1"),
        ("install", "cursor", "--env", "KIMI_MAX_CONCURRENCY=lots"),
        ("uninstall", "cursor", "--name", "1"),
        ("policy", "check", "no such file"),
        ("policy", "check", __file__),
        ("policy", "check", "-", "--provider", "nobody"),
        ("route", "x", "--images", "-1"),
        ("runs", "show"),
        ("runs", "--status", "dead"),
        ("runs", "prune", "--days", "-1"),
        ("selfhost", "--ram-gb", "-1"),
        ("simulator", "--provider", "nobody"),
        ("simulator", "--port", "70000"),
        ("shout",),
    ],
)
async def test_wrong_usage_ends_with_two_and_a_sentence_in_the_words_of_a_shell(
    sim: Simulator, command: tuple[str, ...]
) -> None:
    ended = await kimi(*command, settings=to(sim))
    assert ended.status == 2, ended.err
    assert ended.err
    assert not re.search(rf"\bkimi_(?!mcp)\w+|`(?:{'|'.join(OPTIONS)})\b", ended.err), ended.err
    assert not [request for request in sim.requests if request.method == "POST"]


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (("ask", "x"), KEYLESS),
        (("ask", "x"), {"KIMI_PROVIDER": "nobody"}),
        (("ask", "x"), {"KIMI_PROVIDER": "simulator", "KIMI_MODEL": "gpt-7"}),
        (("ask", "x", "--conversation", "conv_none"), {"KIMI_PROVIDER": "simulator"}),
        (("ask", "x", "--image", "/no/such.png"), {"KIMI_PROVIDER": "simulator"}),
        (("files",), KEYLESS),
        (("runs", "show", "run_none"), {}),
        (("runs", "cancel", "run_none"), {}),
        (("runs", "resume", "run_none"), {}),
        (("runs",), {"KIMI_JOURNAL": "off"}),
        (("doctor",), {}),
    ],
)
async def test_a_failure_that_is_no_wrong_usage_ends_with_one(
    command: tuple[str, ...], settings: dict[str, str]
) -> None:
    ended = await kimi(*command, settings=settings)
    assert ended.status == 1, ended.out + ended.err


async def test_which_of_several_pictures_is_wrong_is_named_by_its_number(sim: Simulator, tmp_path: Path) -> None:
    wrong = tmp_path / "b.png"
    wrong.write_text("no picture")
    ended = await kimi("ask", "x", "--image", "data:image/png;base64,", "--image", str(wrong), settings=to(sim))
    assert re.match(r"kimi-mcp: --image number [12]: ", ended.err), ended.err
    empty = await kimi("ask", "x", "--image", str(wrong), "--image", "", settings=to(sim))
    assert empty.err.startswith("kimi-mcp: --image number 2 is empty."), empty.err
