"""`vlakit reproduce passport=FILE`: the run again, its episodes again, and whether they are the same."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, check_fractions, emit
from vlakit.cli.suites import recorded_settings, split_words
from vlakit.cli.targets import check_keys, known_targets, own_targets
from vlakit.errors import CheckpointMismatch, ConfigError

if TYPE_CHECKING:
    from vlakit.evaluation.run import Request
    from vlakit.evaluation.suite import Suite

log = logging.getLogger(__name__)


def main(overrides: Sequence[str]) -> None:
    """Check the data and the world, train, evaluate, compare; exits with 1 unless the run is reproduced."""
    words, suite_words = split_words(overrides)
    cfg = verb_config("reproduce", words)
    check_format(cfg["format"])
    check_device(cfg["device"])
    from vlakit.compare.pairs import Settings
    from vlakit.files import write_atomically
    from vlakit.reports.passport.check import REPRODUCED, compare
    from vlakit.reports.passport.passport import read_evaluation, read_passport

    check_fractions(confidence=cfg["confidence"], margin=cfg["margin"])
    settings = Settings(confidence=cfg["confidence"], margin=cfg["margin"])
    file, passport = read_passport(Path(cfg["passport"]).expanduser())
    then, training = passport["evaluations"], _training(cfg, passport, file)
    out = _target(cfg["out"] or f"{cfg['paths']['runs']}/reproduced/{datetime.now():%Y%m%d-%H%M%S-%f}")
    repeats = [Repeat.of(evaluation, suite_words, str(file), cfg["workers"]) for evaluation in then]
    if training is None:
        ckpts = [_stored(cfg, evaluation, file) for evaluation in then]
    else:
        from vlakit.cli.recording import is_helper

        _train(training, cfg, out, str(file))
        if is_helper():
            return
        ckpts = [out / e["checkpoint"]["name"] if "checkpoint" in e else None for e in then]
    folders = [repeat.run(ckpt, out / "evaluation", cfg) for repeat, ckpt in zip(repeats, ckpts, strict=True)]
    reproduction = compare(then, [read_evaluation(folder) for folder in folders], settings)
    report = {"passport": str(file), "out": str(out), "trained": training is not None, **asdict(reproduction)}
    write_atomically(out / "reproduction.json", json.dumps(report, indent=1) + "\n")
    emit(report, f"{reproduction}\nepisodes in {out}", cfg["format"])
    if reproduction.verdict != REPRODUCED:
        sys.exit(1)


@dataclass(frozen=True)
class Repeat:
    """One recorded evaluation, ready to be rolled out again."""

    evaluation: Mapping[str, Any]
    suite: Suite
    suite_settings: Mapping[str, Any]
    request: Request

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], suite_words: Sequence[str], where: str, workers: int) -> Repeat:
        """As the passport records it. Raises InvalidData where the initial states or the simulator are not the same."""
        from vlakit.checked import check
        from vlakit.evaluation.building import build_suite
        from vlakit.evaluation.run import Request
        from vlakit.evaluation.starts import fingerprint
        from vlakit.reports.passport.check import check_world

        recorded = evaluation["settings"]
        own_targets({key: value for key, value in recorded.items() if key != "suite_settings"}, where, {})
        values = {key: recorded[key] for key in ("tasks", "episodes", "slots", "seed", "control")}
        gate = "skipped" not in (evaluation["gate"] or {})
        request = check(
            Request,
            {**values, "strict": None if evaluation["strict"] else False, "gate": gate, "workers": workers},
            where,
        )
        settings = recorded_settings(evaluation["suite"], recorded["suite_settings"], suite_words, where)
        suite = build_suite(settings)
        check_world(evaluation, fingerprint(request.states(suite)), suite.versions)
        return cls(evaluation, suite, settings, request)

    def run(self, ckpt: Path | str | None, root: Path, cfg: Mapping[str, Any]) -> Path:
        """Roll the episodes out again, without a record in the original's run; the folder of their records."""
        from vlakit.cli.policies import load_policy
        from vlakit.cli.progress import success_bar
        from vlakit.evaluation.run import evaluate

        recorded, out = self.evaluation["settings"]["policy"], root / self.evaluation["suite"]
        options = {"constrain": recorded.get("constrain", True), "strict": self.request.strict}
        options |= {key: recorded[key] for key in ("quantize", "quantize_also") if key in recorded}
        device = cfg["device"] or recorded.get("device", "cpu")
        policy = load_policy({**cfg, **options, "ckpt": ckpt, "device": device}) if ckpt else recorded["control"]
        with success_bar() as progress:
            evaluate(
                policy,
                self.suite,
                self.request,
                out,
                name=str(ckpt),
                suite_settings=self.suite_settings,
                progress=progress,
            )
        return out


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
    return check_writable(folder).absolute()


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
    place = next((place for place in places if place.exists()), None)
    if place is None:
        raise CheckpointMismatch(f"{name} is not here", where=", ".join(map(str, places)), do="ckpt=FILE says where")
    sha256 = content_hash(place)
    if sha256 != recorded["sha256"]:
        what = f"not the checkpoint of the passport: sha256 {sha256[:12]}, recorded {recorded['sha256'][:12]}"
        raise CheckpointMismatch(what, where=str(place), do="ckpt=FILE, the one that was evaluated")
    return name if is_shipped(name) and not cfg["ckpt"] else place


