"""HTML pages that load nothing: Jinja fills `templates/` and escapes every value. Pictures are SVG.

Positions in a picture are per cent of its width, so that it fits a phone while its words keep their size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vlakit.compare.grids import gain, gain_limits, p_text
from vlakit.compare.pairs import Settings
from vlakit.reports.tables.forest import Difference, Span

if TYPE_CHECKING:
    from vlakit.compare.grids import Grid


def render(template: str, **values: Any) -> str:
    """A page in ASCII, so that no shell or editor can spoil its letters."""
    return _environment().get_template(template).render(**values).encode("ascii", "xmlcharrefreplace").decode()


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"kinds": kinds, "typeset": typeset}
    return found


def kinds(grid: Grid) -> list[str]:
    """CSS classes of each column: words flush left, quoted figures set apart."""
    marks = [
        ("word" if grid.wordy(i) else "", "quoted" if name in grid.quoted else "") for i, name in enumerate(grid.header)
    ]
    return [" ".join(filter(None, pair)) for pair in marks]


def typeset(word: str, kind: str = "") -> str:
    """A cell as printers set it.

    >>> typeset("-3.2 to +1.0"), typeset("69.7 +- 7.2"), typeset("-"), typeset("a-1", "word")
    ('\u22123.2 to +1.0', '69.7 \xb1 7.2', '\u2013', 'a-1')
    """
    if word == "-":
        return "\u2013"
    if "word" in kind:
        return word
    return re.sub(r"(?<![^\s(])-(?=\d| \S)", "\u2212", word.replace("+-", "\xb1"))


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with ticks at round values."""

    low: float
    high: float
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """Per cent of the way from low to high."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def labels(self) -> list[tuple[float, str]]:
        """(place in per cent, word) of each tick."""
        return [(self.at(tick), f"{tick:,.7g}") for tick in self.ticks]


def scale_of(values: Sequence[float], *, whole: bool = False) -> Scale:
    """Round limits that hold all values; whole: ticks at integers."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    ticks = [
        round(float(tick), 12)
        for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    ]
    return Scale(ticks[0], ticks[-1], ticks)


@dataclass(frozen=True)
class Mark:
    """One difference with its interval: `kind` measured or quoted, places in per cent, and in words."""

    kind: str
    at: float
    low: float | None
    high: float | None
    number: str
    interval: str


@dataclass(frozen=True)
class Pair:
    """One line of a forest plot."""

    a: str
    b: str
    said: str
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Forest:
    """Differences on one scale; margin: (left edge, width) of what counts as none."""

    pairs: Sequence[Pair]
    scale: Scale
    margin: tuple[float, float]
    level: str
    points: float

    @property
    def measured(self) -> bool:
        """Whether anything in it was measured here."""
        return any(mark.kind == "measured" for pair in self.pairs for mark in pair.marks)


def typeset_forest(found: Sequence[Difference], settings: Settings) -> Forest | None:
    """None where nothing is compared."""
    spans = [span for d in found for span in (d.measured, d.quoted) if span]
    if not spans:
        return None
    edge = 100 * settings.margin
    ends = [100 * end for d, interval in spans for end in (d, *(interval or ()))]
    scale = scale_of([*ends, -edge, edge])
    pairs = [Pair(d.a, d.b, _said(d), [_mark(kind, span, scale) for kind, span in _spans(d) if span]) for d in found]
    margin = scale.at(-edge), round(scale.at(edge) - scale.at(-edge), 2)
    return Forest(pairs, scale, margin, f"{100 * settings.confidence:g} %", edge)


def _spans(d: Difference) -> list[tuple[str, Span | None]]:
    return [("measured", d.measured), ("quoted", d.quoted)]


def _said(d: Difference) -> str:
    if d.judged is None:
        return "not measured here"
    p = "" if d.judged.p_holm is None else f"; p\xa0(Holm)\xa0{p_text(d.judged.p_holm)}"
    return f"{d.judged.verdict.replace('a better', f'{d.a} better').replace('b better', f'{d.b} better')}{p}"


def _mark(kind: str, span: Span, scale: Scale) -> Mark:
    d, interval = span
    low, high = (scale.at(100 * end) for end in interval) if interval else (None, None)
    words = typeset(gain_limits(interval)) if interval else "no interval"
    return Mark(kind, scale.at(100 * d), low, high, typeset(gain(d)), words)
