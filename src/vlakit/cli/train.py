"""`python train.py` and `vlakit train`: compose a configuration, then run one experiment or a sweep of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from vlakit.cli.configuration import PROVIDER, to_plain
from vlakit.cli.errors import quiet_libraries, readable_errors
from vlakit.cli.hydra_run import run_hydra
from vlakit.cli.sweep import PLACES, Job, closed_early, continued, parent_of, without
from vlakit.cli.words import own_folders
from vlakit.configs import also_in

if TYPE_CHECKING:
    from lightning import Trainer


log = logging.getLogger(__name__)
_UNNAMED = (*PLACES, "evaluate.", "callbacks", "trainer.enable", "name=", "model.weights=", "hydra.")  # in the record


def train(cfg: DictConfig, *, run_name: str | None = None, parent: str | None = None) -> dict[str, float]:
    """Run one experiment; return the last value of every logged metric, and leave `last.ckpt` in paths.output.

    With evaluate.suite=NAME it ends in closed loop: eval/success, and the episodes beside the checkpoint.
    """
    import torch
    from lightning.pytorch.callbacks import ProgressBar

    from vlakit.checkpoints.contract import N_FRAMES
    from vlakit.checkpoints.file import checkpoint_file
    from vlakit.cli.evaluate import check_ahead, check_units, evaluate_trained
    from vlakit.cli.policies import policy_of
    from vlakit.cli.recording import Record, resumed_card
    from vlakit.processing.processor import build_processor
    from vlakit.seeding import seed_everything

    quiet_libraries()  # behind the import of lightning, whose loggers must exist
    tested = check_ahead(cfg)
    # Probabilities of a confident model are denormal numbers, over which a CPU takes a hundred times as long. Threads
    # inherit this, so it comes before they are made.
    torch.set_flush_denormal(True)
    seed_everything(cfg.seed)
    processor = build_processor(to_plain(cfg.model.processor), seed=cfg.seed)
    processor.check_files()  # says now, not after building 7B, that the tokenizer's files are missing
    data = instantiate(cfg.data, processor=processor, _convert_="all")
    check_units(tested, data.processor)
    policy = policy_of(cfg, data.processor)
    resumed = None if cfg.ckpt_path is None else checkpoint_file(cfg.ckpt_path)
    card = None if resumed is None else resumed_card(policy, resumed)
    record = Record(cfg, run_name or cfg.name, parent, data, card)
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    if not cfg.trainer.enable_progress_bar:  # with which Lightning refuses a bar
        callbacks = [one for one in callbacks if not isinstance(one, ProgressBar)]
    trainer: Trainer = instantiate(
        cfg.trainer, callbacks=[*callbacks, record], logger=record.logger or False, _convert_="all"
    )
    try:
        trainer.fit(policy, data, ckpt_path=resumed, weights_only=True)
    except SystemExit as end:
        raise KeyboardInterrupt from end  # Lightning calls exit(1) on Ctrl-C, which a shell cannot tell from a failure
    output = Path(cfg.paths.output)
    policy.answer_golden(data.golden_samples(N_FRAMES))
    trainer.save_checkpoint(output / "last.ckpt")
    log.info("checkpoint: %s", output / "last.ckpt")
    record.keep(output)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if cfg.evaluate.suite is not None and trainer.is_global_zero:
        metrics |= evaluate_trained(to_plain(cfg.evaluate), output, cfg.logger.get("tracking_uri"))
    record.close(metrics)
    return metrics


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: `key=value` overrides, `-m` for a sweep, `-m continue=DIR` to go on with one."""
    with readable_errors(), own_folders("train", continued(sys.argv[1:] if argv is None else argv)) as words:
        run_hydra(_job, words)


def _job(cfg: DictConfig) -> dict[str, float]:
    config = HydraConfig.get()
    overrides = list(config.overrides.task)
    name = _run_name(cfg, overrides)
    # A launcher may start a job where the environment does not reach: Hydra's own record of the folders does.
    folders = [source.path for source in config.runtime.config_sources if source.provider == PROVIDER]
    if config.mode != RunMode.MULTIRUN:
        with readable_errors():
            return train(cfg, run_name=name)
    parent = parent_of(Path(config.sweep.dir))
    with readable_errors(), also_in(folders), closed_early(cfg, parent):
        job = Job(Path(config.runtime.output_dir), overrides, name, parent)
        return job.run(cfg, lambda: train(cfg, run_name=name, parent=parent))


def _run_name(cfg: DictConfig, overrides: Sequence[str]) -> str:
    """The experiment's name and what was changed on the command line: lora_r32[seed=0]."""
    words = [o for o in overrides if o.split("=")[0] not in {"experiment", "debug", "hparams_search", "ckpt_path"}]
    changed = without(words, _UNNAMED)
    return f"{cfg.name}[{','.join(changed)}]" if changed else str(cfg.name)
