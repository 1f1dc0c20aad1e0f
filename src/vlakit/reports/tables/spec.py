"""experiments/<slug>/table.yaml: claims, rows, columns and the sweep that fills them. A new table is a new file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from vlakit.checked import Count, Number, Text, also, first, load
from vlakit.errors import ConfigError, nearest
from vlakit.reports.tables.claims import Claim, find_table, in_print, table_files
from vlakit.reports.tables.paper import tables

SEEDS = "0,1,2"


Parameters: TypeAlias = dict[Text, Annotated[str, first(str)]]  # `strategy.rank: 32` is the text that MLflow keeps


@dataclass(frozen=True)
class TableRow:
    """One row. where: parameters of its runs (* is anything); paper: what the paper calls it; missing: why none run."""

    name: str = ""  # its key
    says: Text = ""
    where: Parameters = field(default_factory=dict[Text, str])
    paper: Text | None = None
    missing: Text = ""


@dataclass(frozen=True)
class Column:
    """One number beside success: a recorded metric times `scale`, and what is printed for each row.

    paper: the key of paper_tables.yaml that has it.
    """

    title: Text
    metric: Text
    scale: Number = 1.0
    digits: Count = 1
    paper: Text | None = None
    quoted: dict[Text, Number] = field(default_factory=dict[Text, float])


@dataclass(frozen=True)
class TableSpec:
    """One table. paper: names in paper_tables.yaml; tolerance: a smaller difference of success counts as none.

    search: the file of conf/hparams_search that fills it; measured: what vlakit's own figures are of, in words.
    """

    name: str
    folder: Path
    title: str
    paper: Sequence[str]
    search: str | None
    suites: Sequence[str]
    reference: str
    tolerance: float
    claims: Sequence[Claim]
    rows: Sequence[TableRow]
    columns: Sequence[Column]
    measured: str = ""

    @property
    def sweep(self) -> str:
        """The command that fills it; empty where there is none."""
        return f"python train.py -m hparams_search={self.search} seed={SEEDS}" if self.search else ""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is tested: every row against the reference, and what claims are about."""
        wanted = [(row.name, self.reference) for row in self.rows if row.name != self.reference]
        claimed = [(claim.a, claim.b) for claim in self.claims]
        return wanted + [p for p in dict.fromkeys(claimed) if p not in wanted and p[::-1] not in wanted]

    @property
    def claims_in_print(self) -> list[Claim]:
        """The claims in the paper's own names, without those about rows that it does not have."""
        return in_print(self.claims, {row.name: row.paper for row in self.rows})


def load_table(name: str) -> TableSpec:
    """A table by its folder's name or the first words of it (table1). Raises UnknownName, ConfigError."""
    known = table_files()
    slug = find_table(name, known)
    file = known[slug]
    content = load(_File, file)
    rows = [_row(key, row, content.where, file) for key, row in content.rows.items()]
    claims = [_claim(claim, file) for claim in content.claims]
    for row in (content.reference, *(row for claim in claims for row in (claim.a, claim.b))):
        if row not in content.rows:
            raise ConfigError(f"no row {row!r}", where=str(file), do=nearest(row, content.rows))
    return TableSpec(
        name=slug,
        folder=file.parent,
        title=content.title,
        paper=content.paper,
        search=content.sweep,
        suites=content.suite,
        reference=content.reference,
        tolerance=content.tolerance,
        claims=claims,
        rows=rows,
        columns=[_column(column, content.paper[0], rows) for column in content.columns],
        measured=content.measured or "",
    )


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _search(value: str) -> str:
    if not re.fullmatch(r"[\w-]+", value):
        raise ConfigError(f"no name of a sweep: {value!r}", do="sweep: NAME, a file of conf/hparams_search")
    return value


Names: TypeAlias = Annotated[tuple[Text, ...], first(_listed)]
Pair: TypeAlias = tuple[Text, Text]


@dataclass(frozen=True)
class _ClaimFile:
    says: Text
    better: Pair | None = None
    same: Pair | None = None


@dataclass(frozen=True)
class _File:
    """What table.yaml holds; see `TableSpec` for what it means."""

    title: Text
    paper: Names
    suite: Names
    reference: Text
    tolerance: Number
    claims: tuple[_ClaimFile, ...]
    rows: dict[Text, TableRow]
    columns: tuple[Column, ...] = ()
    where: Parameters = field(default_factory=dict[Text, str])
    sweep: Annotated[Text, also(_search)] | None = None
    measured: Text | None = None


def _row(name: str, row: TableRow, every: Mapping[str, str], file: Path) -> TableRow:
    if bool(row.where) == bool(row.missing):
        do = "where: {name: EXPERIMENT}"
        raise ConfigError(f"row {name!r} needs either where or missing", where=str(file), do=do)
    return replace(row, name=name, says=row.says or name, where={**every, **row.where} if row.where else {})


def _claim(content: _ClaimFile, file: Path) -> Claim:
    pair = content.better or content.same
    if pair is None or (content.better and content.same):
        do = "better: [A, B], or same: [A, B]"
        raise ConfigError(f"claim {content.says!r} needs either better or same", where=str(file), do=do)
    return Claim(content.says, *pair, same=content.better is None)


def _column(column: Column, paper: str, rows: Sequence[TableRow]) -> Column:
    printed = _printed(tables()[paper], column.paper, rows) if column.paper else {}
    return replace(column, quoted={**column.quoted, **printed})


def _printed(table: Mapping[str, Any], key: str, rows: Sequence[TableRow]) -> dict[str, float]:
    """What the paper prints under a key, of its rows or of the table: {row: number}."""
    named = {row.name: row.paper for row in rows if row.paper}
    if key in table:
        return {name: float(table[key][paper]) for name, paper in named.items() if paper in table[key]}
    printed = table["rows"]
    return {name: float(printed[p][key]) for name, p in named.items() if p in printed and key in printed[p]}
