"""What goes into a run's record: resolved configuration, git commit, shard hashes, parameter counts."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, cast

from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from vlakit import __version__
from vlakit.accounting.parameters import count_parameters
from vlakit.checkpoints.file import START, WEIGHTS, weights_file
from vlakit.checkpoints.shipped import is_shipped
from vlakit.cli.configuration import to_plain
from vlakit.cli.resuming import Resumed, compared
from vlakit.files import content_hash
from vlakit.tracking.loggers import Begun, MlflowRun, RunLogger
from vlakit.tracking.mlflow import HOST, OUTPUT
from vlakit.tracking.params import params_of
from vlakit.trees import flat

if TYPE_CHECKING:
    from vlakit.data.stream.datamodule import VLADataModule
    from vlakit.strategies.base import PolicyModule

log = logging.getLogger(__name__)


class Record(Callback):
    """The run's record: opened when the network stands, for its name and numbers belong to it.

    logger: None for logger=none; resumed: the checkpoint that the run goes on from, in whose record it does.
    """

    def __init__(
        self, cfg: DictConfig, run_name: str, parent: str | None, data: VLADataModule, resumed: Resumed | None = None
    ) -> None:
        self.cfg, self.data = cfg, data
        self.card = None if resumed is None else resumed.card
        self.devices = 1
        begun = Begun(run_name, parent, {} if self.card is None else self.card.facts)
        recorded = cfg.logger.get("_target_") is not None
        self.logger: RunLogger | None = instantiate(cfg.logger, begun=begun) if recorded else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the resolved configuration beside the checkpoints and file everything that says what this run is."""
        policy, self.devices = cast("PolicyModule", pl_module), trainer.world_size
        trainable, total = count_parameters(policy.model)
        log.info("trainable %s of %s (%.2f %%)", f"{trainable:,}", f"{total:,}", 100 * trainable / total)
        if policy.weights is None and policy.needs_base and self.card is None:
            log.warning(
                "the base weights are random: name a checkpoint with model.weights=..., e.g. of experiment=pretrain"
            )
        resolved = self._write_configuration()
        policy.surroundings = self.data.surroundings
        policy.facts |= {
            WEIGHTS: self._weights_hash(policy),
            START: self._start(policy),
            "shards": self.data.hashes,
            "data": self.data.folders,
            "experiment": str(self.cfg.name),
        }
        if self.logger is None or is_helper():  # whose logger is a dummy
            return
        policy.facts[self.logger.ID] = str(self.logger.version)
        params = params_of(to_plain(self.cfg), policy.facts[WEIGHTS]) | {"strategy": policy.name}
        self.logger.record(params, self._tags(policy), self.data.hashes, [resolved])
        self.logger.log_metrics({"params/trainable": trainable, "params/total": total}, step=0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """How long this is to train: a number that may have grown since the run began."""
        if self.logger is not None:
            self.logger.log_metrics({"params/steps": self.cfg.steps}, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """What one that goes on from a checkpoint must share, and points that no store has taken yet."""
        waiting = list(self.logger.points.waiting) if isinstance(self.logger, MlflowRun) else []
        same = {"config": compared(to_plain(self.cfg)), "devices": self.devices, "version": __version__}
        return {**same, "steps": self.cfg.steps, "waiting": waiting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Bring the points along."""
        if isinstance(self.logger, MlflowRun):
            self.logger.points.bring(tuple(point) for point in state_dict["waiting"])

    def keep(self, output: Path) -> None:
        """File the checkpoint."""
        if self.logger is not None:
            self.logger.keep(output)

    def close(self, metrics: Mapping[str, float]) -> None:
        """The run is over."""
        if self.logger is not None:
            self.logger.close(metrics)

    def _weights_hash(self, policy: PolicyModule) -> str | None:
        """Hash of the weights that the run started from; one that resumes takes its first start's."""
        if self.card is not None:
            return self.card.facts.get(WEIGHTS)
        file = None if policy.weights is None else weights_file(policy.weights)
        return None if file is None else content_hash(file)

    def _start(self, policy: PolicyModule) -> dict[str, str | None]:
        """Name and hash of the weights that the run started from; one that resumes takes its first start's."""
        if self.card is not None and START in self.card.facts:
            return self.card.facts[START]
        if policy.weights is None:
            return {"name": "random_init", "sha256": policy.random_start}
        name = policy.weights if is_shipped(policy.weights) else Path(policy.weights).name
        return {"name": name, "sha256": self._weights_hash(policy)}

    def _write_configuration(self) -> Path:
        output = Path(self.cfg.paths.output)
        output.mkdir(parents=True, exist_ok=True)
        resolved = output / "config.yaml"
        resolved.write_text(OmegaConf.to_yaml(OmegaConf.create(to_plain(self.cfg))), encoding="utf-8")
        return resolved

    def _tags(self, policy: PolicyModule) -> dict[str, str]:
        commit, dirty = git_state()
        return {
            "vlakit.version": __version__,
            "vlakit.strategy": policy.name,
            OUTPUT: str(Path(self.cfg.paths.output)),
            HOST: gethostname(),
            **{f"tags.{name}": str(value) for name, value in flat(to_plain(self.cfg.tags)).items()},
            **{f"start.{key}": str(value) for key, value in policy.facts[START].items()},
            "mlflow.source.git.commit": commit,
            "mlflow.source.git.branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
            "git.dirty": dirty,
            **{f"shards.{name}": digest for name, digest in self.data.hashes.items()},
        }


def is_helper() -> bool:
    """Whether this is one of the further processes that a training on several devices starts."""
    return getattr(rank_zero_only, "rank", 0) != 0


def git_state() -> tuple[str, str]:
    """(commit, 'true' or 'false': are tracked files changed) of vlakit's own checkout; 'unknown' when installed."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", "HEAD"), status if status == "unknown" else str(bool(status)).lower()


def _git(*words: str) -> str:
    here = Path(__file__).parent  # not the working folder, which may be another project's
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=here)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
