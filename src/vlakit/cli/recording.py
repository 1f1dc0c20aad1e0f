"""What goes into a run's record: resolved configuration, git commit, shard hashes, parameter counts."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from vlakit import __version__
from vlakit.accounting.parameters import count_parameters
from vlakit.checkpoints.card import CARD, WEIGHTS, read_checkpoint, weights_file
from vlakit.checkpoints.contract import N_FRAMES
from vlakit.cli.configuration import to_plain
from vlakit.errors import CheckpointMismatch
from vlakit.files import content_hash
from vlakit.tracking.loggers import Begun, RunLogger

if TYPE_CHECKING:
    from vlakit.data.stream.datamodule import VLADataModule
    from vlakit.strategies.base import PolicyModule

log = logging.getLogger(__name__)


def build_logger(cfg: DictConfig, run_name: str, parent: str | None, policy: PolicyModule) -> RunLogger | None:
    """The run's logger, None for logger=none; a run that resumes `ckpt_path` goes on in the same record.

    The policy learns the hash of the weights that it started from; one that resumes takes its first start's.
    Raises CheckpointMismatch when that checkpoint is of another model or strategy.
    """
    card = {} if cfg.ckpt_path is None else resumable_card(cfg.ckpt_path, policy)
    file = None if card or policy.weights is None else weights_file(policy.weights)
    policy.run_record[WEIGHTS] = card.get(WEIGHTS) if file is None else content_hash(file)
    if cfg.logger.get("_target_") is None:
        return None
    return instantiate(cfg.logger, begun=Begun(run_name, parent, card))


def resumable_card(path: str, policy: PolicyModule) -> dict[str, Any]:
    """The card of a checkpoint that `policy` can go on from."""
    card = read_checkpoint(path)[CARD]
    for field, own in {"model": policy.names.to_dict(), "strategy": policy.name, "adapter": policy.adapter}.items():
        if card[field] != own:
            raise CheckpointMismatch(
                f"the checkpoint's {field} is {card[field]}, this run's is {own}",
                where=path,
                do="resume with the experiment that wrote it; to start another from its weights: model.weights=CKPT",
            )
    return card


def record_run(logger: RunLogger | None, cfg: DictConfig, policy: PolicyModule, data: VLADataModule) -> None:
    """Write the resolved configuration beside the checkpoints and file everything that says what this run is."""
    trainable, total = count_parameters(policy.model)
    log.info("trainable %s of %s (%.2f %%)", f"{trainable:,}", f"{total:,}", 100 * trainable / total)
    if policy.weights is None and policy.name not in {"pretrain", "full"} and cfg.ckpt_path is None:
        log.warning(
            "the base weights are random: name a checkpoint with model.weights=..., e.g. of experiment=pretrain"
        )
    output = Path(cfg.paths.output)
    output.mkdir(parents=True, exist_ok=True)
    plain = to_plain(cfg)
    resolved = output / "config.yaml"
    resolved.write_text(OmegaConf.to_yaml(OmegaConf.create(plain)), encoding="utf-8")
    policy.golden = data.golden_samples(N_FRAMES)
    policy.run_record |= {
        "shards": data.hashes,
        "data": data.folders,
        "suite_contract": data.contracts,
        "experiment": str(cfg.name),
    }
    if logger is None or is_helper():  # whose logger is a dummy
        return
    policy.run_record[logger.ID] = str(logger.version)
    commit, dirty = git_state()
    tags = {
        "vlakit.version": __version__,
        "vlakit.strategy": policy.name,
        "vlakit.output": str(output),
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "git.dirty": dirty,
        **{f"shards.{name}": digest for name, digest in data.hashes.items()},
    }
    logger.record(flatten(plain), tags, data.hashes, [resolved])
    logger.log_metrics({"params/trainable": trainable, "params/total": total}, step=0)


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


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}.

    >>> flatten({"strategy": {"rank": 32}, "seed": 7})
    {'strategy.rank': 32, 'seed': 7}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        flat.update(flatten(value, name) if isinstance(value, Mapping) else {name: value})
    return flat
