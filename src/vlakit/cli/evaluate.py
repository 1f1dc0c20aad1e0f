"""`vlakit evaluate ckpt=runs/... split=val`: open loop on held-out episodes, with a plot and a record in MLflow."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.output import check_format, emit
from vlakit.cli.shards import progress_bar
from vlakit.errors import CheckpointMismatch, ConfigError, nearest

if TYPE_CHECKING:
    from vlakit.data.reader import ShardFolder
    from vlakit.evaluation.open_loop import OpenLoopResult
    from vlakit.policy import VLAPolicy

log = logging.getLogger(__name__)


def main(overrides: Sequence[str]) -> None:
    """Evaluate one checkpoint on each of its datasets."""
    cfg = verb_config("evaluate", overrides)
    check_format(cfg["format"])
    from vlakit.evaluation.open_loop import open_loop
    from vlakit.evaluation.plots import draw_trajectories
    from vlakit.models.formats import LoadOptions
    from vlakit.policy import VLAPolicy

    policy = VLAPolicy.from_checkpoint(
        cfg["ckpt"],
        device=cfg["device"],
        constrain=cfg["constrain"],
        strict=cfg["strict"],
        options=LoadOptions(base=cfg["base"], trusted=tuple(cfg["trusted"])),
    )
    out = Path(cfg["out"]) if cfg["out"] else _folder_of(Path(cfg["ckpt"])) / "evaluation"
    reports: dict[str, Any] = {}
    texts: list[str] = []
    files: list[Path] = []
    for folder in shard_folders(policy, cfg["data"]):
        with progress_bar("frames") as progress:
            result = open_loop(
                policy,
                folder,
                cfg["split"],
                batch_size=cfg["batch_size"],
                max_frames=cfg["max_frames"],
                progress=progress,
            )
        plot = draw_trajectories(result, out / f"{result.dataset}_{cfg['split']}.png", cfg["plots"])
        numbers = plot.with_suffix(".json")
        numbers.write_text(json.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")
        files += [plot, numbers]
        reports[result.dataset] = result.to_dict()
        texts += [table(result), f"plot: {plot}"]
    _record(policy.card, cfg["tracking_uri"], reports, files)
    report = {
        "ckpt": str(cfg["ckpt"]),
        "strategy": policy.card.get("strategy"),
        "split": cfg["split"],
        "datasets": reports,
    }
    emit(report, "\n".join(texts), cfg["format"])


def shard_folders(policy: VLAPolicy, data: str | None) -> list[ShardFolder]:
    """The folders to evaluate on: `data`, or those that the checkpoint's run trained on, checked by their hashes."""
    from vlakit.data.reader import ShardFolder

    card, known = policy.card, policy.processor.statistics
    if data is None and not card.get("data"):
        raise ConfigError("the checkpoint does not say where its data is", do="pass data=DIR, a shard folder")
    folders = [ShardFolder.open(path) for path in ([data] if data else card["data"].values())]
    for folder in folders:
        if folder.dataset not in known:
            raise CheckpointMismatch(
                f"the checkpoint has no statistics of {folder.dataset!r}",
                where=str(folder.path),
                do=f"{nearest(folder.dataset, known)} Fine-tune on it first, or pass another data=DIR",
            )
        if card.get("shards", {}).get(folder.dataset) not in {None, folder.hash}:
            log.warning("%s holds other shards than the checkpoint's run read", folder.path)
    return folders


def table(result: OpenLoopResult) -> str:
    """Scores of the policy and the baselines, aligned."""
    size = len(next(iter(result.scores.values())).l1_per_dimension)
    header = f"{'':<18}{'token acc.':>11}{'L1 norm.':>10}  L1 per dimension, physical units"
    lines = [f"{result.dataset}, {result.split}: {len(result.episodes)} episodes, {result.n_frames} frames", header]
    for name, scores in result.scores.items():
        dimensions = "".join(f"{value:>9.4f}" for value in scores.l1_per_dimension)
        lines.append(f"{name:<18}{scores.token_accuracy:>11.3f}{scores.l1:>10.4f}{dimensions}")
    return "\n".join(lines) if size else header


def _record(card: dict[str, Any], tracking_uri: str, reports: dict[str, Any], files: list[Path]) -> None:
    from vlakit.tracking.mlflow import record_evaluation

    run_id = card.get("mlflow_run_id")
    if run_id is None:
        return
    metrics = {
        f"eval/{metric}/{dataset}{'' if report['split'] == 'val' else '/' + report['split']}": report["scores"][
            "policy"
        ][metric]
        for dataset, report in reports.items()
        for metric in ("token_accuracy", "l1")
    }
    if not record_evaluation(tracking_uri, run_id, metrics, files):
        log.warning("run %s is not in %s: the numbers are in the files only", run_id, tracking_uri)


def _folder_of(ckpt: Path) -> Path:
    return ckpt if ckpt.is_dir() else ckpt.parent
