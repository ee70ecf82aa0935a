"""The pages that stand in for the live page: a form to sign in, and a sentence to who is refused. Pure, no I/O.

They load nothing, hold no script, and repeat nothing of the request.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Final

from starlette.responses import HTMLResponse

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; padding: 12vh 1rem 2rem; color: #1c1e21; background: #fff; }
main { max-width: 26rem; margin: 0 auto; }
h1 { font-size: 1.3rem; margin: 0 0 .75rem; }
label { display: block; font-weight: 600; margin-top: 1.25rem; }
input, button { box-sizing: border-box; width: 100%; font: inherit; padding: .6rem .75rem; border-radius: .4rem; }
input { margin: .35rem 0 1rem; border: 1px solid #767b85; background: transparent; color: inherit; }
button { border: 0; background: #3049b0; color: #fff; font-weight: 600; cursor: pointer; }
:focus-visible { outline: 3px solid #3049b0; outline-offset: 2px; }
.error { border-left: .25rem solid #b3261e; padding-left: .75rem; }
code { overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e9; background: #16181d; }
  button { background: #a9baff; color: #10131c; }
  :focus-visible { outline-color: #a9baff; }
  .error { border-color: #ff8f86; }
}
"""

_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def message_page(status: int, title: str, *sentences: str) -> HTMLResponse:
    """A page that says why there is no other; what is between backticks becomes code."""
    return _page(status, title, "".join(f"<p>{_marked(each)}</p>" for each in sentences))


def sign_in_page(status: int, error: str = "") -> HTMLResponse:
    """A form for a token. It is sent to the address that shows it, whose hash the browser keeps.

    ``error``: why the last one did not do.
    """
    why = f'<p class="error" role="alert">{_marked(error)}</p>' if error else ""
    page = _page(
        status,
        "Sign in to kimi-mcp",
        f"{why}<p>Give the token with which you call this server. You then see your own runs.</p>"
        '<form method="post"><label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" spellcheck="false" '
        'autocapitalize="none" required autofocus><button>Sign in</button></form>',
    )
    # With no-referrer a browser would hide from us, too, which page the form is on.
    page.headers["Referrer-Policy"] = "same-origin"
    return page


def _page(status: int, title: str, body: str) -> HTMLResponse:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return HTMLResponse(text, status, {"Content-Security-Policy": _POLICY})


def _marked(sentence: str) -> str:
    parts = escape(sentence).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
