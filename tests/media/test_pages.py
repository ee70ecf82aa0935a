"""What a web page says, as text; and that no page takes long, whatever it holds."""

from __future__ import annotations

import pytest

from kimi_mcp.core.errors import MediaRejected
from kimi_mcp.media.pages import page_text


def text_of(page: str | bytes, content_type: str = "text/html", charset: str = "") -> str:
    data = page if isinstance(page, bytes) else page.encode()
    return page_text(data, content_type=content_type, charset=charset, url="https://a.example/docs/x")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<title>T</title><p>One<p>Two<br>three", "T\n\nOne\nTwo\nthree"),
        ("<b>a</b>   <i>b</i>\n\n\n\n<div>c</div>", "a b\n\nc"),
        ("<p>1 < 2 &amp;&lt;tag&gt; &#228; &#99999999999;", "1 < 2 &<tag> ä &#99999999999;"),
        ("<script>if (a<b) {}</script>x<STYLE>p{}</style>y<!-- no -->z", "xyz"),
        (
            '<a href="/y?q=1&amp;r=2#top">link</a> <A HREF=z.html>z</A>',
            "link <https://a.example/y?q=1&r=2> z <https://a.example/docs/z.html>",
        ),
        ('<a href="javascript:alert(1)">no</a><a name=x>no</a>', "nono"),
        ("<p>cut <script>never closed", "cut"),
        ("<p>cut <a href='", "cut"),
    ],
)
def test_a_page_is_what_its_reader_sees(page: str, text: str) -> None:
    assert text_of(page) == text


def test_a_page_is_decoded_as_it_says() -> None:
    assert text_of("<p>é".encode("latin-1"), charset="iso-8859-1") == "é"
    assert text_of(b"<meta charset=windows-1252><p>\xe9") == "é"
    assert text_of("<p>é".encode(), charset="no-such-thing") == "é"
    assert text_of(b"<p>\xff", charset="rot13") == "\ufffd"


def test_other_text_is_verbatim() -> None:
    assert text_of('{"a": "<b>"}', "application/json") == '{"a": "<b>"}'
    assert text_of("<not html>", "text/plain") == "<not html>"


@pytest.mark.parametrize(
    ("data", "kind"), [(b"%PDF-", ""), (b"a\0b", "text/html"), (b"x", "image/png"), (b"x", "font/ttf")]
)
def test_what_is_no_text_is_refused(data: bytes, kind: str) -> None:
    with pytest.raises(MediaRejected):
        text_of(data, kind)


@pytest.mark.parametrize(
    "part",
    ["<a", "<!--", "<script>", "<", "&#", '<a href="', "<p ", " \n", "<a href=x>", "&", "<meta charset=", "é<svg>"],
)
def test_no_page_takes_longer_than_its_length(part: str) -> None:
    text_of(part * (200_000 // len(part)))  # what took quadratic time would take minutes
