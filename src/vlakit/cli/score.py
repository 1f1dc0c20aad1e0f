"""`vlakit score ckpt=runs/... split=val`: open loop on held-out episodes, with a plot and a record in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, emit, request_of
from vlakit.cli.policies import home_of, load_policy
from vlakit.cli.progress import progress_bar
from vlakit.compare.grids import Grid, aligned

if TYPE_CHECKING:
    from vlakit.evaluation.open_loop import OpenLoopResult


def main(overrides: Sequence[str]) -> None:
    """Score a checkpoint on the frames of each of its datasets."""
    cfg = verb_config("score", overrides)
    check_format(cfg["format"])
    from vlakit.evaluation.scoring import ScoreRequest, score_policy
    from vlakit.evaluation.speed import latency
    from vlakit.evaluation.tracked import record_scores

    request = request_of(ScoreRequest, cfg, "score")
    check_device(cfg["device"])
    out = check_writable(cfg["out"] or (home_of(cfg["ckpt"]) or Path(cfg["ckpt"]).parent) / "evaluation")
    policy = load_policy(cfg)
    with progress_bar("frames") as progress:
        scored = score_policy(policy, request, out, progress=progress)
    record_scores(scored, policy.card.facts, cfg["tracking_uri"])
    report = {"ckpt": str(cfg["ckpt"]), "strategy": policy.card.strategy, **scored.to_dict()}
    word = "plot" if request.plots else "numbers"
    lines = [f"{table(result)}\n{word}: {scored.files[name][0]}" for name, result in scored.results.items()]
    if policy.quantization is not None:
        quantization = replace(policy.quantization, latency=latency(policy))
        report["quantization"] = quantization.to_dict()
        lines.append(str(quantization))
    emit(report, "\n".join(lines), cfg["format"])


def table(result: OpenLoopResult) -> str:
    """Scores of the policy and the baselines, aligned; L1 of each dimension in physical units."""
    size = len(next(iter(result.scores.values())).l1_per_dimension)
    header = ["what", "token acc.", "L1 norm.", *(f"L1 of {dimension}" for dimension in range(size))]
    rows = [
        [
            name,
            "-" if scores.token_accuracy is None else f"{scores.token_accuracy:.3f}",
            *(f"{value:.4f}" for value in (scores.l1, *scores.l1_per_dimension)),
        ]
        for name, scores in result.scores.items()
    ]
    title = f"{result.dataset}, {result.split}: {len(result.episodes)} episodes, {result.n_frames} frames"
    return "\n".join([title, *aligned(Grid(title, header, rows))])
