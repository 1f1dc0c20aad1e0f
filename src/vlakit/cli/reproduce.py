"""`vlakit reproduce passport=FILE`: the run again, its episodes again, and whether they are the same."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from vlakit.cli.configuration import verb_config
from vlakit.cli.output import check_format, check_fractions, emit
from vlakit.cli.suites import split_words
from vlakit.errors import CheckpointMismatch, ConfigError

log = logging.getLogger(__name__)


def main(overrides: Sequence[str]) -> None:
    """Check the data and the world, train, evaluate, compare; exits with 1 unless the run is reproduced."""
    own, suite_words = split_words(overrides)
    cfg = verb_config("reproduce", own)
    check_format(cfg["format"])
    from vlakit.compare.pairs import Settings
    from vlakit.files import write_atomically
    from vlakit.reports.passport.check import REPRODUCED, compare
    from vlakit.reports.passport.passport import read_evaluation, read_passport

    check_fractions(confidence=cfg["confidence"], margin=cfg["margin"])
    settings = Settings(confidence=cfg["confidence"], margin=cfg["margin"])
    file, passport = read_passport(Path(cfg["passport"]).expanduser())
    then, training = passport["evaluations"], _training(cfg, passport, file)
    out = _target(cfg["out"] or f"{cfg['paths']['runs']}/reproduced/{datetime.now():%Y%m%d-%H%M%S-%f}")
    words = [[*_suite_words(evaluation), *suite_words] for evaluation in then]
    _check_worlds(then, words)
    if training is None:
        files = [_stored(cfg, evaluation, file) for evaluation in then]
    else:
        from vlakit.cli.recording import is_helper

        _train(training, cfg, out)
        if is_helper():
            return
        files = [out / e["checkpoint"]["name"] if "checkpoint" in e else None for e in then]
    folders = [out / "evaluation" / evaluation["suite"] for evaluation in then]
    for evaluation, inner, ckpt, folder in zip(then, words, files, folders, strict=True):
        _evaluate(evaluation, inner, ckpt, folder, cfg)
    found = compare(then, [read_evaluation(folder) for folder in folders], settings)
    report = {"passport": str(file), "out": str(out), "trained": training is not None, **found.to_dict()}
    write_atomically(out / "reproduction.json", json.dumps(report, indent=1) + "\n")
    emit(report, f"{found}\nepisodes in {out}", cfg["format"])
    if found.verdict != REPRODUCED:
        sys.exit(1)


def _training(cfg: Mapping[str, Any], passport: Mapping[str, Any], file: Path) -> dict[str, Any] | None:
    """What to train, None for nothing; warns of another commit."""
    training = passport["training"]
    if training is None and cfg["train"]:
        raise ConfigError("the passport records no training", where=str(file), do="leave train=true out")
    if training is None or cfg["train"] is False:
        return None
    from vlakit.cli.recording import git_state

    then, (now, _) = training["record"].get("commit"), git_state()
    if then not in (None, now):
        log.warning("the run was made with vlakit at commit %s, this is %s", then, now)
    return training


def _target(out: str) -> Path:
    from vlakit.cli.recording import is_helper

    folder = Path(out).expanduser()
    if folder.exists() and any(folder.iterdir()) and not is_helper():
        raise ConfigError("the target is there already", where=out, do="choose another out=DIR")
    return folder.absolute()


def _suite_words(evaluation: Mapping[str, Any]) -> list[str]:
    """The words by which the suite's settings become the recorded ones."""
    from vlakit.cli.suites import suite_settings

    then, now = evaluation["settings"]["suite_settings"], suite_settings(evaluation["suite"])
    return [f"++suite.{key}={json.dumps(value)}" for key, value in then.items() if now.get(key, ...) != value]


def _check_worlds(then: Sequence[Mapping[str, Any]], words: Sequence[list[str]]) -> None:
    """Before hours of training: are the initial states and the simulator those of the passport?"""
    from vlakit.cli.suites import build_suite, suite_settings
    from vlakit.evaluation.starts import digest, shared_states
    from vlakit.reports.passport.check import check_world

    for evaluation, inner in zip(then, words, strict=True):
        suite, asked = build_suite(suite_settings(evaluation["suite"], inner)), evaluation["settings"]
        states = digest(shared_states(suite, asked["episodes"], asked["tasks"]))
        check_world(evaluation, states, suite.versions)


