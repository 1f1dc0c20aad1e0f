"""Differences with their intervals as SVG, on a page or in a file of their own: measured here filled, quoted hollow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlakit.compare.grids import p_text
from vlakit.compare.pairs import Settings
from vlakit.compare.versus import Judged
from vlakit.errors import InvalidData
from vlakit.files import write_atomically
from vlakit.reports.page.html_page import Scale, render, scale_of
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

    @property
    def marks(self) -> list[tuple[str, float, tuple[float, float] | None]]:
        """(kind, difference, interval) of what is drawn."""
        spans = {"measured": self.measured, "quoted": self.quoted}
        return [(kind, *span) for kind, span in spans.items() if span]

    @property
    def verdict(self) -> str:
        """With its p."""
        if self.judged is None:
            return "not measured here"
        p = "" if self.judged.p_holm is None else f"; p\xa0(Holm)\xa0{p_text(self.judged.p_holm)}"
        return f"{self.judged.verdict}{p}"


def differences(report: TableReport) -> list[Difference]:
    """Each row against the reference, then the claims' further pairs."""
    by_pair = {} if report.source == PAPER else {(j.a, j.b): j for j in report.pairs}
    printed = {row.row.name: row.printed for row in report.rows}
    z = quantile(report.settings.confidence)
    drawn: list[Difference] = []
    for a, b in report.spec.pairs:
        judged = by_pair.get((a, b))
        measured = (judged.finding.difference, judged.finding.interval) if judged else None
        drawn.append(Difference(a, b, measured, _quoted(printed.get(a), printed.get(b), z), judged))
    return drawn


def _quoted(a: Quoted | None, b: Quoted | None, z: float) -> Span | None:
    """From printed rates and standard errors, of one part of the paper."""
    if a is None or b is None or a.scope != b.scope:
        return None
    d, half = a.rate - b.rate, z * (a.error**2 + b.error**2) ** 0.5
    return d, (d - half, d + half)


def draw_forest(report: TableReport, file: Path) -> Path:
    """Write the picture of a table. Raises InvalidData when nothing is compared."""
    forest = typeset_forest(differences(report), report.settings, report.score)
    if forest is None:
        raise InvalidData("no difference to draw", where=report.spec.name, do=report.spec.sweep or "run its rows first")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, render("forest.svg.j2", title=report.spec.title, forest=forest))
    return file


@dataclass(frozen=True)
class Forest:
    """Differences of a score, in points; level: of the intervals; margin: below it a difference counts as none."""

    pairs: Sequence[Difference]
    scale: Scale
    level: str
    margin: float
    score: str

    def at(self, fraction: float) -> float:
        """Place of a difference in per cent."""
        return self.scale.at(100 * fraction)

    @property
    def measured(self) -> bool:
        """Whether anything in it was measured here."""
        return any(pair.measured for pair in self.pairs)


def typeset_forest(pairs: Sequence[Difference], settings: Settings, score: str) -> Forest | None:
    """None where nothing is compared."""
    marks = [mark for pair in pairs for mark in pair.marks]
    if not marks:
        return None
    edge = 100 * settings.margin
    ends = [100 * end for _, difference, interval in marks for end in (difference, *(interval or ()))]
    return Forest(pairs, scale_of([*ends, -edge, edge]), f"{100 * settings.confidence:g} %", settings.margin, score)
