"""Answers as Markdown: which elements a text becomes, and that no text hangs the page or becomes markup."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from playwright.async_api import Locator

from kimi_mcp.core.outcome import Outcome
from kimi_mcp.view.documents import still_document
from kimi_mcp.view.lanes import trace
from kimi_mcp.view.model import run_view
from tests.browser.watching import Watched
from tests.view.recorded import run

pytestmark = pytest.mark.soak

CASES = {
    "# One\n\n## Two ##\n\nThree\n===": "<h3>One</h3><h4>Two</h4><h3>Three</h3>",
    "a *b* __c__ ***d*** ~~e~~ f_g_h 2 * 3": "<p>a <em>b</em> <strong>c</strong> <em><strong>d</strong></em> "
    "<del>e</del> f_g_h 2 * 3</p>",
    "one\ntwo  \nthree\\\nfour": "<p>one\ntwo<br>three<br>four</p>",
    "`a <b>` ``c ` d``": "<p><code>a &lt;b&gt;</code> <code>c ` d</code></p>",
    "```py\nx = 1\n\n  y\n```\nz": '<pre tabindex="0"><code>x = 1\n\n  y</code></pre><p>z</p>',
    "- a\n- b\n  1. c\n  2. d\n- [x] e": '<ul><li>a</li><li>b<ol start="1"><li>c</li><li>d</li></ol></li>'
    "<li>☑ e</li></ul>",
    "3. a\n\n   b\n4. c": '<ol start="3"><li><p>a</p><p>b</p></li><li><p>c</p></li></ol>',
    "> a\n> > b\n\nc": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
    "a | b\n--|:-:\n`x\\|y` | **z**": '<div class="scroll" tabindex="0"><table><thead><tr><th>a</th><th>b</th></tr>'
    "</thead><tbody><tr><td><code>x|y</code></td><td><strong>z</strong></td></tr></tbody></table></div>",
    "a | b\n--|--\n1 | 2 | 3\n4 |": '<div class="scroll" tabindex="0"><table><thead><tr><th>a</th><th>b</th></tr>'
    "</thead><tbody><tr><td>1</td><td>2</td></tr><tr><td>4</td></tr></tbody></table></div>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "<b>bold</b> &lt;i&gt; a<br>b": "<p>&lt;b&gt;bold&lt;/b&gt; &lt;i&gt; a<br>b</p>",
    "\\*no\\* &amp; &hellip; &bogus; &constructor;": "<p>*no* &amp; … &amp;bogus; &amp;constructor;</p>",
}

LINKS = {
    "[a](https://one.example/x)": [("https://one.example/x", "a (one.example)")],
    "https://one.example/a_(b).": [("https://one.example/a_(b)", "https://one.example/a_(b)")],
    "<mail@one.example>": [("mailto:mail@one.example", "mail@one.example")],
    "[a] and [b][A]\n\n[a]: http://one.example": [
        ("http://one.example/", "a (one.example)"),
        ("http://one.example/", "b (one.example)"),
    ],
    "[https://bank.example](https://evil.example)": [("https://evil.example/", "https://bank.example (evil.example)")],
    "https://bank.example@evil.example/": [
        ("https://bank.example@evil.example/", "https://bank.example@evil.example/ (evil.example)")
    ],
    "![a](http://one.example/x.png)": [("http://one.example/x.png", "🖼 a (one.example)")],
    "[![a](http://one.example/x.png)](http://two.example)": [("http://two.example/", "🖼 a (two.example)")],
    "[a](javascript:alert(1)) [b](data:text/html,x) [c](/ui) [d](//evil.example) [e](&#106;avascript:x)": [],
}

HOSTILE = {
    "brackets": "[" * 8000,
    "stars": "*a " * 3000,
    "ticks": "`a" * 4000,
    "quotes": "> " * 3000 + "x",
    "lists": "- " * 3000 + "x",
    "images": "![[" * 2000,
    "targets": "[a](" * 2000,
    "columns": "|" * 4000 + "\n" + "|-" * 4000,
    "parentheses": "(" * 6000 + "http://x" + ")" * 6000,
    "hashes": "#" + " #" * 4000,
    "titles": '[x](a "' * 2000,
    "backslashes": "\\" * 8001,
    "blanks": " \n" * 4000 + "x",
    "cells": "|a" * 2000 + "|\n" + "|-" * 2000 + "|\n" + "|x|\n" * 2000,
    "line separators": "#" + " " * 60_000 + "\u2028x",
    "a heading's end": "# a" + " " * 60_000 + "b",
    "a target's begin": "[a](" + " " * 60_000 + "x",
    "a rule's end": "a|b\n-" + " " * 60_000 + "x",
    "a line's end": "a" + " " * 80_000 + "b\nc",
    "code": "`" + " " + "x" * 100_000 + "`",
}

PIECES = (
    "*,**,_,`,```\n,[,](,](http://x),),!,<,>,> ,- ,1. ,\n,\n\n,  ,    ,a,word ,|,|-|-|\n,#,# ,~~,\\,&amp;,http://a.b/"
)
PIECES += ",---\n,===\n,[x]: y\n,\t,☃,𝒳,<script>,<img src=x onerror=alert(1)>,javascript:"

NAMES = "div h3 h4 h5 p pre code ul ol li blockquote hr br table thead tbody tr th td strong em del a span"


async def shown(watch: Watched, folder: Path, answer: str) -> Locator:
    """The answer in the file of a run, opened."""
    record = run(tool="kimi_think", outcome=Outcome(status="completed", answer=answer))
    file = folder / "run.html"
    file.write_text(still_document(run_view(record, trace(record, ()), inline=True)), "utf-8")
    await watch.goto(file.as_uri())
    found = watch.page.locator(".markdown")
    await found.wait_for()
    return found


async def test_markdown_becomes_the_elements_that_it_means(watch: Watched, tmp_path: Path) -> None:
    found = {text: await (await shown(watch, tmp_path, text)).inner_html() for text in CASES}
    assert found == {text: f"<div>{elements}</div>" for text, elements in CASES.items()}


async def test_a_link_leads_out_and_shows_where_to(watch: Watched, tmp_path: Path) -> None:
    for text, expected in LINKS.items():
        answer = await shown(watch, tmp_path, text)
        links = await answer.locator("a").evaluate_all("all => all.map((a) => [a.getAttribute('href'), a.textContent])")
        assert [tuple(link) for link in links] == expected
        assert await answer.locator("a:not([rel='noopener noreferrer nofollow'][target=_blank])").count() == 0
        assert await answer.locator("img").count() == 0


async def test_a_text_that_is_made_to_hang_its_reader_is_shown(watch: Watched, tmp_path: Path) -> None:
    for text in HOSTILE.values():
        await shown(watch, tmp_path, text)


async def test_texts_at_random_become_none_but_the_elements_of_markdown(watch: Watched, tmp_path: Path) -> None:
    chosen = random.Random(7)
    texts = ["".join(chosen.choices(PIECES.split(","), k=25)) for _ in range(2_000)]
    answer = await shown(watch, tmp_path, "\n\n\nand\n\n".join([*texts, "the end"]))
    await answer.get_by_text("the end").wait_for()
    names = await answer.locator("*").evaluate_all("all => [...new Set(all.map((each) => each.localName))]")
    assert set(names) <= set(NAMES.split())


async def test_a_long_answer_is_shown_to_its_end(watch: Watched, tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {number} of **many**. {'word ' * 40}" for number in range(400)]
    answer = await shown(watch, tmp_path, "\n\n".join(paragraphs))
    await answer.get_by_text("Paragraph 399 of").wait_for()
    found = re.findall(r"Paragraph (\d+) of", await answer.inner_text())
    assert found == [str(number) for number in range(400)]
