"""A report before any format: words for people, plain values for programs. A new format is a function here."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from vlakit.errors import ConfigError
from vlakit.registry import Registry

WORDY = {"run", "a", "b", "task", "suite", "letters", "verdict", "measured", "against the paper"}
WORDY |= {"row", "claim", "what", "scope", "rule", "paper's own rollouts"}
WORDY |= {"name", "started", "commit", "checkpoint", "sha256 of episodes"}
FORMATS: Registry[str] = Registry("format")
WIDTH = 120  # letters of a line of text
_SIGNS = {ord("\\"): r"\textbackslash{}", ord("~"): r"\textasciitilde{}", ord("^"): r"\textasciicircum{}"}


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


@dataclass(frozen=True)
class Column:
    """One column of rows of any kind. value: of a row, None where there is none, which `shown` sets in words.

    fields: what CSV calls it, several where the value is a tuple of so many, none where CSV leaves it out; title "": of
    CSV alone.
    """

    title: str
    value: Callable[[Any], Any]
    shown: Callable[[Any], str] = str
    fields: Sequence[str] = ()
    quoted: bool = False

    def cell(self, row: Any) -> str:
        """A row's word."""
        value = self.value(row)
        return "-" if value is None else self.shown(value)

    def plain(self, row: Any) -> Sequence[object]:
        """A row's values in CSV."""
        value = self.value(row)
        if len(self.fields) < 2:
            return [value] if self.fields else []
        return [None] * len(self.fields) if value is None else value


def at(path: str) -> Callable[[Any], Any]:
    """The value at a dotted path of attributes; None where one is missing on the way."""
    names = path.split(".")
    return lambda row: reduce(lambda value, name: getattr(value, name, None), names, row)


def grid(title: str, columns: Sequence[Column], rows: Sequence[Any]) -> Grid:
    """The columns with a title, in words."""
    titled = [column for column in columns if column.title]
    words = [[column.cell(row) for column in titled] for row in rows]
    return Grid(title, [c.title for c in titled], words, [c.title for c in titled if c.quoted])


def plain_lines(columns: Sequence[Column], rows: Sequence[Any]) -> list[list[object]]:
    """A header and lines for CSV."""
    header: list[object] = [name for column in columns for name in column.fields]
    return [header, *([value for column in columns for value in column.plain(row)] for row in rows)]


@dataclass(frozen=True)
class Report:
    """What every format is made of. lines: of CSV; content: of JSON; page: makes the HTML page.

    comments: notes that LaTeX keeps as comments.
    """

    grids: Sequence[Grid]
    lines: Sequence[Sequence[object]]
    content: Mapping[str, Any]
    notes: Sequence[str] = ()
    comments: Sequence[str] = ()
    page: Callable[[], str] | None = field(default=None, compare=False)


@FORMATS.register("text")
def text(report: Report) -> str:
    """Aligned tables for people; a line stands under the header of one without a title."""
    parts: list[str] = []
    for one in report.grids:
        for number, (header, rows) in enumerate(_blocks(one)):
            title = [one.title if number == 0 else f"{one.title}, further columns"]
            rule = ["-" * max(map(len, header))]
            parts.append("\n".join([*title, *header, *rows] if one.title else [*header, *rule, *rows]))
    folded = [wrap(f"note: {note}", WIDTH, break_long_words=False, break_on_hyphens=False) for note in report.notes]
    return "\n\n".join([*parts, *map("\n".join, folded)])


@FORMATS.register("markdown")
def markdown_text(report: Report) -> str:
    """Tables for a README."""
    return "\n\n".join([*map(markdown, report.grids), "\n".join(f"- {note}" for note in report.notes)]).rstrip()


@FORMATS.register("latex")
def latex_text(report: Report) -> str:
    """A tabular of each table, ready for \\input below \\usepackage{booktabs}."""
    return "\n\n".join(
        [r"% \usepackage{booktabs}", *map(latex, report.grids), *(f"% {note}" for note in report.comments)]
    )


@FORMATS.register("csv")
def csv_text(report: Report) -> str:
    """Plain numbers, rates and differences as fractions."""
    return csv_lines(report.lines)


@FORMATS.register("json")
def json_text(report: Report) -> str:
    """One line of JSON."""
    return json.dumps(report.content)


@FORMATS.register("html")
def html_text(report: Report) -> str:
    """One page that loads nothing. Raises ConfigError for a report that has none."""
    if report.page is None:
        raise ConfigError("this report has no page", where="format=html", do="format=text")
    return report.page()


def aligned(grid: Grid) -> list[str]:
    """Lines of plain text, of at most WIDTH letters."""
    return [line for header, rows in _blocks(grid) for line in (*header, *rows)]


