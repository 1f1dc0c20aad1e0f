"""What an evaluation found, filed in the MLflow run of the checkpoint: metrics, and files as artefacts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.evaluation.starts import title_of
from vlakit.tracking.mlflow import StoreUnreachable, record_evaluation

if TYPE_CHECKING:
    from vlakit.evaluation.run import Evaluated
    from vlakit.evaluation.scoring import Scored

log = logging.getLogger(__name__)
RUN_ID = "mlflow_run_id"  # in the facts of a card whose run is on record


def record_success(
    evaluated: Evaluated, facts: Mapping[str, Any], tracking_uri: str | None, actions_per_s: float | None = None
) -> None:
    """eval/success, that of the suite and of each task, and the speed, in the run that the card's facts name, if any.

    Other starts than the suite's usual ones stay beside these numbers: eval/success/<suite>_fresh7 alone.
    """
    success, title = evaluated.pooled.success, title_of(evaluated.suite, evaluated.starts)
    metrics = {f"eval/success/{title}": success}
    if title == evaluated.suite:
        metrics |= {"eval/success": success, **{f"eval/success/{row.task}": row.success for row in evaluated.tasks}}
    metrics |= {} if actions_per_s is None else {"time/actions_per_s": actions_per_s}
    files = [*evaluated.records, *evaluated.files]
    _file(facts, tracking_uri, metrics, files, f"evaluation/{title}")


def record_scores(scored: Scored, facts: Mapping[str, Any], tracking_uri: str | None) -> None:
    """eval/token_accuracy/<dataset> and eval/l1/<dataset>, with /<split> for another than val."""
    suffix = "" if scored.split == "val" else f"/{scored.split}"
    metrics: dict[str, float] = {}
    for dataset, result in scored.results.items():
        scores = result.scores["policy"]
        if scores.token_accuracy is not None:
            metrics[f"eval/token_accuracy/{dataset}{suffix}"] = scores.token_accuracy
        metrics[f"eval/l1/{dataset}{suffix}"] = scores.l1
    _file(facts, tracking_uri, metrics, [file for files in scored.files.values() for file in files], "evaluation")


def _file(
    facts: Mapping[str, Any], tracking_uri: str | None, metrics: Mapping[str, float], files: Iterable[Path], folder: str
) -> None:
    run_id = facts.get(RUN_ID)
    if run_id is None or tracking_uri is None:
        return
    try:
        recorded = record_evaluation(tracking_uri, run_id, metrics, files, folder)
    except StoreUnreachable as error:  # what took hours to evaluate is in its files
        log.warning("%s", error)
        recorded = False
    if not recorded:
        log.warning("run %s is not in %s: the numbers are in the files only", run_id, tracking_uri)
