"""`vlakit compare parent=last`: recorded runs in one aligned table."""

from __future__ import annotations

from collections.abc import Sequence

from vlakit.cli.configuration import verb_config
from vlakit.cli.output import check_format, emit


def main(overrides: Sequence[str]) -> None:
    """Print the table of the chosen runs."""
    cfg = verb_config("compare", overrides)
    check_format(cfg["format"], ("text", "json", "csv"))
    from vlakit.reports.compare import compare_runs, render, to_json

    names = [cfg["runs"]] if isinstance(cfg["runs"], str) else cfg["runs"]
    rows = compare_runs(
        cfg["tracking_uri"], parent=cfg["parent"], names=names, experiment=cfg["experiment"], sort=cfg["sort"]
    )
    if cfg["format"] == "csv":
        print(render(rows, "csv"))
    else:
        emit(to_json(rows), render(rows, "text"), cfg["format"])