def _blocks(grid: Grid) -> list[tuple[list[str], list[str]]]:
    """(header, rows) as lines. What is wider than WIDTH is folded; if that is not enough, columns go below the others.

    Folded are headers, and cells of words, the more the wider they are; the first column stands in front of each block.
    """
    longest = max((len(word) for line in [grid.header, *grid.rows] for word in line), default=0)
    caps = [cap for cap in (longest, 40, 32, 26, 20, 16) if cap <= longest]
    fitting = next((cap for cap in caps if _width(widths := _widths(grid, cap)) <= WIDTH), None)
    if fitting is not None:
        return [_laid(grid, range(len(widths)), widths)]
    widths, blocks = _widths(grid, 32), [[0]]
    for i in range(1, len(widths)):
        if len(blocks[-1]) > 1 and _width(widths[j] for j in [*blocks[-1], i]) > WIDTH:
            blocks.append([0])
        blocks[-1].append(i)
    return [_laid(grid, block, widths) for block in blocks]


def _width(widths: Iterable[int]) -> int:
    columns = list(widths)
    return sum(columns) + 2 * (len(columns) - 1)


def _widths(grid: Grid, cap: int) -> list[int]:
    """Of each column; a header that no cap folds stays in one line."""
    columns = [[line[i] for line in grid.rows] for i in range(len(grid.header))]
    whole = [max(map(len, [title, *cells])) for title, cells in zip(grid.header, columns, strict=True)]
    if cap >= max(whole, default=0):
        return whole
    return [
        min(width, cap) if grid.wordy(i) else max(map(len, [*columns[i], *grid.header[i].split()]))
        for i, width in enumerate(whole)
    ]


def _laid(grid: Grid, chosen: Sequence[int], widths: Sequence[int]) -> tuple[list[str], list[str]]:
    def lines(cells: Sequence[str]) -> list[str]:
        folded = [wrap(cells[i], widths[i]) if len(cells[i]) > widths[i] else [cells[i]] for i in chosen]
        padded = [
            [
                word.ljust(widths[i]) if grid.wordy(i) else word.rjust(widths[i])
                for i, word in zip(chosen, row, strict=True)
            ]
            for row in zip_longest(*folded, fillvalue="")
        ]
        return ["  ".join(row).rstrip() for row in padded]

    return lines(grid.header), [line for row in grid.rows for line in lines(row)]


def markdown(grid: Grid) -> str:
    """A title and a table for GitHub."""
    rule = ["---" if grid.wordy(i) else "---:" for i in range(len(grid.header))]
    lines = [" | ".join(word.replace("|", "/") for word in line) for line in [grid.header, rule, *grid.rows]]
    return "\n".join([*([f"**{grid.title}**", ""] if grid.title else []), *(f"| {line} |" for line in lines)])


def latex(grid: Grid) -> str:
    """A tabular, its title as a comment."""
    lines = [" & ".join(_tex(word) for word in line) + r" \\" for line in [grid.header, *grid.rows]]
    columns = "".join("l" if grid.wordy(i) else "r" for i in range(len(grid.header)))
    body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    return "\n".join([f"% {grid.title}", rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"])


def csv_lines(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV without a line end at the end; None is an empty field. A word that a spreadsheet would run is quoted.

    >>> csv_lines([["=1+1", "-", "-0.5", -0.5, None]])
    "'=1+1,-,-0.5,-0.5,"
    """
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([[_field(value) for value in row] for row in rows])
    return sink.getvalue().rstrip("\n")


def unquoted(field: str) -> str:
    """A field of `csv_lines` as it was."""
    return re.sub(r"^'(?=[=+@\t\r-].)", "", field)


def _field(value: object) -> object:
    runs = (
        isinstance(value, str)
        and re.match(r"[=+@\t\r-].", value)
        and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value)
    )
    return f"'{value}" if runs else "" if value is None else value


def points(fraction: float) -> str:
    """A fraction in percent."""
    return f"{100 * fraction:.1f}"


def gain(fraction: float) -> str:
    """A difference of fractions in points."""
    return f"{100 * fraction:+.1f}"


def limits(interval: tuple[float, float], shown: Callable[[float], str] = points) -> str:
    """An interval of fractions in percent."""
    return " to ".join(map(shown, interval))


def gain_limits(interval: tuple[float, float]) -> str:
    """An interval of a difference in points."""
    return limits(interval, gain)


def count(number: int) -> str:
    """A whole number."""
    return f"{number:,}"


def p_text(value: float) -> str:
    """A p-value."""
    return "<1e-4" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _tex(word: str) -> str:
    word = word.translate({**{ord(sign): f"\\{sign}" for sign in "&%$#_{}"}, **_SIGNS})
    return word.replace("+-", r"$\pm$").replace("<", "$<$")
