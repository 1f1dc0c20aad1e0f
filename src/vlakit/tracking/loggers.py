"""Lightning's loggers with what else belongs to a training's record: what it is, its checkpoint, a registered model."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vlakit.errors import ConfigError, PartMissing, nearest
from vlakit.tracking.dead import close_dead, leave_behind
from vlakit.tracking.mlflow import (
    EXPERIMENT,
    PARENT,
    StoreUnreachable,
    answering,
    client,
    experiment_id,
    log_params,
    log_points,
    recorded_points,
    reopen,
)
from vlakit.tracking.points import Points

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

log = logging.getLogger(__name__)
CHECKPOINTS = ("auto", "last", "best", "none")
SMALL = 200_000_000  # bytes; checkpoint=auto leaves a larger file where it is
FOLDER = "checkpoint"
URI = "MLFLOW_TRACKING_URI"
PATIENCE_S = 60  # for a store that is away when training ends


@dataclass(frozen=True)
class Begun:
    """How a run begins: its name, the sweep above it, and the card of the checkpoint that it resumes."""

    name: str
    parent: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict[str, Any])


class MlflowRun(MLFlowLogger):
    """A run in a store that answers. A resumed run goes on in its record; where the store lacks it, in a new one.

    artifacts: folder for the files of a new experiment. system_metrics: load, memory, disk, network and GPU every ten
    seconds. checkpoint: one of CHECKPOINTS, an artefact when training ends; register: the model that gets it as a new
    version, called `alias`. Raises StoreUnreachable, ConfigError.
    """

    ID = "mlflow_run_id"  # in the card of a checkpoint

    def __init__(
        self,
        tracking_uri: str,
        begun: Begun,
        *,
        experiment: str = EXPERIMENT,
        artifacts: str | None = None,
        system_metrics: bool = True,
        checkpoint: str = "auto",
        register: str | None = None,
        alias: str = "newest",
    ) -> None:
        _check_checkpoint(checkpoint)
        store = client(tracking_uri)
        run_id, known = begun.card.get(self.ID), set[tuple[str, int]]()
        with answering(tracking_uri):
            close_dead(store, experiment_id(store, experiment, artifacts))
            if run_id is not None and reopen(store, run_id):
                known = recorded_points(store, run_id)
            elif run_id is not None:
                log.warning("run %s is not in %s: this one goes on in a new record", run_id, tracking_uri)
                run_id = None
        super().__init__(
            experiment_name=experiment,
            run_name=begun.name,
            tracking_uri=store.tracking_uri,
            tags={PARENT: begun.parent} if begun.parent else None,
            run_id=run_id,
        )
        self.points = Points(lambda points: log_points(store, str(self.run_id), points), known)
        self.checkpoint, self.register, self.alias = checkpoint, register, alias
        self.system_metrics = system_metrics
        self.monitor: SystemMetricsMonitor | None = None
        self._named = os.environ.get(URI)
        self.kept = False
        if register is not None:
            self._open_registry(register)

    def _open_registry(self, name: str) -> None:
        """Fail before the training rather than after it."""
        from mlflow.exceptions import MlflowException

        if self.checkpoint == "none":
            raise ConfigError(
                "a model without its checkpoint", where="logger.register", do="leave out logger.checkpoint=none"
            )
        if not re.fullmatch(r"(?!(?i:latest|v\d+)$)[\w-]+", self.alias):
            raise ConfigError(
                f"{self.alias!r} cannot be an alias",
                where="logger.alias",
                do="letters, digits, _ and -; MLflow itself answers to `latest` and to version numbers",
            )
        store, same = self._mlflow_client, f"name = '{name}'"
        try:
            if not store.search_registered_models(same):
                try:
                    store.create_registered_model(name)
                except MlflowException:  # unless another process has made it at the same moment
                    if not store.search_registered_models(same):
                        raise
        except MlflowException as error:
            raise ConfigError(
                f"no model can be registered: {str(error).splitlines()[0][:200]}",
                where=f"logger.register={name}",
                do="another name, or a store with a database; logger.register=null registers nothing",
            ) from error

    def record(
        self, params: Mapping[str, Any], tags: Mapping[str, str], shards: Mapping[str, str], files: Iterable[Path]
    ) -> None:
        """File what a run is: flat parameters, tags, datasets by the hash of their shards, files."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag

        store, run_id = self.experiment, str(self.run_id)
        log_params(store, run_id, params)
        store.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        context = [InputTag("mlflow.data.context", "training")]
        datasets = [Dataset(name, digest[:36], "local", "webdataset shards") for name, digest in shards.items()]
        store.log_inputs(run_id, [DatasetInput(dataset, context) for dataset in datasets])
        for file in files:
            store.log_artifact(run_id, str(file))
        if self.system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self.monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self._tracking_uri)
            self.monitor.start()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """File a step's values, each once; a store that is away gets them when it is back."""
        self.points.add(metrics, step or 0)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Close the run, as Lightning asks when training ends."""
        if self.monitor is not None:
            self.monitor.finish()
            self.monitor = None
        if self._initialized and self.points.flush(PATIENCE_S):
            self._kept(lambda: super(MlflowRun, self).finalize(status))
        # MLflow names this store in the environment, where the next run's record would go too.
        os.environ.pop(URI, None)
        if self._named is not None:
            os.environ[URI] = self._named

    @rank_zero_only
    def keep(self, output: Path) -> None:
        """File the checkpoint that training left in `output`, or in its folder the points of a store that is away."""
        if self.points.waiting:
            leave_behind(output, self.points.waiting)
            return
        file = chosen(output, "last" if self.checkpoint == "auto" and self.register else self.checkpoint)
        if file is not None:
            self.kept = self._kept(lambda: self.experiment.log_artifact(str(self.run_id), str(file), FOLDER))

    @rank_zero_only
    def close(self, metrics: Mapping[str, float]) -> None:
        """Register what `keep` filed; its evaluation becomes tags of the version."""
        if self.register is not None and self.kept:
            self._kept(lambda: self._register(str(self.register), metrics))

    def _register(self, name: str, metrics: Mapping[str, float]) -> None:
        store, run_id = self.experiment, str(self.run_id)
        source = f"{store.get_run(run_id).info.artifact_uri}/{FOLDER}"
        tags = {name: f"{value:.4g}" for name, value in metrics.items() if name.startswith("eval/")}
        version = store.create_model_version(name, source, run_id, tags=tags).version
        store.set_registered_model_alias(name, self.alias, version)
        log.info("registered: models:/%s@%s, version %s", name, self.alias, version)

    def _kept(self, call: Callable[[], object]) -> bool:
        """Whether the store took what ends a run; one that is away is warned of: the training is there without it."""
        try:
            with answering(self._tracking_uri):
                call()
        except StoreUnreachable as error:
            log.warning("the record lacks how this run ended: %s", error.what)
            return False
        return True


class WandbRun(WandbLogger):
    """A run in Weights & Biases, with the same record. Raises PartMissing, StoreUnreachable, ConfigError."""

    ID = "wandb_run_id"  # in the card of a checkpoint

    def __init__(
        self, begun: Begun, *, project: str, folder: str, group: str | None = None, checkpoint: str = "auto"
    ) -> None:
        _check_checkpoint(checkpoint)
        if find_spec("wandb") is None:
            raise PartMissing("wandb is not installed", where="logger=wandb", do="pip install 'vlakit[wandb]'")
        wandb = import_module("wandb")  # an extra: type checkers need not find it
        self.checkpoint = checkpoint
        Path(folder).mkdir(parents=True, exist_ok=True)
        if wandb.run is not None:  # of a job of the same sweep that failed; Lightning would go on in it
            wandb.run.finish(exit_code=1)
        super().__init__(name=begun.name, save_dir=folder, id=begun.card.get(self.ID), project=project, group=group)
        try:
            _ = self.experiment
        except import_module("wandb.errors").Error as error:
            raise StoreUnreachable(
                f"wandb does not start: {str(error).splitlines()[0][:200]}",
                where="logger=wandb",
                do="wandb login, or WANDB_MODE=offline",
            ) from error

    def record(
        self, params: Mapping[str, Any], tags: Mapping[str, str], shards: Mapping[str, str], files: Iterable[Path]
    ) -> None:
        """File what a run is: parameters, tags and hashes of shards as its configuration, and files."""
        self.experiment.config.update({**params, **tags, "shards": dict(shards)}, allow_val_change=True)
        for file in files:
            self.experiment.save(str(file), base_path=str(file.parent), policy="now")

    @rank_zero_only
    def keep(self, output: Path) -> None:
        """File the checkpoint that training left in `output`."""
        file = chosen(output, self.checkpoint)
        if file is not None:
            self.experiment.log_artifact(str(file), name=f"{FOLDER}-{self.version}", type="model")

    @rank_zero_only
    def close(self, metrics: Mapping[str, float]) -> None:
        """Put the last value of every metric, those of an evaluation too, into the summary, and end the run."""
        self.experiment.summary.update(dict(metrics))
        self.experiment.finish()


RunLogger = MlflowRun | WandbRun


def chosen(output: Path, checkpoint: str) -> Path | None:
    """The file that `checkpoint` means in a run's folder; None for none, and for auto with a large one."""
    if checkpoint == "none":
        return None
    file = output / f"{'last' if checkpoint == 'auto' else checkpoint}.ckpt"
    if not file.is_file():
        log.warning("no %s to record", file)
        return None
    if checkpoint == "auto" and file.stat().st_size > SMALL:
        log.info("%s stays where it is alone, for its size; logger.checkpoint=last records it", file)
        return None
    return file


def _check_checkpoint(checkpoint: str) -> None:
    if checkpoint not in CHECKPOINTS:
        raise ConfigError(f"checkpoint={checkpoint}", where="logger", do=nearest(str(checkpoint), CHECKPOINTS))
