"""The policy that a verb's keys describe: one to train, or that of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.errors import ConfigError, VlakitError

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from vlakit.policy import TrainedPolicy
    from vlakit.processing.processor import Processor
    from vlakit.strategies.base import PolicyModule

log = logging.getLogger(__name__)


def load_policy(cfg: Mapping[str, Any], dtype: torch.dtype | None = None, *, acting: bool = True) -> TrainedPolicy:
    """The policy of a checkpoint; acting=False: to be asked only.

    Raises CheckpointMismatch, ContractBroken, and what reading its files raises.
    """
    from vlakit.checkpoints.formats import LoadOptions
    from vlakit.policy import TrainedPolicy

    return TrainedPolicy.from_checkpoint(
        cfg["ckpt"],
        device=cfg["device"],
        constrain=cfg["constrain"],
        strict=cfg["strict"],
        acting=acting,
        options=LoadOptions(
            dtype=dtype,
            base=cfg["base"],
            trusted=tuple(cfg["trusted"]),
            quantize=cfg.get("quantize", "none"),
            quantize_also=tuple(cfg.get("quantize_also", ())),
            cuda_graphs=cfg.get("cuda_graphs", False),
        ),
    )


def check_weights(cfg: Mapping[str, Any]) -> None:
    """Raise ConfigError for numbers of weights where no checkpoint has any."""
    if cfg["ckpt"] is None and cfg["quantize"] != "none":
        do = "name ckpt=, or quantize where the policy is served"
        raise ConfigError(f"quantize={cfg['quantize']}, and no checkpoint", where="command line", do=do)


def policy_of(cfg: DictConfig, processor: Processor | None = None) -> PolicyModule:
    """The strategy of a composed configuration, its network not yet built; processor: one that knows the data."""
    from hydra.utils import instantiate

    from vlakit.cli.configuration import to_plain
    from vlakit.processing.processor import build_processor

    processor = processor or build_processor(to_plain(cfg.model.processor))
    return instantiate(cfg.strategy, network=to_plain(cfg.model.network), processor=processor, _convert_="all")


def checked_processor(cfg: DictConfig) -> Processor:
    """The processor of a run, which refuses before data are converted for hours what would be refused behind it.

    The network is built without memory, in seconds at any size. Raises what building raises, PartMissing for files or
    abilities, CheckpointMismatch for a start that is not there.
    """
    from vlakit.accounting.meta import prepared
    from vlakit.checkpoints.formats import check_start
    from vlakit.cli.configuration import to_plain
    from vlakit.processing.processor import build_processor

    processor = build_processor(to_plain(cfg.model.processor), seed=cfg.seed)
    processor.check_files()  # says now, not after building 7B, that the tokenizer's files are missing
    policy = policy_of(cfg, processor)
    if policy.weights is not None:
        check_start(policy.weights)
    try:
        network = prepared(policy)
    except VlakitError:
        raise
    except Exception as error:  # of a class from outside, which may need numbers to be built: then it is built once
        log.debug("not looked at before the data: %s", error)
    else:
        policy.check_able(network, questions=bool(cfg.data.get("questions")))
    return processor


def home_of(ckpt: str | Path) -> Path | None:
    """The run's folder of a checkpoint; None where it is named without a path, as the shipped ones are."""
    path = Path(ckpt).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None
