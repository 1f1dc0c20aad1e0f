"""`vlakit compare runs=[A,B]`: episodes on shared initial states, with a verdict; `parent=last`: recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.output import check_choice, check_format, check_fractions
from vlakit.compare.grids import FORMATS


def main(overrides: Sequence[str]) -> None:
    """Print the comparison of evaluations, or the table of recorded runs."""
    cfg = verb_config("compare", overrides)
    check_format(cfg["format"], FORMATS.names())
    if isinstance(cfg["runs"], str):
        cfg["runs"] = [cfg["runs"]]
    if cfg["runs"] and (isinstance(cfg["runs"], dict) or any(_is_place(str(run)) for run in cfg["runs"])):
        print(compare_episodes(cfg))
    else:
        _recorded(cfg)


def compare_episodes(cfg: dict[str, Any]) -> str:
    """The verdict on evaluations, rendered. Raises what a reader, the pairing and the configuration refuse."""
    settings = _settings(cfg)
    from vlakit.compare.gather import gather
    from vlakit.compare.versus import compare_arms
    from vlakit.reports.tables.paper import check_names, paper_rows
    from vlakit.reports.versus_tables import paper_of, report_of

    rows = paper_rows(cfg["against"]) if cfg["against"] else {}
    arms = gather(cfg["runs"])
    if rows:
        check_names(rows, [arm.name for arm in arms], cfg["against"])
    comparison = compare_arms(
        arms,
        settings,
        paired=str(cfg["paired"]).lower(),
        score=cfg["score"],
        reference=cfg["reference"],
        by_task=cfg["by_task"],
    )
    report = report_of(comparison, paper_of(cfg["against"], rows, settings) if rows else None)
    return FORMATS.build(cfg["format"], report=report)


def _settings(cfg: dict[str, Any]) -> Any:
    from vlakit.compare.pairs import Settings
    from vlakit.compare.versus import PAIRED, SCORES

    for key, known in (("paired", PAIRED), ("score", SCORES), ("by_task", ("true", "false"))):
        check_choice(key, str(cfg[key]).lower(), known)
    check_fractions(margin=cfg["margin"], confidence=cfg["confidence"])
    return Settings(confidence=cfg["confidence"], margin=cfg["margin"])


def _is_place(run: str) -> bool:
    """A path rather than a name in the MLflow store."""
    return Path(run).exists() or "/" in run or run.endswith((".json", ".csv"))


def _recorded(cfg: dict[str, Any]) -> None:
    check_format(cfg["format"], ("text", "json", "csv"))
    from vlakit.reports.recorded import compare_runs, render

    rows = compare_runs(
        cfg["tracking_uri"], parent=cfg["parent"], names=cfg["runs"], experiment=cfg["experiment"], sort=cfg["sort"]
    )
    print(render(rows, cfg["format"]))
