"""What axe-core finds wrong with a page for people who can't see it, or can't use a mouse. I/O: npm, once."""

from __future__ import annotations

from functools import cache
from typing import Any

from playwright.async_api import Page

from tests.npm import AXE, NPM

SERIOUS = ("serious", "critical")

RUN = """
() => axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map((each) => ({
  impact: each.impact, rule: each.id, help: each.help,
  where: each.nodes.slice(0, 5).map((node) => `${node.target.join(" ")}: ${node.failureSummary}`),
})))
"""


@cache
def _source() -> str:
    return (NPM.path_of(AXE) / "axe-core" / "axe.min.js").read_text("utf-8")


async def serious(page: Page) -> list[dict[str, Any]]:
    """The serious findings; skips the test where axe can't be had."""
    # A page whose policy lets no foreign script in is looked at from outside.
    await page.evaluate(_source())
    found: list[dict[str, Any]] = await page.evaluate(RUN)
    return [each for each in found if each["impact"] in SERIOUS]
