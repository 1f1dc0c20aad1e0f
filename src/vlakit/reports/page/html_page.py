"""HTML pages that load nothing: Jinja fills `templates/` and escapes every value. Pictures are SVG.

Positions in a picture are per cent of its width, so that it fits a phone while its words keep their size.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vlakit.compare.grids import Grid, gain, gain_limits
from vlakit.processing.images import encode_jpeg
from vlakit.schema import UInt8


def render(template: str, **values: Any) -> str:
    """A page or picture in ASCII, so that no shell or editor can spoil its letters; a model card as it is."""
    text = _environment().get_template(template).render(**values)
    return text if _is_markdown(template) else text.encode("ascii", "xmlcharrefreplace").decode()


def _is_markdown(template: str | None) -> bool:
    return str(template).endswith(".md.j2")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda template: not _is_markdown(template),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"kinds": kinds, "typeset": typeset, "gain": gain, "gain_limits": gain_limits}
    return environment


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


def jpeg_base64(image: UInt8, quality: int = 80) -> str:
    """(H, W, 3) uint8 as a JPEG for an address of the kind data:."""
    return b64encode(encode_jpeg(image, quality)).decode()


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
    """Round limits that hold all values, with some five steps between; whole: ticks at integers."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    least = (high - low) / 5
    power = 10.0 ** floor(log10(least))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= least * (1 - 1e-9))
    step = max(1.0, ceil(step)) if whole else step
    ticks = [round(i * step, 12) for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]
    return Scale(ticks[0], ticks[-1], ticks)
