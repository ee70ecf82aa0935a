"""A PDF of 500 pages, read here: seconds from the call to its text, and the peak of the process that reads it.

The rounds run in a Python of their own, whose only children are the processes that read: the peak of the largest is
theirs. Beside it the library alone, in one process that has it imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.processes import ROOT
from benchmarks.report import Row, row

PAGES, ROUNDS = 500, 5

_PROGRAM = """
import json, resource, time
import anyio
import pypdfium2
from kimi_mcp.media.content import Content
from kimi_mcp.media.documents.pdf import PdfReader
from tests.media.documents import lines, pdf

data = pdf(*lines(range({pages}), each=55))
content = Content(size=len(data), read_at=lambda at, length: data[at : at + length])
reader, ours, theirs = PdfReader(), [], []
for _ in range({rounds}):
    began = time.perf_counter()
    text = anyio.run(reader.text, "it", content, None)
    ours.append(time.perf_counter() - began)
    assert "[page {pages}]" in text
    began = time.perf_counter()
    for page in pypdfium2.PdfDocument(data):
        page.get_textpage().get_text_bounded()
    theirs.append(time.perf_counter() - began)
print(json.dumps([ours, theirs, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


def measure(*, quick: bool) -> Iterator[Row]:
    program = _PROGRAM.format(pages=PAGES, rounds=1 if quick else ROUNDS)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    ours, theirs, peak = json.loads(done.stdout)
    what = f"text of a PDF of {PAGES} pages"
    yield row(f"{what}, s", ours, "the library alone", theirs)
    yield Row(what=f"{what}, slowest, s", ours=max(ours), most=2.0)
    yield Row(what=f"{what}, peak of its process, MB", ours=peak, most=150.0)
