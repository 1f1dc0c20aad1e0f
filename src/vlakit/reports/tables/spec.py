"""experiments/<slug>/table.yaml: claims, rows, columns and the sweep that fills them. A new table is a new file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from vlakit.configs import conf_root, config_file, config_names, shown
from vlakit.errors import ConfigError, UnknownName, nearest
from vlakit.reports.tables.paper import tables

KEYS = {"title", "paper", "sweep", "suite", "reference", "tolerance", "claims", "where", "rows", "columns"}
ROW_KEYS, COLUMN_KEYS = {"says", "where", "paper", "missing"}, {"title", "metric", "scale", "digits", "paper", "quoted"}


@dataclass(frozen=True)
class TableRow:
    """One row. where: parameters of its runs (* is anything); paper: what the paper calls it; missing: why none run."""

    name: str
    says: str
    where: Mapping[str, str] = field(default_factory=dict[str, str])
    paper: str | None = None
    missing: str = ""


@dataclass(frozen=True)
class Column:
    """One number beside success: a recorded metric times `scale`, and what the paper prints for each row."""

    title: str
    metric: str
    scale: float
    digits: int
    quoted: Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """What a paper says of two rows: a is better than b, or (same) both are equal within the tolerance."""

    says: str
    a: str
    b: str
    same: bool


@dataclass(frozen=True)
class TableSpec:
    """One table. paper: names in paper_tables.yaml; tolerance: a smaller difference of success counts as none."""

    name: str
    folder: Path
    title: str
    paper: Sequence[str]
    sweep: str
    suites: Sequence[str]
    reference: str
    tolerance: float
    claims: Sequence[Claim]
    rows: Sequence[TableRow]
    columns: Sequence[Column]

    @property
    def search(self) -> str | None:
        """The file of conf/hparams_search that its sweep names."""
        found = re.search(r"hparams_search=(\w+)", self.sweep)
        return found.group(1) if found else None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is tested: every row against the reference, and what claims are about."""
        wanted = [(row.name, self.reference) for row in self.rows if row.name != self.reference]
        claimed = [(claim.a, claim.b) for claim in self.claims]
        return wanted + [p for p in dict.fromkeys(claimed) if p not in wanted and p[::-1] not in wanted]


def table_files() -> dict[str, Path]:
    """Table -> file: experiments/NAME/table.yaml of vlakit and here, table/NAME.yaml of the user's folders.

    Raises ConfigError for a name that both have.
    """
    roots = [conf_root().parent / "experiments", Path("experiments")]
    files = {file.parent.name: file for root in roots for file in sorted(root.glob("*/table.yaml"))}
    for name in config_names("table"):
        if name in files:
            where = f"{shown(config_file('table', name))} and {files[name]}"
            raise ConfigError(f"two tables are called {name!r}", where=where, do="give yours another name")
    return files | {name: config_file("table", name) for name in config_names("table")}


def load_table(name: str) -> TableSpec:
    """A table by its folder's name or the first words of it (table1). Raises UnknownName, ConfigError."""
    known = table_files()
    chosen = [slug for slug in known if slug == name] or [slug for slug in known if slug.startswith(f"{name}_")]
    if len(chosen) != 1:
        short = {slug.partition("_")[0] if slug.startswith("table") else slug for slug in known}
        raise UnknownName(f"no table called {name!r}", where="experiments/*/table.yaml", do=nearest(name, short))
    file = known[chosen[0]]
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _spec(chosen[0], file, content)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"no table: {error!r}", where=str(file), do="see experiments/table1_finetuning") from error


def _spec(name: str, file: Path, content: Mapping[str, Any]) -> TableSpec:
    _check_keys(content, KEYS, file)
    paper = [content["paper"]] if isinstance(content["paper"], str) else list(content["paper"])
    every = {key: str(value) for key, value in (content.get("where") or {}).items()}
    rows = [_row(key, value or {}, file) for key, value in content["rows"].items()]
    rows = [replace(row, where={**every, **row.where}) if row.where else row for row in rows]
    names = [row.name for row in rows]
    suites = [content["suite"]] if isinstance(content["suite"], str) else list(content["suite"])
    spec = TableSpec(
        name=name,
        folder=file.parent,
        title=str(content["title"]),
        paper=paper,
        sweep=str(content.get("sweep") or ""),
        suites=suites,
        reference=str(content["reference"]),
        tolerance=float(content["tolerance"]),
        claims=[_claim(claim, names, file) for claim in content["claims"]],
        rows=rows,
        columns=[_column(column, paper[0], rows, file) for column in content.get("columns") or []],
    )
    _check_name(spec.reference, names, file)
    return spec


def _row(name: str, content: Mapping[str, Any], file: Path) -> TableRow:
    _check_keys(content, ROW_KEYS, file)
    where = {key: str(value) for key, value in (content.get("where") or {}).items()}
    missing = str(content.get("missing") or "")
    if bool(where) == bool(missing):
        raise ConfigError(
            f"row {name!r} needs either where or missing", where=str(file), do="where: {name: EXPERIMENT}"
        )
    return TableRow(name, str(content.get("says") or name), where, content.get("paper"), missing)


def _claim(content: Mapping[str, Any], names: Sequence[str], file: Path) -> Claim:
    (kind,) = content.keys() & {"better", "same"}
    a, b = content[kind]
    for row in (a, b):
        _check_name(row, names, file)
    return Claim(str(content["says"]), a, b, kind == "same")


def _column(content: Mapping[str, Any], paper: str, rows: Sequence[TableRow], file: Path) -> Column:
    _check_keys(content, COLUMN_KEYS, file)
    quoted = {name: float(value) for name, value in (content.get("quoted") or {}).items()}
    if content.get("paper"):
        quoted |= _printed(tables()[paper], content["paper"], rows)
    return Column(
        str(content["title"]),
        str(content["metric"]),
        float(content.get("scale", 1)),
        int(content.get("digits", 1)),
        quoted,
    )


def _printed(table: Mapping[str, Any], key: str, rows: Sequence[TableRow]) -> dict[str, float]:
    """What the paper prints under a key, of its rows or of the table: {row: number}."""
    named = {row.name: row.paper for row in rows if row.paper}
    if key in table:
        return {name: float(table[key][paper]) for name, paper in named.items() if paper in table[key]}
    printed = table["rows"]
    return {name: float(printed[p][key]) for name, p in named.items() if p in printed and key in printed[p]}


def _check_keys(content: Mapping[str, Any], known: set[str], file: Path) -> None:
    for key in content:
        if key not in known:
            raise ConfigError(f"{key!r} is no key of a table", where=str(file), do=nearest(str(key), known))


def _check_name(name: str, names: Sequence[str], file: Path) -> None:
    if name not in names:
        raise ConfigError(f"no row {name!r}", where=str(file), do=nearest(name, names))
