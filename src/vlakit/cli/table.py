"""`vlakit table name=table1`: a table of the paper, filled by recorded runs, with intervals and a verdict a row."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_writable
from vlakit.cli.output import check_choice, check_format, check_fractions
from vlakit.compare.grids import FORMATS
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from vlakit.compare.pairs import Settings
    from vlakit.reports.tables.runs import Filled
    from vlakit.reports.tables.spec import TableSpec
    from vlakit.reports.tables.table import TableReport

SOURCES = ("runs", "paper")
log = logging.getLogger(__name__)


def main(overrides: Sequence[str]) -> None:
    """Print one table; with svg=FILE draw it, with save=DIR keep the outcomes behind it."""
    cfg = verb_config("table", overrides)
    check_format(cfg["format"], FORMATS.names())
    check_choice("source", cfg["source"], SOURCES)
    if cfg["save"]:
        check_writable(cfg["save"])
    if cfg["svg"]:
        check_writable(Path(cfg["svg"]).parent)
    report = replace(build(cfg), command=shlex.join(["vlakit", "table", *overrides]))
    from vlakit.reports.rendering import report_of

    print(FORMATS.build(cfg["format"], report=report_of(report)))
    if cfg["svg"]:
        from vlakit.reports.page.forest import draw_forest

        log.info("picture: %s", draw_forest(report, Path(cfg["svg"])))


def build(cfg: dict[str, Any]) -> TableReport:
    """The table that the keys of conf/table.yaml ask for. Raises UnknownName, ConfigError, InvalidData."""
    from vlakit.compare.pairs import Settings
    from vlakit.compare.versus import PAIRED, SCORES
    from vlakit.reports.tables.spec import load_table
    from vlakit.reports.tables.table import from_paper

    spec = load_table(str(cfg["name"]))
    if cfg["where"] is not None:
        if not isinstance(cfg["where"], dict):
            raise ConfigError(f"where={cfg['where']}", where="command line", do="where={model.weights: PATH}")
        wanted = {str(key): str(value) for key, value in cfg["where"].items()}
        spec = replace(spec, rows=[replace(r, where={**r.where, **wanted}) if r.where else r for r in spec.rows])
    margin = spec.tolerance if cfg["margin"] is None else cfg["margin"]
    check_fractions(margin=margin, confidence=cfg["confidence"])
    check_choice("paired", str(cfg["paired"]).lower(), PAIRED)
    if cfg["score"] is not None:
        check_choice("score", str(cfg["score"]), SCORES)
    settings = Settings(confidence=cfg["confidence"], margin=margin)
    if cfg["source"] == "paper":
        return from_paper(spec, settings)
    return _measured(cfg, spec, settings)


def _measured(cfg: dict[str, Any], spec: TableSpec, settings: Settings) -> TableReport:
    from vlakit.reports.tables.folder import from_folder, save
    from vlakit.reports.tables.runs import with_curves
    from vlakit.reports.tables.table import from_runs

    if cfg["from"]:
        filled, source = from_folder(spec, Path(cfg["from"])), str(cfg["from"])
    else:
        uri = cfg["tracking_uri"]
        filled, source = _recorded(cfg, spec), uri
        committed = spec.folder / "runs"
        counts = any(run.episodes for run in filled.runs)
        if not counts and cfg["parent"] == "auto" and cfg["where"] is None and committed.is_dir():
            source = f"experiments/{spec.name}/runs"
            idle = [f"{run.row}, seed {run.seed}, does not count: {run.why}" for run in filled.runs]
            notes = [f"no run of this table is in {uri}: these are vlakit's own, from {source}", *idle]
            filled = replace(from_folder(spec, committed), notes=notes)
        elif cfg["save"] or cfg["format"] == "html":
            filled = with_curves(filled, uri)
    if cfg["save"]:
        log.info("outcomes: %s", ", ".join(str(file) for file in save(filled, spec, Path(cfg["save"]))))
    return from_runs(spec, filled, settings, source, str(cfg["paired"]).lower(), cfg["score"])


def _recorded(cfg: dict[str, Any], spec: TableSpec) -> Filled:
    """The runs of the store; none, and no store is made, where its file is not there."""
    from vlakit.reports.tables.runs import Filled, from_store

    uri = str(cfg["tracking_uri"])
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return Filled([], [])
    return from_store(spec, uri, cfg["experiment"], cfg["parent"])