def _stored(cfg: Mapping[str, Any], evaluation: Mapping[str, Any], file: Path) -> Path | str | None:
    """The checkpoint that was evaluated, None for a control. Raises CheckpointMismatch for another."""
    from vlakit.checkpoints.shipped import is_shipped, resolve
    from vlakit.files import content_hash

    recorded = evaluation.get("checkpoint")
    if recorded is None:
        return None
    name = recorded["name"]
    above = [folder / name for folder in list(file.absolute().parents)[:4]]
    places = [Path(cfg["ckpt"]).expanduser()] if cfg["ckpt"] else [resolve(name)] if is_shipped(name) else above
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise CheckpointMismatch(f"{name} is not here", where=", ".join(map(str, places)), do="ckpt=FILE says where")
    digest = content_hash(found)
    if digest != recorded["sha256"]:
        raise CheckpointMismatch(
            f"not the checkpoint of the passport: sha256 {digest[:12]}, recorded {recorded['sha256'][:12]}",
            where=str(found),
            do="ckpt=FILE, the one that was evaluated",
        )
    return name if is_shipped(name) and not cfg["ckpt"] else found


def _train(training: Mapping[str, Any], cfg: Mapping[str, Any], out: Path) -> None:
    """Train as recorded: the same composed configuration on the same data, without a record in MLflow."""
    from vlakit.checkpoints.file import weights_file
    from vlakit.cli.train import train
    from vlakit.files import content_hash
    from vlakit.reports.paths import relocated

    roots = {"<runs>": cfg["paths"]["runs"], "<data>": cfg["paths"]["data"], "<output>": str(out)}
    plain = relocated(training["config"], roots)
    plain["data"]["root"] = cfg["data"]["root"] or plain["data"]["root"]
    names = plain["model"]["processor"]
    names["tokenizer_path"] = cfg["model"]["processor"]["tokenizer_path"] or names["tokenizer_path"]
    plain["ckpt_path"], plain["evaluate"]["suite"] = None, None  # evaluations follow as they are recorded
    if training["weights"] is not None:
        weights = cfg["weights"] or relocated(training["weights"]["name"], roots)
        plain["model"]["weights"] = plain["strategy"]["weights"] = weights
        file, digest = weights_file(weights), training["weights"]["sha256"]
        if file is None or digest not in (None, content_hash(file)):
            why = "are not those of the passport" if file else "are not here"
            raise CheckpointMismatch(f"the weights it started from {why}", where=str(weights), do="weights=FILE")
    composed = cast(DictConfig, OmegaConf.create(plain))
    _check_data(training, composed)
    train(composed)


def _check_data(training: Mapping[str, Any], composed: Any) -> None:
    from hydra.utils import instantiate

    from vlakit.cli.configuration import to_plain
    from vlakit.processing.processor import build_processor
    from vlakit.reports.passport.check import check_data

    root = Path(composed.data.root)
    if not root.is_dir() and not composed.data.get("sources"):
        raise ConfigError("the data is not here", where=str(root), do="data.root=DIR says where")
    processor = build_processor(to_plain(composed.model.processor), seed=composed.seed)
    data = instantiate(composed.data, processor=processor, _convert_="all")
    check_data(training["shards"], data.hashes, str(root))


def _evaluate(
    evaluation: Mapping[str, Any], words: Sequence[str], ckpt: Path | str | None, out: Path, cfg: Mapping[str, Any]
) -> None:
    """Roll the recorded episodes out again into `out`."""
    from vlakit.cli.rollouts import evaluate_in_suite

    then, policy = evaluation["settings"], evaluation["settings"]["policy"]
    asked = verb_config("evaluate", ["ckpt=null"])
    asked |= {key: then[key] for key in ("suite", "tasks", "episodes", "slots", "seed", "control")}
    asked |= {key: cfg[key] for key in ("base", "trusted", "workers")}
    asked |= {
        "ckpt": None if ckpt is None else str(ckpt),
        "policy": policy.get("control"),
        "constrain": policy.get("constrain", True),
        "device": cfg["device"] or policy.get("device", "cpu"),
        "strict": evaluation["strict"],
        "gate": "skipped" not in (evaluation["gate"] or {}),
        "out": str(out),
        "tracking_uri": None,  # the original's record is not this evaluation's
    }
    evaluate_in_suite(asked, words)