def _train(training: Mapping[str, Any], cfg: Mapping[str, Any], out: Path, where: str) -> None:
    """Train as recorded: the same composed configuration on the same data, without a record in MLflow."""
    from vlakit.cli.train import train
    from vlakit.reports.paths import relocated

    roots = {"<runs>": cfg["paths"]["runs"], "<data>": cfg["paths"]["data"], "<output>": str(out)}
    plain = own_targets(relocated(training["config"], roots), where, known_targets(), cfg["trusted"])
    check_keys(plain, where)
    # Where it writes, and whom it tells, is not the file's to say.
    plain["logger"], plain["paths"] = {}, {**plain["paths"], "output": str(out)}
    plain["data"]["root"] = cfg["data"]["root"] or plain["data"]["root"]
    names = plain["model"]["processor"]
    names["tokenizer_path"] = cfg["model"]["processor"]["tokenizer_path"] or names["tokenizer_path"]
    plain["ckpt_path"], plain["evaluate"]["suite"] = None, None  # evaluations follow as they are recorded
    if training["weights"] is not None:
        weights = cfg["weights"] or relocated(training["weights"]["name"], roots)
        plain["model"]["weights"] = plain["strategy"]["weights"] = weights
        _check_weights(weights, training["weights"]["sha256"])
    composed = cast(DictConfig, OmegaConf.create(plain))
    _check_data(training, composed)
    train(composed)


def _check_weights(weights: str, recorded: str | None) -> None:
    from vlakit.checkpoints.file import weights_file
    from vlakit.files import content_hash

    file = weights_file(weights)
    if file is None or recorded not in (None, content_hash(file)):
        why = "are not those of the passport" if file else "are not here"
        raise CheckpointMismatch(f"the weights it started from {why}", where=str(weights), do="weights=FILE")


def _check_data(training: Mapping[str, Any], composed: Any) -> None:
    from hydra.utils import instantiate

    from vlakit.cli.configuration import to_plain
    from vlakit.data.shards.remote import url_of
    from vlakit.processing.processor import build_processor
    from vlakit.reports.passport.check import check_data

    root = Path(composed.data.root)
    if url_of(root) is None and not root.is_dir() and not composed.data.get("sources"):
        raise ConfigError("the data is not here", where=str(root), do="data.root=DIR says where")
    processor = build_processor(to_plain(composed.model.processor), seed=composed.seed)
    data = instantiate(composed.data, processor=processor, _convert_="all")
    check_data(training["shards"], data.hashes, str(root))
