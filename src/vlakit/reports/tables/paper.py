"""The paper's rows beside measured ones, and whether the measured difference agrees with the printed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from math import hypot
from typing import Any

import yaml

from vlakit.compare.versus import Judged
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
    """A printed difference a minus b, unpaired, with its normal p alone and among all pairs of the table (Holm)."""

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


def paper_pairs(rows: dict[str, PaperRow]) -> dict[tuple[str, str], PaperPair]:
    """All pairs of a table, both ways round; corrected for the number of unordered pairs."""
    names = list(combinations(rows, 2))
    differences = [(rows[a].rate - rows[b].rate, hypot(rows[a].se, rows[b].se)) for a, b in names]
    p = [two_sided(d / se) for d, se in differences]
    pairs: dict[tuple[str, str], PaperPair] = {}
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


def agreement(judged: Judged, printed: PaperPair, alpha: float) -> str:
    """ "agrees", "contradicts" or "cannot tell", and why: of the direction that the paper's own data support.

    Either side separates two rows where its p, corrected for all pairs of its table (Holm), is at most alpha.
    """
    if printed.p_holm > alpha:
        return "cannot tell (the paper's rollouts do not separate them)"
    difference = judged.finding.difference
    if judged.p_holm is None or judged.p_holm > alpha or not difference:
        return "cannot tell (these rollouts do not separate them)"
    return "agrees" if (difference > 0) == (printed.difference > 0) else "contradicts"
