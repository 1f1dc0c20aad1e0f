"""`vlakit evaluate ckpt=runs/... split=val`: open loop on held-out episodes, with a plot and a record in MLflow.

With suite=NAME: closed loop (cli.rollouts).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.output import check_format, emit
from vlakit.cli.shards import progress_bar
from vlakit.cli.suites import split_words
from vlakit.errors import CheckpointMismatch, ConfigError, nearest

if TYPE_CHECKING:
    from vlakit.data.shards.reader import ShardFolder
    from vlakit.evaluation.open_loop import OpenLoopResult
    from vlakit.policy import TrainedPolicy

log = logging.getLogger(__name__)


def main(overrides: Sequence[str]) -> None:
    """Evaluate one checkpoint in a suite, or on the frames of each of its datasets."""
    words, inner = split_words(overrides)
    given = {word.partition("=")[0] for word in words}
    cfg = verb_config("evaluate", [*words, *(["ckpt=null"] if "policy" in given and "ckpt" not in given else [])])
    check_format(cfg["format"])
    if cfg["suite"] is not None:
        from vlakit.cli.rollouts import closed_loop

        closed_loop(cfg, inner)
        return
    if cfg["policy"] is not None or inner:
        raise ConfigError("no suite was named", where="command line", do="add suite=NAME, a file of conf/suite")
    open_loop_report(cfg)


def evaluate_trained(asked: Mapping[str, Any], ckpt: Path, tracking_uri: str | None) -> dict[str, float]:
    """Evaluate the checkpoint of a run that just ended, beside it and in its record; returns eval/success.

    asked: keys of conf/evaluate.yaml. Raises ConfigError for others, and what an evaluation refuses.
    """
    from vlakit.cli.rollouts import evaluate_in_suite

    cfg = verb_config("evaluate", ["ckpt=null"])
    for key in asked:
        if key not in cfg:
            raise ConfigError(f"{key!r} is no key of vlakit evaluate", where="evaluate", do=nearest(key, cfg))
    cfg |= {**asked, "ckpt": str(ckpt), "tracking_uri": tracking_uri or cfg["tracking_uri"]}
    found = evaluate_in_suite(cfg, [])
    log.info("%s", found.text)
    return {"eval/success": found.report["success"]}


def load_policy(cfg: dict[str, Any]) -> TrainedPolicy:
    """The policy that the keys ckpt, device, constrain, strict, base and trusted describe."""
    from vlakit.checkpoints.formats import LoadOptions
    from vlakit.policy import TrainedPolicy

    return TrainedPolicy.from_checkpoint(
        cfg["ckpt"],
        device=cfg["device"],
        constrain=cfg["constrain"],
        strict=cfg["strict"],
        options=LoadOptions(base=cfg["base"], trusted=tuple(cfg["trusted"])),
    )


def open_loop_report(cfg: dict[str, Any]) -> None:
    """Open loop on each of the checkpoint's datasets: a plot, the scores, a record."""
    from vlakit.evaluation.open_loop import open_loop
    from vlakit.evaluation.plots import draw_trajectories

    policy = load_policy(cfg)
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
    _record(policy.card.to_dict(), cfg["tracking_uri"], reports, files)
    report = {
        "ckpt": str(cfg["ckpt"]),
        "strategy": policy.card.strategy,
        "split": cfg["split"],
        "datasets": reports,
    }
    emit(report, "\n".join(texts), cfg["format"])


def shard_folders(policy: TrainedPolicy, data: str | None) -> list[ShardFolder]:
    """The folders to evaluate on: `data`, or those that the checkpoint's run trained on, checked by their hashes."""
    from vlakit.data.shards.reader import ShardFolder

    card, known = policy.card.to_dict(), policy.processor.statistics
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
        if card.get("shards", {}).get(folder.dataset) not in {None, folder.content_hash}:
            log.warning("%s holds other shards than the checkpoint's run read", folder.path)
    return folders


def table(result: OpenLoopResult) -> str:
    """Scores of the policy and the baselines, aligned."""
    size = len(next(iter(result.scores.values())).l1_per_dimension)
    header = f"{'':<18}{'token acc.':>11}{'L1 norm.':>10}  L1 per dimension, physical units"
    lines = [f"{result.dataset}, {result.split}: {len(result.episodes)} episodes, {result.n_frames} frames", header]
    for name, scores in result.scores.items():
        dimensions = "".join(f"{value:>9.4f}" for value in scores.l1_per_dimension)
        accuracy = "-" if scores.token_accuracy is None else f"{scores.token_accuracy:.3f}"
        lines.append(f"{name:<18}{accuracy:>11}{scores.l1:>10.4f}{dimensions}")
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
        if report["scores"]["policy"][metric] is not None
    }
    if not record_evaluation(tracking_uri, run_id, metrics, files):
        log.warning("run %s is not in %s: the numbers are in the files only", run_id, tracking_uri)


def _folder_of(ckpt: Path) -> Path:
    return ckpt if ckpt.is_dir() else ckpt.parent
