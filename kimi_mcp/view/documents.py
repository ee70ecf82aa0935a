"""Makes the three documents of the view, and what they load, from the files in ``assets``. Reads the package's files.

The scripts are ES modules. A document gets those that its entry needs, joined to one module: imports go before what
imports them, and the lines ``import`` and ``export`` go away. For that every module keeps to a convention:

- it imports names from modules beside it (``import { a, b } from "./x.js";``), before anything else;
- it exports functions, classes and constants where it declares them (``export function …``);
- no two modules declare one name at the top level;
- a comment has its lines to itself, and no template's text depends on the indentation of its lines.

Comments and indentation are left out of what is sent.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).with_name("assets")
"""The folder of the view's sources."""

LIBRARIES = ("preact.js", "preact-hooks.js", "htm.js")
"""Files of ``assets/vendor``, in the order in which they are loaded: scripts that set a global each."""

ENTRIES = ("live", "still", "host")
"""The modules that a document begins with: a server's page, a file, an MCP App."""

STYLES = ("base.css", "list.css", "run.css")
"""Style sheets of ``assets``, in their order."""

SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"

_IMPORT = re.compile(r'^import \{([\w\s,]+)\} from "\./([\w-]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function\*? |class |const )", re.MULTILINE)
_COMMENT = re.compile(r"^\s*(?:/\*(?:(?!\*/).)*\*/|//[^\n]*)[ \t]*\n", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^[ \t]+|\n(?=\s*\n)", re.MULTILINE)
_DECLARED = re.compile(r"^(?:export )?(?:(?:async )?function\*?|class|const|let) (\w+)", re.MULTILINE)


def live_document(base: str = "/ui") -> str:
    """The page of a server, served at ``base``: an empty shell, which loads ``asset`` files and asks for data."""
    head = [f"<link rel='stylesheet' href='{_address(base, 'view.css')}'>"]
    head += [f"<script src='{_address(base, 'library.js')}' defer></script>"]
    head += [f"<script type='module' src='{_address(base, 'live.js')}'></script>"]
    return _document("", "\n".join(head), base)


def still_document(data: Mapping[str, Any]) -> str:
    """One file that shows ``data``, a run of the view model with its steps' texts. Nothing is loaded."""
    shown = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Within a script element nothing but "</script" and "<!--" means anything; no text keeps its "<".
    inert = shown.replace("<", "\\u003c")
    return _one_file("still", f"<script type='application/json' id='data'>{inert}</script>")


def app_document() -> str:
    """The document of MCP Apps: it gets a run from the host that shows it. Nothing is loaded."""
    return _one_file("host")


def asset(name: str) -> tuple[bytes, str]:
    """A file that the live document loads, and its content type. Raises ``KeyError`` for another name."""
    text, content_type = _assets()[name]
    return text.encode(), content_type


def asset_hash(name: str) -> str:
    """Identifies a file's content in its address: one may keep it for ever. Raises ``KeyError`` like ``asset``."""
    return sha256(asset(name)[0]).hexdigest()[:16]


@cache
def _assets() -> dict[str, tuple[str, str]]:
    return {"view.css": (_styles(), STYLE), "library.js": (_libraries(), SCRIPT), "live.js": (joined("live"), SCRIPT)}


def _address(base: str, name: str) -> str:
    return f"{escape(base, quote=True)}/assets/{name}?v={asset_hash(name)}"


def _one_file(entry: str, body: str = "") -> str:
    style, library, script = _styles(), _inline(_libraries()), _inline(joined(entry))
    policy = (
        f"default-src 'none'; script-src {_source(library)} {_source(script)}; style-src {_source(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return _document(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<style>{style}</style>\n{body}\n<script>{library}</script>\n<script type='module'>{script}</script>",
    )


def _document(policy: str, head: str, base: str = "") -> str:
    shell = (ASSETS / "index.html").read_text("utf-8")
    # In one pass: what a part contains is not looked at for other marks.
    parts = {"POLICY": policy, "HEAD": head, "BASE": escape(base, quote=True)}
    return re.sub(r"<!-- (POLICY|HEAD) -->|\{(BASE)\}", lambda mark: parts[mark[1] or mark[2]], shell)


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _inline(script: str) -> str:
    """A script for the inside of an element: both spellings mean the same in strings and regular expressions."""
    return script.replace("</script", "<\\/script").replace("<!--", "\\x3C!--")


def _libraries() -> str:
    return "\n".join((ASSETS / "vendor" / name).read_text("utf-8") for name in LIBRARIES)


def _styles() -> str:
    return "".join(_squeezed((ASSETS / name).read_text("utf-8")) for name in STYLES)


def joined(entry: str) -> str:
    """The module ``entry`` and all that it imports, as one.

    Raises ``ValueError`` where a module does not keep to the convention.
    """
    order: dict[str, str] = {}
    _collect(entry, order, ())
    owners: dict[str, str] = {}
    for name, source in order.items():
        for declared in _DECLARED.findall(source):
            if (other := owners.get(declared)) is not None:
                raise ValueError(f"{name}.js and {other}.js both declare {declared}")
            owners[declared] = name
    return "".join(_squeezed(_bare(name, source)) for name, source in order.items())


def _collect(name: str, order: dict[str, str], path: tuple[str, ...]) -> None:
    """Put a module after those that it imports."""
    if name in path:
        raise ValueError(f"{name}.js imports itself by way of {', '.join(path)}")
    if name in order:
        return
    source = (ASSETS / f"{name}.js").read_text("utf-8")
    for names, other in _IMPORT.findall(source):
        _collect(other, order, (*path, name))
        if missing := {part.strip() for part in names.split(",") if part.strip()} - set(_exported(order[other])):
            raise ValueError(
                f"{name}.js imports {', '.join(sorted(missing))} from {other}.js, which exports no such name"
            )
    order[name] = source


def _exported(source: str) -> list[str]:
    return re.findall(r"^export (?:async )?(?:function\*?|class|const) (\w+)", source, re.MULTILINE)


def _bare(name: str, source: str) -> str:
    bare = _EXPORT.sub("", _IMPORT.sub("", source))
    if left := re.search(r"^(import|export)\b.*", bare, re.MULTILINE):
        raise ValueError(f"{name}.js has a line that can't be joined: {left[0]}")
    return bare


def _squeezed(source: str) -> str:
    """Without the comments that have their lines to themselves, indentation and empty lines."""
    return _INDENT.sub("", _COMMENT.sub("", source)).lstrip("\n")
