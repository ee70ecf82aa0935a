"""The table: what was measured, beside what, against which target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    """What was measured, with its unit."""
    ours: float
    """Our figure: the median of its rounds."""
    beside: str = ""
    """What it is held against."""
    theirs: float | None = None
    """The same figure of that: the median of its rounds."""
    ratio: float | None = None
    """The median of the rounds' own ratios: what slows the machine down for a while slows both."""
    most: float | None = None
    """The target: the largest ratio, or without one the largest figure; None: there is none."""

    @property
    def held(self) -> bool | None:
        """Whether the target is held; None: there is none."""
        measured = self.ours if self.ratio is None else self.ratio
        return None if self.most is None else measured <= self.most


def row(what: str, ours: Sequence[float], beside: str, theirs: Sequence[float], most: float | None = None) -> Row:
    """A line from the rounds of both sides, measured in turn."""
    ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
    return Row(what=what, ours=median(ours), beside=beside, theirs=median(theirs), ratio=ratio, most=most)


def table(rows: Iterable[Row]) -> str:
    """The lines, aligned."""
    cells = [("what", "ours", "beside", "theirs", "ratio", "target", "held")]
    for each in rows:
        held = "" if each.held is None else "yes" if each.held else "NO"
        target = "" if each.most is None else f"≤ {each.most:.3g}"
        cells.append(
            (each.what, _figure(each.ours), each.beside, _figure(each.theirs), _figure(each.ratio), target, held)
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = (0, 2, 6)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
