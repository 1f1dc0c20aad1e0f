"""What goes into a run's record: resolved configuration, git commit, shard hashes, parameter counts."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from vlakit import __version__
from vlakit.accounting.parameters import count_parameters
from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.file import WEIGHTS, read_checkpoint, weights_file
from vlakit.cli.configuration import to_plain
from vlakit.errors import CheckpointMismatch
from vlakit.files import content_hash
from vlakit.tracking.loggers import Begun, RunLogger
from vlakit.trees import flat

if TYPE_CHECKING:
    from vlakit.data.stream.datamodule import VLADataModule
    from vlakit.strategies.base import PolicyModule

log = logging.getLogger(__name__)


class Record(Callback):
    """The run's record: opened when the network stands, for its name and numbers belong to it.

    logger: None for logger=none; card: of the checkpoint that the run goes on from, and in whose record it does.
    """

    def __init__(
        self, cfg: DictConfig, run_name: str, parent: str | None, data: VLADataModule, card: Card | None = None
    ) -> None:
        self.cfg, self.data, self.card = cfg, data, card
        begun = Begun(run_name, parent, {} if self.card is None else self.card.facts)
        recorded = cfg.logger.get("_target_") is not None
        self.logger: RunLogger | None = instantiate(cfg.logger, begun=begun) if recorded else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the resolved configuration beside the checkpoints and file everything that says what this run is."""
        policy = cast("PolicyModule", pl_module)
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
            "shards": self.data.hashes,
            "data": self.data.folders,
            "experiment": str(self.cfg.name),
        }
        if self.logger is None or is_helper():  # whose logger is a dummy
            return
        policy.facts[self.logger.ID] = str(self.logger.version)
        self.logger.record(flat(to_plain(self.cfg)), self._tags(policy), self.data.hashes, [resolved])
        self.logger.log_metrics({"params/trainable": trainable, "params/total": total}, step=0)

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
            "vlakit.output": str(Path(self.cfg.paths.output)),
            "mlflow.source.git.commit": commit,
            "mlflow.source.git.branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
            "git.dirty": dirty,
            **{f"shards.{name}": digest for name, digest in self.data.hashes.items()},
        }


def resumed_card(policy: PolicyModule, file: Path) -> Card:
    """The card of the checkpoint that a run is to go on from, before anything is recorded or built.

    Raises CheckpointMismatch for one of another strategy, and for one without a training to go on with.
    """
    content = read_checkpoint(file)
    card = Card.from_dict(content[CARD], where=str(file))
    policy.check_resumed(card, where=str(file))
    if "loops" not in content:  # exported, or shipped
        raise CheckpointMismatch(
            "the checkpoint holds weights alone, and no training to go on with",
            where=str(file),
            do="to start from its weights: model.weights=CKPT in place of ckpt_path",
        )
    return card


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
