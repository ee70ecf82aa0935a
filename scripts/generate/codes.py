"""The table of error codes: when each occurs, and what to do about it. Reads the package's own code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kimi_mcp.core import errors
from kimi_mcp.core.errors import KimiError
from scripts.generate.markdown import as_code, table

PACKAGE = Path(errors.__file__).parents[1]

NEXT: Mapping[str, str] = {
    "invalid_arguments": "Change the argument that `fix` names.",
    "policy_refused": "`rule` names the rule, `fix` what to change.",
    "not_configured": "Set the variable that `fix` names and restart the server.",
    "path_refused": "Name a file within the roots, or set KIMI_ROOTS. Keys and links are never read.",
    "url_refused": "Give a public https URL, or the path of a copy.",
    "media_rejected": "Follow `fix`: give a complete file, another format or a smaller one, or use the other tool.",
    "budget_exceeded": "Raise the limit that `fix` names, or wait for `retry_after_s` where it is there.",
    "run_not_found": "Call `kimi_run` without `run_id`: it lists the latest runs.",
    "auth_failed": "Check which platform the key was made for, and where KIMI_PROVIDER and KIMI_BASE_URL send it.",
    "quota_exhausted": "Top up the account, or set another KIMI_PROVIDER. Asking again does not help.",
    "rate_limited": "Wait, for `retry_after_s` where it is there. Or lower KIMI_MAX_CONCURRENCY or `max_tokens`: an "
    "account's limit counts requested tokens.",
    "overloaded": "Ask later, or set another KIMI_PROVIDER.",
    "model_not_served": "Leave `model` out, or name one that the provider serves.",
    "context_too_long": "Shorten the prompt, or name a model with a longer context.",
    "content_filtered": "Reword the prompt.",
    "upstream_timeout": "Ask again, or raise the timeout that `fix` names.",
    "upstream_broken": "Ask again; if it persists, look for a proxy that cuts streams.",
    "upstream_unreachable": "Check the network, the proxy variables and KIMI_BASE_URL.",
    "answer_cut_off": "Raise `max_tokens` to the number in `fix`, or ask for a shorter answer.",
    "cancelled": "Ask again if the answer is still wanted.",
    "internal": "Install it again where `message` says so; else report it with the server's log lines.",
}
"""What a caller can do about each code, in addition to the error's own ``fix``."""


def error_codes(package: Path = PACKAGE) -> str:
    """Every code that a package raises today: when, and what to do; then the codes that nothing raises yet, if any."""
    text = "\n".join(_code_in_use(package))
    raised: dict[str, list[type[KimiError]]] = {}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KimiError)]
    for kind in kinds:
        abstract = kind.code == KimiError.code and kind is not errors.Internal
        if not abstract and re.search(rf"\b{kind.__name__}\b", text):
            raised.setdefault(kind.code, []).append(kind)
    rows = [
        (
            f"`{code}`",
            " Or: ".join(str(kind.__doc__).replace("``", "`") for kind in kinds),
            " Or: ".join(dict.fromkeys("yes" if kind.retryable else "no" for kind in kinds)),
            NEXT[code],
        )
        for code, kinds in raised.items()
    ]
    head = ("code", "when", "may work later unchanged", "what to do")
    later = as_code(code for code in NEXT if code not in raised)
    return table(head, rows) + (f"\n\nReserved, and raised by nothing yet: {later}." if later else "")


def _code_in_use(package: Path) -> Iterable[str]:
    """The package's code and its rows of errors, without the errors themselves."""
    paths = (*package.rglob("*.py"), *package.rglob("errors.toml"))
    return (path.read_text("utf-8") for path in paths if path != Path(str(errors.__file__)))
