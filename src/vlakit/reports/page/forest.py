"""Differences with their intervals as SVG, on a page or in a file of their own: measured here filled, quoted hollow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlakit.compare.grids import gain, gain_limits, p_text
from vlakit.compare.pairs import Settings
from vlakit.compare.versus import Judged
from vlakit.errors import InvalidData
from vlakit.files import write_atomically
from vlakit.reports.page.html_page import Scale, render, scale_of, typeset
from vlakit.reports.tables.quoted import Quoted
from vlakit.reports.tables.table import PAPER, TableReport
from vlakit.stats.intervals import quantile

Span = tuple[float, tuple[float, float] | None]  # a difference and its interval, fractions


@dataclass(frozen=True)
class Difference:
    """Success of a minus that of b: measured here, and as the paper prints it; None where it is not."""

    a: str
    b: str
    measured: Span | None
    quoted: Span | None
    judged: Judged | None = None


def differences(report: TableReport) -> list[Difference]:
    """Each row against the reference, then the claims' further pairs."""
    own = {} if report.source == PAPER else {(j.a, j.b): j for j in report.pairs}
    printed = {row.row.name: row.printed for row in report.rows}
    z = quantile(report.settings.confidence)
    found: list[Difference] = []
    for a, b in report.spec.pairs:
        judged = own.get((a, b))
        measured = (judged.finding.difference, judged.finding.interval) if judged else None
        found.append(Difference(a, b, measured, _quoted(printed.get(a), printed.get(b), z), judged))
    return found


def _quoted(a: Quoted | None, b: Quoted | None, z: float) -> Span | None:
    """From printed rates and standard errors, of one part of the paper."""
    if a is None or b is None or a.scope != b.scope:
        return None
    d, half = a.rate - b.rate, z * (a.error**2 + b.error**2) ** 0.5
    return d, (d - half, d + half)


def draw_forest(report: TableReport, file: Path) -> Path:
    """Write the picture of a table. Raises InvalidData when nothing is compared."""
    forest = typeset_forest(differences(report), report.settings)
    if forest is None:
        raise InvalidData("no difference to draw", where=report.spec.name, do=report.spec.sweep or "run its rows first")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, render("forest.svg.j2", title=report.spec.title, forest=forest))
    return file


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
