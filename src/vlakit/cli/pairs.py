"""`vlakit pairs rollouts=DIR pairing=all`: preferred and rejected episodes, with the reference's log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, emit, request_of
from vlakit.cli.policies import load_policy
from vlakit.cli.suites import recorded_settings


def main(overrides: Sequence[str]) -> None:
    """Make the pairs and say what the starts gave."""
    cfg = verb_config("pairs", overrides)
    check_format(cfg["format"])
    from vlakit.collecting.pairing import make_pairs
    from vlakit.evaluation.building import build_suite
    from vlakit.preferences.episodes import Rollouts
    from vlakit.preferences.pair_file import described
    from vlakit.preferences.pairs import PairPlan

    plan = request_of(PairPlan, cfg, "pairs")
    rollouts = Rollouts.open(cfg["rollouts"])
    header, where = rollouts.header, str(rollouts.path)
    out = check_writable(cfg["out"] or Path(f"{rollouts.path}_pairs"))
    check_device(cfg["device"])
    suite = build_suite(recorded_settings(header["suite_name"], header["suite_settings"], (), where))
    cfg |= {"ckpt": cfg["ckpt"] or header["policy"]["name"], "constrain": header["constrain"]}
    made = make_pairs(load_policy(cfg), rollouts, suite, plan, out, name=cfg["ckpt"], at_once=cfg["at_once"])
    report = {key: value for key, value in made.items() if key not in ("spans", "pairs", "statistics")}
    last = f"pairs in {out}; next: vlakit train experiment=dpo data.pairs={out} model.weights={cfg['ckpt']}"
    emit({"out": str(out), **report}, "\n".join([*described(made), last]), cfg["format"])
