"""Makes the text of a web page that was fetched. Pure, no I/O; takes time in proportion to the page, whatever it holds.

The standard library's parser takes quadratic time for some pages: here a search that finds no end ends the page.
"""

from __future__ import annotations

import codecs
import html
import re
from contextlib import suppress
from typing import Final
from urllib.parse import urljoin

from kimi_mcp.core.errors import MediaRejected

LONGEST_TAG: Final = 8_192
"""Characters of a tag that are read; the attributes of a longer one are not looked at."""

_TEXTS: Final = re.compile(r"text/.*|application/(?:.*\+)?(?:json|xml)|application/(?:javascript|x-ndjson|yaml|toml)|")
"""Types that are text; a page without a label is taken for one, until its content says otherwise."""

_NO_TEXTS: Final = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7"})
"""Codecs of Python that no page is written in."""

_HTML: Final = ("text/html", "application/xhtml+xml", "")
_HIDDEN: Final = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "textarea", "select"})
_BLOCKS: Final = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figure", "footer", "form", "header"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "title"}
    | {"tr", "ul"}
)
_NAME: Final = re.compile(r"/?[a-zA-Z][a-zA-Z0-9-]{0,30}")
_HREF: Final = re.compile(r"\bhref\s{0,9}=\s{0,9}(?:\"([^\"]{1,2000})\"|'([^']{1,2000})'|([^\s\"'>]{1,2000}))", re.I)
_META_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_.:-]{1,40})", re.I)
_DIGITS: Final = re.compile(r"&#(?=[0-9]{10}|[xX][0-9a-fA-F]{9})")
_SPACES: Final = re.compile(r"[^\S\n]+")
_LINES: Final = re.compile(r"\n[\n ]*\n")


def page_text(data: bytes, *, content_type: str, charset: str, url: str) -> str:
    """The text of a page: of HTML what a reader sees, with the targets of its links; of other text all of it.

    ``url``: where relative links count from. Raises ``MediaRejected`` for what is no text.
    """
    binary = data.startswith(b"%PDF-") or (b"\0" in data[:1024] and not charset.startswith("utf-16"))
    if binary or not _TEXTS.fullmatch(content_type):
        raise MediaRejected(
            f"The page is no text: found {content_type or 'binary content'}, expected HTML or other text.",
            fix="Look for a page that has it as text.",
        )
    text = _decoded(data, charset)
    is_html = content_type in _HTML and "<" in text[:1024]
    return _readable(text, url) if is_html else text


def _decoded(data: bytes, charset: str) -> str:
    found = _META_CHARSET.search(data[:4096])
    for name in (charset, found[1].decode("ascii").lower() if found else "", "utf-8-sig"):
        with suppress(LookupError, ValueError):
            if name and codecs.lookup(name).name not in _NO_TEXTS:
                return data.decode(name, "replace")
    return data.decode("utf-8", "replace")


def _readable(page: str, url: str) -> str:
    """The text between the tags."""
    lower, parts, at, link = page.lower() if page.isascii() else _lowered(page), list[str](), 0, ""
    while True:
        start = page.find("<", at)
        parts.append(page[at:] if start < 0 else page[at:start])
        if start < 0:
            break
        if page.startswith("<!--", start):
            end = page.find("-->", start + 4)
            if end < 0:
                break
            at = end + 3
            continue
        name = _NAME.match(page, start + 1)
        if name is None and page[start + 1 : start + 2] not in ("!", "?", "/"):
            parts.append("<")
            at = start + 1
            continue
        end = page.find(">", start)
        if end < 0:
            break
        at, tag = end + 1, "" if name is None else name[0].lower()
        if tag in _HIDDEN:
            close = lower.find(f"</{tag}", at)
            if close < 0:
                break
            at = close
        elif tag.removeprefix("/") in _BLOCKS:
            parts.append("\n")
        elif tag == "a":
            found = _HREF.search(page, start, min(end, start + LONGEST_TAG))
            link = _absolute(url, next(filter(None, found.groups()), "")) if found else ""
        elif tag == "/a" and link:
            parts.append(f" <{link}>")
            link = ""
    text = _SPACES.sub(" ", "".join(parts))
    text = html.unescape(_DIGITS.sub("&amp;#", text))  # a number of many digits is no letter, and can't be read
    return _LINES.sub("\n\n", "\n".join(line.strip() for line in text.split("\n"))).strip()


def _lowered(page: str) -> str:
    """The page in lower case, letter by letter: as long as it was."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in page)


def _absolute(url: str, target: str) -> str:
    """The http or https URL that a link leads to; empty for any other."""
    with suppress(ValueError):
        found = urljoin(url, html.unescape(_DIGITS.sub("&amp;#", target)).strip())
        if found.startswith(("https://", "http://")):
            return found.partition("#")[0]
    return ""
