"""A title, a header and rows of words, and how they look as text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

WORDY = frozenset(
    {"run", "a", "b", "task", "letters", "verdict", "measured", "against the paper", "row", "claim", "what", "scope"}
)
WORDY |= {"name", "started", "commit", "checkpoint", "rule", "paper's own rollouts", "sha256 of episodes"}


@dataclass(frozen=True)
class Grid:
    """One table of a report; columns named in WORDY are set flush left; quoted: names of columns not measured here."""

    title: str
    header: list[str]
    rows: list[list[str]]
    quoted: Collection[str] = ()

    def wordy(self, column: int) -> bool:
        """Whether a column holds words and not numbers."""
        return self.header[column] in WORDY


def aligned(grid: Grid) -> list[str]:
    """Lines of plain text."""
    lines = [grid.header, *grid.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(grid.header))]
    return ["  ".join(_padded(grid, line, widths)).rstrip() for line in lines]


def markdown(grid: Grid) -> str:
    """A title and a table for GitHub."""
    rule = ["---" if grid.wordy(i) else "---:" for i in range(len(grid.header))]
    lines = [" | ".join(word.replace("|", "/") for word in line) for line in [grid.header, rule, *grid.rows]]
    return "\n".join([f"**{grid.title}**", "", *(f"| {line} |" for line in lines)])


def latex(grid: Grid) -> str:
    """A tabular, its title as a comment."""
    lines = [" & ".join(_tex(word) for word in line) + r" \\" for line in [grid.header, *grid.rows]]
    columns = "".join("l" if grid.wordy(i) else "r" for i in range(len(grid.header)))
    body = [lines[0], r"\hline", *lines[1:]]
    return "\n".join([f"% {grid.title}", rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"])


def csv_lines(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV without a line end at the end; None is an empty field."""
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([["" if v is None else v for v in row] for row in rows])
    return sink.getvalue().rstrip("\n")


def points(fraction: float, *, signed: bool = False) -> str:
    """A fraction in percent."""
    return f"{100 * fraction:+.1f}" if signed else f"{100 * fraction:.1f}"


def limits(interval: tuple[float, float] | None, signed: bool = False) -> str:
    """An interval of fractions in percent."""
    return "-" if interval is None else " to ".join(points(limit, signed=signed) for limit in interval)


def error(value: float | None) -> str:
    """A standard error in percent."""
    return "-" if value is None else points(value)


def p_text(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return "-"
    return "<1e-4" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _padded(grid: Grid, line: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = enumerate(zip(line, widths, strict=True))
    return [word.ljust(width) if grid.wordy(i) else word.rjust(width) for i, (word, width) in cells]


def _tex(word: str) -> str:
    for sign in "&%$#_{}":
        word = word.replace(sign, "\\" + sign)
    return word.replace("+-", r"$\pm$").replace("<", "$<$")
