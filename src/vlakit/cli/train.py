"""`python train.py` and `vlakit train`: compose a configuration, then run one experiment or a sweep of them."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vlakit.cli.configuration import PROVIDER, to_plain
from vlakit.cli.errors import quiet_libraries, readable_errors
from vlakit.cli.hydra_run import run_hydra
from vlakit.cli.own_data import with_own_data
from vlakit.cli.sweep import (
    PLACES,
    Job,
    closed_early,
    continued,
    die_with_parent,
    parent_of,
    sign_lines,
    start_as_usual,
    without,
)
from vlakit.cli.words import own_folders
from vlakit.configs import also_in

if TYPE_CHECKING:
    from lightning import Callback, Trainer

    from vlakit.cli.recording import Record

log = logging.getLogger(__name__)
_UNNAMED = (*PLACES, "evaluate.", "callbacks", "trainer.enable", "name=", "model.weights=", "hydra.")  # in the record


def train(cfg: DictConfig, *, run_name: str | None = None, parent: str | None = None) -> dict[str, float]:
    """Run one experiment; return the last value of every logged metric, and leave `last.ckpt` in paths.output.

    With evaluate.suite=NAME it ends in closed loop: eval/success, and the episodes beside the checkpoint. Raises
    FolderBusy where another training has that folder.
    """
    from vlakit.cli.recording import is_helper
    from vlakit.files import locked

    if is_helper():
        logging.getLogger("vlakit").setLevel(logging.WARNING)  # the first process says how it goes
    with nullcontext() if is_helper() else locked(Path(cfg.paths.output), who="another training"):
        return trained(cfg, run_name=run_name, parent=parent)


def trained(
    cfg: DictConfig, *, run_name: str | None = None, parent: str | None = None, finish: bool = False
) -> dict[str, float]:
    """The same in a folder that this process holds. finish: whether a checkpoint that has done all steps is fine."""
    import torch

    from vlakit.checkpoints.contract import N_FRAMES
    from vlakit.cli.closing import last_words
    from vlakit.cli.evaluate import check_ahead, check_units, evaluate_trained
    from vlakit.cli.policies import checked_processor, policy_of
    from vlakit.cli.ranks import end_together
    from vlakit.cli.recording import Record
    from vlakit.cli.resuming import Resumed, settle
    from vlakit.seeding import seed_everything
    from vlakit.strategies.saving import measured

    quiet_libraries()  # behind the import of lightning, whose loggers must exist
    tested = check_ahead(cfg)
    # Probabilities of a confident model are denormal numbers, over which a CPU takes a hundred times as long. Threads
    # inherit this, so it comes before they are made.
    torch.set_flush_denormal(True)
    seed_everything(cfg.seed)
    data = instantiate(cfg.data, processor=checked_processor(cfg), _convert_="all")
    check_units(tested, data.processor)
    policy = policy_of(cfg, data.processor)
    requeued = settle(cfg)
    resumed = Resumed.of(cfg, policy, finish=finish or requeued)
    record = Record(cfg, run_name or cfg.name, parent, data, resumed)
    trainer = _trainer(cfg, record, requeued=requeued)
    if resumed is not None:
        resumed.check_devices(cfg, trainer)
    with _stoppable(trainer), end_together(trainer):
        trainer.fit(policy, data, ckpt_path=None if resumed is None else resumed.file, weights_only=True)
    output = Path(cfg.paths.output)
    policy.answer_golden(data.golden_samples(N_FRAMES))
    trainer.save_checkpoint(output / "last.ckpt")
    log.info("checkpoint: %s", output / "last.ckpt")
    record.keep(output)
    metrics = measured(trainer)
    _check_stopped(trainer)
    if cfg.evaluate.suite is not None and trainer.is_global_zero:
        metrics |= evaluate_trained(to_plain(cfg.evaluate), output, cfg.logger.get("tracking_uri"))
    record.close(metrics)
    for line in last_words(metrics, data, output, cfg.evaluate.suite) if trainer.is_global_zero else ():
        log.info("%s", line)
    return metrics


def _trainer(cfg: DictConfig, record: Record, *, requeued: bool) -> Trainer:
    """requeued: by the user's own job script, so Lightning is not to do it, which saves in the middle of a step."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.pytorch.callbacks import ProgressBar

    callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    if not cfg.trainer.enable_progress_bar:  # with which Lightning refuses a bar
        callbacks = [one for one in callbacks if not isinstance(one, ProgressBar)]
    plugins = [instantiate(plugin) for plugin in cfg.trainer.get("plugins") or ()]
    if requeued and SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    own = {"callbacks": [*callbacks, record], "logger": record.logger or False, "plugins": plugins}
    return instantiate(cfg.trainer, **own, _convert_="all")


@contextmanager
def _stoppable(trainer: Trainer) -> Iterator[None]:
    """Lightning calls exit(1) on Ctrl-C, which a shell cannot tell from a failure, and on SIGTERM exit(None)."""
    try:
        yield
    except SystemExit as end:
        _check_stopped(trainer)
        raise KeyboardInterrupt from end


def _check_stopped(trainer: Trainer) -> None:
    """Raise Stopped where a signal has asked for the end, in training or behind its last step."""
    from vlakit.strategies.callbacks import SaveOnInterrupt, Stopped

    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  set by Trainer
    asked = [one.number for one in callbacks if isinstance(one, SaveOnInterrupt) and one.number is not None]
    if asked:
        raise Stopped(asked[0])
    if trainer.received_sigterm:
        raise Stopped(signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: `key=value` overrides, `-m` for a sweep, `-m continue=DIR` to go on with one."""
    with readable_errors(), own_folders("train", continued(sys.argv[1:] if argv is None else argv)) as words:
        run_hydra(_job, with_own_data(words))


def _job(cfg: DictConfig) -> dict[str, float]:
    from vlakit.cli.resuming import check_folder_stays

    config = HydraConfig.get()
    check_folder_stays(cfg, config)
    overrides = list(config.overrides.task)
    name = _run_name(cfg, overrides)
    # A launcher may start a job where the environment does not reach: Hydra's own record of the folders does.
    folders = [source.path for source in config.runtime.config_sources if source.provider == PROVIDER]
    if config.mode != RunMode.MULTIRUN:
        with readable_errors():
            return train(cfg, run_name=name)
    die_with_parent()
    start_as_usual()
    sign_lines(name)
    parent = parent_of(Path(config.sweep.dir))
    with readable_errors(), also_in(folders), closed_early(cfg, parent):
        job = Job(Path(config.runtime.output_dir), overrides, name, parent)
        return job.run(cfg, lambda: trained(cfg, run_name=name, parent=parent, finish=True))


def _run_name(cfg: DictConfig, overrides: Sequence[str]) -> str:
    """The experiment's name and what was changed on the command line: lora_r32[seed=0]."""
    words = [o for o in overrides if o.split("=")[0] not in {"experiment", "debug", "hparams_search", "ckpt_path"}]
    language = OmegaConf.select(
        cfg, "model.processor.language"
    )  # of a policy that reads words without a language model
    told = [f"language={Path(str(language)).name}"] if language is not None else []
    changed = [*told, *without(words, (*_UNNAMED, "model.processor.language="))]
    return f"{cfg.name}[{','.join(changed)}]" if changed else str(cfg.name)
