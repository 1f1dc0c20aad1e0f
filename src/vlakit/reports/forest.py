"""Differences to the reference row with their intervals: measured here filled, the paper's (quoted) hollow."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, so that a machine without a screen can draw
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from vlakit.errors import InvalidData
from vlakit.reports.table import TableReport
from vlakit.reports.versus import ALL, Judged
from vlakit.stats.intervals import quantile

Bar = tuple[str, float, tuple[float, float]]  # row, difference, interval; fractions


def draw_forest(report: TableReport, file: Path) -> Path:
    """Write the picture. Raises InvalidData when nothing is compared."""
    measured = [bar for row in report.rows if row.judged and (bar := _bar(row.row.name, row.judged))]
    quoted = _quoted_bars(report)
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


def _bar(name: str, judged: Judged, sign: int = 1) -> Bar | None:
    f = judged.finding
    if f.interval is None:
        return None
    low, high = sorted(sign * limit for limit in f.interval)
    return name, sign * f.difference, (low, high)


def _quoted_bars(report: TableReport) -> list[Bar]:
    """The paper's rows against the paper's reference, from printed standard errors."""
    rows, z = report.printed.get(ALL, {}), quantile(report.settings.confidence)
    reference = next((r.printed for r in report.rows if r.row.name == report.spec.reference), None)
    if reference is None:
        return []
    bars: list[Bar] = []
    for row in report.rows:
        theirs = rows.get(row.row.paper or "")
        if theirs is not None and theirs is not reference:
            d, half = theirs.rate - reference.rate, z * (theirs.error**2 + reference.error**2) ** 0.5
            bars.append((row.row.name, d, (d - half, d + half)))
    return bars


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
