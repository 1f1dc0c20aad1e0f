"""The paper's rows and their pairs, beside measured ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from math import hypot
from typing import Any

import yaml

from vlakit.errors import ConfigError, UnknownName, nearest
from vlakit.stats.intervals import two_sided
from vlakit.stats.multiple import holm


@dataclass(frozen=True)
class PaperRow:
    """What a table prints: rate and standard error as fractions."""

    name: str
    rate: float
    se: float


@dataclass(frozen=True)
class PaperPair:
    """A printed difference a minus b, unpaired, with its normal p alone and among the pairs of its family (Holm)."""

    difference: float
    se: float
    p: float
    p_holm: float


@cache
def tables() -> dict[str, Any]:
    """The packaged figures of the OpenVLA paper."""
    file = resources.files("vlakit").joinpath("assets/paper_tables.yaml")
    return yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def paper_rows(table: str) -> dict[str, PaperRow]:
    """Rows of a table that prints rates with errors. Raises UnknownName with those that do."""
    content = tables().get(table)
    rows = _printed(content) if isinstance(content, dict) else {}
    if not rows:
        usable = [name for name, other in tables().items() if isinstance(other, dict) and _printed(other)]
        raise UnknownName(f"no table {table!r} with errors", where="against", do=nearest(table, usable))
    return rows


def _printed(table: dict[str, Any]) -> dict[str, PaperRow]:
    """Either rows of {printed, se}, or "printed": {name: [percent, se]}."""
    rows = table.get("rows")
    pairs = (
        {name: (r["printed"], r["se"]) for name, r in rows.items() if _has_error(r)} if isinstance(rows, dict) else {}
    )
    pairs |= {name: tuple(v) for name, v in table.get("printed", {}).items()} if "printed" in table else {}
    return {name: PaperRow(name, percent / 100, se / 100) for name, (percent, se) in pairs.items()}


def _has_error(row: Any) -> bool:
    return isinstance(row, dict) and {"printed", "se"} <= row.keys()


def paper_pairs(
    rows: dict[str, PaperRow], claimed: Collection[frozenset[str]] = ()
) -> dict[tuple[str, str], PaperPair]:
    """All pairs of a table, both ways round; corrected for the number of unordered pairs, the claimed ones apart."""
    every = list(combinations(rows, 2))
    pairs: dict[tuple[str, str], PaperPair] = {}
    for apart in (True, False):
        names = [pair for pair in every if (frozenset(pair) in claimed) is apart]
        differences = [(rows[a].rate - rows[b].rate, hypot(rows[a].se, rows[b].se)) for a, b in names]
        p = [two_sided(d / se) for d, se in differences]
        for (a, b), (d, se), raw, corrected in zip(names, differences, p, holm(p), strict=True):
            pairs[a, b] = PaperPair(d, se, raw, corrected)
            pairs[b, a] = PaperPair(-d, se, raw, corrected)
    return pairs


def check_names(rows: dict[str, PaperRow], names: Sequence[str], table: str) -> None:
    """Raise ConfigError when no pair of runs is called as two rows of the table are."""
    if len([name for name in names if name in rows]) < 2:
        raise ConfigError(
            f"no two runs are called as rows of {table}",
            where=f"runs: {', '.join(names)}",
            do=f"runs={{full: PATH, ...}} names them; rows: {', '.join(rows)}",
        )
