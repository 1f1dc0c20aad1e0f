"""Differences to the reference row with their intervals: measured here filled, the paper's (quoted) hollow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlakit.compare.versus import Judged
from vlakit.errors import InvalidData
from vlakit.reports.tables.quoted import Quoted
from vlakit.reports.tables.table import PAPER, TableReport
from vlakit.stats.intervals import quantile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Span = tuple[float, tuple[float, float] | None]  # a difference and its interval, fractions
Bar = tuple[str, float, tuple[float, float]]  # row, difference, interval; fractions


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
    """Write the picture. Raises InvalidData when nothing is compared."""
    import matplotlib

    matplotlib.use("Agg")  # files only, so that a machine without a screen can draw
    import matplotlib.pyplot as plt

    against = [d for d in differences(report) if d.b == report.spec.reference]
    measured = [(d.a, d.measured[0], d.measured[1]) for d in against if d.measured and d.measured[1]]
    quoted = [(d.a, d.quoted[0], d.quoted[1]) for d in against if d.quoted and d.quoted[1]]
    names = [row.row.name for row in report.rows if row.row.name in {bar[0] for bar in [*measured, *quoted]}]
    if not names:
        raise InvalidData("no difference to draw", where=report.spec.name, do=report.spec.sweep or "run its rows first")
    figure, axis = plt.subplots(figsize=(7.0, 0.55 * len(names) + 1.6))
    axis.axvline(0, color="black", lw=0.8)
    axis.axvspan(-100 * report.settings.margin, 100 * report.settings.margin, color="tab:gray", alpha=0.15, lw=0)
    _draw(axis, names, measured, offset=-0.14, hollow=False, label="measured here")
    _draw(axis, names, quoted, offset=0.14, hollow=True, label="paper (quoted, unpaired)")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel(f"success minus that of {report.spec.reference} [points], {100 * report.settings.confidence:g} %")
    axis.set_title(report.spec.title, fontsize=10)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=8, frameon=False, loc="best")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return file


def _draw(axis: Axes, names: list[str], bars: list[Bar], *, offset: float, hollow: bool, label: str) -> None:
    if not bars:
        return
    heights = [names.index(name) + offset for name, _, _ in bars]
    centres = [100 * d for _, d, _ in bars]
    arms = [[100 * (d - low) for _, d, (low, _) in bars], [100 * (high - d) for _, d, (_, high) in bars]]
    colour = "tab:gray" if hollow else "tab:blue"
    axis.errorbar(
        centres, heights, xerr=arms, fmt="o", color=colour, mfc="white" if hollow else colour, capsize=3, label=label
    )
