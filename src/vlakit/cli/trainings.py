"""What `vlakit select` trains in each round: an ordinary training on the shards of what was acquired."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import compose_config
from vlakit.cli.sweep import FINISHED, Job, read_note
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from vlakit.selection.acquisitions import Need, Outlook
    from vlakit.selection.pool import Pool

log = logging.getLogger(__name__)
MAP = "map"  # folder of the training that a map comes from
DECIDED = ("data", "dataset", "source", "data.mixture", "data.root", "data.sources", "data.specs", "paths.output")


@dataclass(frozen=True)
class Trainings:
    """A learner (selection/rounds.py). words: of train.py; parent: MLflow id of the selection's own run."""

    pool: Pool
    out: Path
    words: Sequence[str]
    spec_file: str | None = None
    cameras: tuple[str, ...] = ("primary",)
    val_fraction: float = 0.1
    passes: int = 10
    seed: int = 0
    device: str = "cpu"
    trusted: tuple[str, ...] = ()
    parent: str | None = None

    def fit(self, number: int, ids: Sequence[int]) -> Mapping[str, float]:
        """Shards of these demonstrations, a training on them, and its metrics: those of validation and evaluation."""
        metrics = self._train(self.out / f"round_{number}", ids, f"round {number}, {len(ids)} demonstrations")
        return {name: value for name, value in metrics.items() if name.startswith(("val/", "eval/"))}

    def outlook(self, number: int, need: Need) -> Outlook:
        """From the last checkpoint of the round, over the whole pool."""
        from vlakit.checkpoints.formats import LoadOptions
        from vlakit.policy import TrainedPolicy
        from vlakit.selection.outlook import outlook

        file = self.out / f"round_{number}" / "last.ckpt"
        policy = TrainedPolicy.from_checkpoint(file, device=self.device, options=LoadOptions(trusted=self.trusted))
        looks = self.pool.first_looks(policy.processor.settings.cameras) if need != "nothing" else []
        return outlook(policy, looks, need, passes=self.passes, seed=self.seed + number)

    def mapped(self) -> Path:
        """The map of a training on the whole pool, all of its labels read: a diagnosis, not a way to choose."""
        log.warning("a map of the whole pool reads all of its labels: a diagnosis, which nobody has before collecting")
        self._train(self.out / MAP, range(len(self.pool)), MAP, "callbacks=dataset_map", "trainer.limit_val_batches=0")
        file = self.out / MAP / f"map-{self.pool.spec.name}.csv"
        if not file.is_file():
            raise ConfigError(
                "the training for the map ended before every frame was met once",
                where=str(self.out / MAP),
                do="raise steps= or batch_size= among the words of train",
            )
        return file

    def composed(self, folder: Path, *further: str) -> DictConfig:
        """The configuration of a training in this folder. Raises ConfigError."""
        name = self.pool.spec.name
        words = ["data=own", f"data.mixture={{{name}: 1}}", f"data.root='{folder / 'data'}'", *self.words]
        words += [f"data.specs={{{name}: '{self.spec_file}'}}"] if self.spec_file else []
        return compose_config("train", [*words, f"paths.output='{folder}'", *further])

    def _train(self, folder: Path, ids: Sequence[int], name: str, *further: str) -> dict[str, float]:
        from vlakit.cli.train import trained
        from vlakit.data.shards.convert import convert

        held_out = 0.0 if further else self.val_fraction
        shards, options = folder / "data" / self.pool.spec.name, {"cameras": self.cameras, "val_fraction": held_out}
        convert(self.pool.bought(ids), shards, self.pool.spec, **options)
        cfg = self.composed(folder, *further)
        job = Job(folder, [*self.words, *further], name, self.parent)
        metrics = job.run(cfg, lambda: trained(cfg, run_name=name, parent=self.parent, finish=True))
        if read_note(folder).get("status") != FINISHED:
            raise ConfigError(f"{name}: its training failed", where=str(folder), do="see above; the rest is kept")
        return metrics


def split_train(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the selection, and those of its trainings: `train.KEY=VALUE` is train.py's KEY=VALUE.

    Raises ConfigError for what the selection decides.

    >>> split_train(["seed=1", "train.steps=9", "+train.tags.robot=a"])
    (['seed=1'], ['steps=9', '+tags.robot=a'])
    """
    inner = [word for word in overrides if word.lstrip("+~").startswith("train.")]
    words = [word.replace("train.", "", 1) for word in inner]
    keys = [word.lstrip("+~").partition("=")[0] for word in words]
    taken = [key for key in keys if key in DECIDED or key.startswith(("data.sources.", "data.specs.", "data.mixture."))]
    if taken:
        raise ConfigError(
            f"train.{taken[0]} is the selection's to say", where="command line", do="leave it out: pool= and dataset="
        )
    return [word for word in overrides if word not in inner], words


def named(cfg: Mapping[str, Any]) -> str:
    """What the selection's run is called."""
    dropped = f", drop {cfg['drop']:g}" if cfg["drop"] else ""
    return f"select {cfg['acquisition']}[seed={cfg['seed']}{dropped}]"
