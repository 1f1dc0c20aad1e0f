"""Going on from a checkpoint: which it is, and whether the command asks for the training that wrote it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from omegaconf import OmegaConf

from vlakit import __version__
from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.file import check_whole, checkpoint_file, read_checkpoint
from vlakit.errors import CheckpointMismatch, ConfigError
from vlakit.trees import changes, flat

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from lightning import Trainer
    from omegaconf import DictConfig

    from vlakit.strategies.base import PolicyModule

log = logging.getLogger(__name__)
AUTO = "auto"  # as ckpt_path: the newest usable checkpoint of the run's own folder, where there is one
ALIKE = ("strategy", "data", "trainer.gradient_clip_val", "trainer.accumulate_grad_batches", "trainer.precision")
FREE = (
    "data.root",
    "data.sources",
    "data.specs",
    "data.questions",
    "data.made_by",
    "data.num_workers",
    "strategy.weights",
    "strategy.feature_cache",
)
BATCH = "data.batch_size"  # of one device: compared for all of them together


@dataclass(frozen=True)
class Resumed:
    """A checkpoint to go on from. step: steps done; before: what its run is to share with this one, as far as known."""

    file: Path
    card: Card
    step: int
    before: Mapping[str, Any]

    @classmethod
    def of(cls, cfg: DictConfig, policy: PolicyModule, *, finish: bool = False) -> Resumed | None:
        """The checkpoint of ckpt_path, before anything is recorded or built; None without one.

        finish: whether one that has done all steps may still be evaluated and filed, as a job of a sweep is. Raises
        CheckpointMismatch for one of another strategy, and for one without a training to go on with; ConfigError for
        one that leaves nothing to do, or other settings than its own.
        """
        from vlakit.cli.configuration import to_plain

        if cfg.ckpt_path is None:
            return None
        file = checkpoint_file(cfg.ckpt_path)
        content = read_checkpoint(file)
        card = Card.from_dict(content[CARD], where=str(file))
        policy.check_resumed(card, where=str(file))
        _check_training(content, file)
        resumed = cls(file, card, int(content["global_step"]), _before(content, file))
        resumed._check_settings(compared(to_plain(cfg)))
        if cfg.steps <= resumed.step and not (finish and cfg.steps == resumed.step):
            raise ConfigError(
                f"steps={cfg.steps}, and the checkpoint has done {resumed.step}: nothing is left to train",
                where=str(file),
                do=f"steps=N above {resumed.step}; what it can do: vlakit score ckpt={file}",
            )
        resumed._warn_of_rates(cfg)
        return resumed

    def _warn_of_rates(self, cfg: DictConfig) -> None:
        steps = self.before.get("steps", cfg.steps)
        if steps != cfg.steps and not cfg.strategy.scheduler._target_.endswith(".constant"):
            what = "steps=%d, and the run began at %d: its schedule had that length up to step %d and has this one now"
            log.warning(what, cfg.steps, steps, self.step)

    def _check_settings(self, now: Mapping[str, Any]) -> None:
        before = self.before.get("config", now)
        if self.before.get("version") != __version__:  # another version may have added a key, or dropped one
            before = {key: value for key, value in before.items() if key in now}
            now = {key: value for key, value in now.items() if key in before}
        differing = [(key, *pair) for key, pair in changes(before, now).items() if key != BATCH]
        if differing:
            told = "; ".join(f"{key}: {was} in the run, {value} here" for key, was, value in differing[:5])
            what = f"a run goes on as it began, and this differs: {told}"
            do = "give the run's own values; to train on with others: model.weights=CKPT in place of ckpt_path"
            raise ConfigError(what, where=str(self.file), do=do)

    def check_devices(self, cfg: DictConfig, trainer: Trainer) -> None:
        """Refuse another number of samples in a step, which is batch_size on each device. Raises ConfigError."""
        devices, batch = self.before.get("devices"), self.before.get("config", {}).get(BATCH)
        if batch is None:
            return
        devices, now, own = devices or trainer.world_size, trainer.world_size, cfg.data.batch_size
        if batch * devices == own * now:
            return
        whole = batch * devices % now == 0
        raise ConfigError(
            f"the run took {batch} samples on each of {devices} device(s) a step, this would take {own} on {now}",
            where=str(self.file),
            do=f"batch_size={batch * devices // now}: {batch} x {devices} / {now}"
            if whole
            else f"a number of devices that divides {batch * devices}, and batch_size={batch} x {devices} / DEVICES",
        )


def settle(cfg: DictConfig) -> bool:
    """Put what ckpt_path=auto finds in its place; whether it stood there."""
    if cfg.ckpt_path != AUTO:
        return False
    found = newest(Path(cfg.paths.output))
    cfg.ckpt_path = None if found is None else str(found)
    return True


def newest(folder: Path) -> Path | None:
    """The last written checkpoint of a folder from which a training can go on; None where there is none.

    A line of the log says which, and what is damaged, torn or holds no training and was passed over.
    """
    passed: list[str] = []
    chosen, found = None, "begins anew"
    for file in sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            check_whole(file)
            content = read_checkpoint(file, mmap=True)
            _check_training(content, file)
        except CheckpointMismatch as error:
            passed.append(f"{file.name}: {error.what}")
        else:
            chosen, found = file, f"goes on from {file}, step {content['global_step']}"
            break
    told = f"ckpt_path={AUTO}: {found}" + (f"; passed over {'; '.join(passed)}" if passed else "")
    log.log(logging.WARNING if passed else logging.INFO, "%s", told)
    return chosen


def _unresolved(cfg: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))


def check_folder_stays(cfg: DictConfig, hydra: HydraConf) -> None:
    """Refuse ckpt_path=auto where every command makes a folder of its own. Raises ConfigError."""
    many = hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    folder = str(_unresolved(hydra.sweep if many else hydra.run)["dir"])
    output = str(_unresolved(cfg.paths)["output"])
    if cfg.ckpt_path == AUTO and "${now:" in folder and (many or "${hydra:" in output):
        what = f"ckpt_path={AUTO} looks in the run's own folder, and this command makes a new one each time"
        do = f"name the folder: hydra.{'sweep' if many else 'run'}.dir=DIR"
        raise ConfigError(what, where="command line", do=do)


def compared(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> value of all that a run must share with the one that it goes on with; classes by their names."""
    values = {
        key: value
        for key, value in flat(plain).items()
        if key.startswith(tuple(f"{name}." for name in ALIKE)) or key in ALIKE
    }
    kept = {key: value for key, value in values.items() if not key.startswith(FREE)}
    return {key: str(value).rpartition(".")[2] if key.endswith("_target_") else value for key, value in kept.items()}


def _check_training(content: Mapping[str, Any], file: Path) -> None:
    if "loops" not in content:  # exported, or shipped
        raise CheckpointMismatch(
            "the checkpoint holds weights alone, and no training to go on with",
            where=str(file),
            do="to start from its weights: model.weights=CKPT in place of ckpt_path",
        )


def _before(content: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """What the checkpoint says of its run; an older one leaves that to the config.yaml beside it."""
    told = content.get("callbacks", {}).get("Record")
    if told is not None:
        return told
    beside = file.parent / "config.yaml"
    try:
        return {"config": compared(yaml.safe_load(beside.read_text(encoding="utf-8")))} if beside.is_file() else {}
    except (yaml.YAMLError, AttributeError):
        return {}
