"""What a table's file claims, read without the packages that checking all of it needs: comparing has to be light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlakit.configs import conf_root, config_file, config_names, shown
from vlakit.errors import ConfigError, UnknownName, nearest


@dataclass(frozen=True)
class Claim:
    """What a paper says of two rows: a is better than b, or (same) both are equal within the tolerance."""

    says: str
    a: str
    b: str
    same: bool


def in_print(claims: Iterable[Claim], named: Mapping[str, str | None]) -> list[Claim]:
    """Claims in the paper's own names, {row: its name there}, without those about rows that it does not have."""
    pairs = [(claim, named[claim.a], named[claim.b]) for claim in claims]
    return [Claim(claim.says, a, b, claim.same) for claim, a, b in pairs if a and b]


def declared(table: str) -> list[Claim] | None:
    """The claims of a table's file in the paper's names; None where there is no such table. Raises ConfigError."""
    known = table_files()
    try:
        file = known[find_table(table, known)]
    except UnknownName:
        return None
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        claims = [_claim(claim) for claim in content["claims"]]
        return in_print(claims, {name: row.get("paper") for name, row in content["rows"].items()})
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        do = f"vlakit table name={table} says what is wrong"
        raise ConfigError("no table with rows and claims", where=str(file), do=do) from error


def _claim(content: Mapping[str, Any]) -> Claim:
    a, b = content["same" if "same" in content else "better"]
    return Claim(str(content["says"]), a, b, "same" in content)


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


def find_table(name: str, known: Iterable[str]) -> str:
    """A table by its folder's name or the first words of it (table1). Raises UnknownName."""
    known = list(known)
    chosen = [slug for slug in known if slug == name] or [slug for slug in known if slug.startswith(f"{name}_")]
    if len(chosen) != 1:
        short = {slug.partition("_")[0] if slug.startswith("table") else slug for slug in known}
        raise UnknownName(f"no table called {name!r}", where="experiments/*/table.yaml", do=nearest(name, short))
    return chosen[0]
