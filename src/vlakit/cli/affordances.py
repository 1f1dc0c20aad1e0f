"""`vlakit affordances ckpt=CKPT suite=tabletop_plans`: how likely each skill is to succeed, learnt from tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, emit
from vlakit.cli.policies import home_of, load_policy
from vlakit.cli.suites import split_words, suite_settings
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from vlakit.planning.values import Calibration


def main(overrides: Sequence[str]) -> None:
    """Try skills, learn their values, write the file and say how good they are on starts that were held out."""
    words, suite_words = split_words(overrides)
    cfg = verb_config("affordances", words)
    check_format(cfg["format"])
    if cfg["learn"] == "td0" and cfg["every"] is None:
        raise ConfigError("td0 learns from one look to the next", where="learn=td0", do="every=10, or learn=mc")
    check_device(cfg["device"])
    from vlakit.evaluation.building import build_suite
    from vlakit.evaluation.subject import checkpoint
    from vlakit.planning.exploring import explored
    from vlakit.planning.looks import look_of
    from vlakit.planning.skills import skills_of
    from vlakit.planning.value_files import save_values
    from vlakit.planning.values import Fit

    suite = build_suite(suite_settings(cfg["suite"], suite_words))
    skills = skills_of(suite)
    out = check_writable(cfg["out"] or (home_of(cfg["ckpt"]) or Path.cwd()) / "values.pt")
    policy = load_policy(cfg)
    states = suite.training_states(suite.tasks[0], 1, cfg["seed"])
    checkpoint(policy, str(cfg["ckpt"]), suite, states, strict=cfg["strict"] is not False)
    policy.pad_to = policy.processor.text_width(skills.options)
    slots = min(cfg["slots"], cfg["episodes"])
    lots = {"episodes": cfg["episodes"], "slots": slots, "seed": cfg["seed"], "every": cfg["every"]}
    tries = explored(policy, suite, look_of(cfg["look"], policy, skills), **lots)
    fitted = Fit(epochs=cfg["epochs"], seed=cfg["seed"], bootstrap=cfg["learn"] == "td0")(tries, skills)
    save_values(out, fitted, skills, policy.content_hash(), cfg["look"])
    report = {"out": str(out), "tries": len(tries), "skills": len(skills), **asdict(fitted.held_out)}
    report["done"] = None if fitted.ended is None else asdict(fitted.ended)
    lines = [f"{len(tries)} tries; of {fitted.held_out.n} from starts held out:", text(fitted.held_out)]
    lines += [] if fitted.ended is None else ["of whether a skill has come about (done):", text(fitted.ended)]
    emit(report, "\n".join([*lines, f"values in {out}"]), cfg["format"])


def text(held_out: Calibration) -> str:
    """One line."""
    area = "no AUROC: one outcome only" if held_out.auroc is None else f"AUROC {held_out.auroc:.3f}"
    return f"{area}, Brier {held_out.brier:.3f}, ECE {held_out.ece:.3f}; {held_out.base_rate:.3f} of them succeeded"
