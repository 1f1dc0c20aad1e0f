"""`PolicyModule`: what every strategy shares. A strategy says what trains in `prepare`; nothing overrides the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vlakit import __version__
from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.contract import make_contract
from vlakit.checkpoints.formats import start_from
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.errors import ConfigError, LossNotFinite
from vlakit.models.openvla.vla import ModelNames, OpenVLA, build_vla
from vlakit.processing.processor import VLAProcessor
from vlakit.schema import Batch, Sample
from vlakit.strategies.feature_cache import FeatureCache, check_frozen
from vlakit.strategies.metrics import ActionMetrics
from vlakit.strategies.optim import parameter_groups
from vlakit.strategies.trainable import train_only


class PolicyModule(LightningModule):
    """Trains an OpenVLA; `weights` is the checkpoint to start from (None: random weights).

    optimizer: parameter groups -> Optimizer. scheduler: (optimizer, number of steps) -> schedule, stepped every step.
    feature_cache: folder from which frozen towers' features are read instead of computed; feature_copies augmented
    copies of each frame are kept. Without augmentation training is the same to the last bit.
    """

    name = "policy"
    model: OpenVLA  # built by configure_model, as is:
    validation: ActionMetrics

    def __init__(
        self,
        model: Mapping[str, Any],
        processor: VLAProcessor,
        optimizer: Callable[[list[dict[str, object]]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler],
        *,
        weights: str | None = None,
        decay_norms_and_biases: bool = True,
        feature_cache: str | None = None,
        feature_copies: int = 1,
    ) -> None:
        super().__init__()
        self.names = ModelNames.from_dict(model)
        self.processor, self.weights = processor, weights
        self.build_optimizer, self.build_scheduler = optimizer, scheduler
        self.decay_norms_and_biases = decay_norms_and_biases
        self.feature_cache, self.feature_copies = feature_cache, feature_copies
        self.known_features: FeatureCache | None = None
        self.run_record: dict[str, Any] = {}  # plain facts of the run for the checkpoint: MLflow's id, shard hashes
        self.golden: Sequence[Sample] = ()  # frames whose answers every checkpoint records

    @property
    def adapter(self) -> dict[str, Any] | None:
        """Numbers of the adapters a checkpoint must name to be rebuilt; None when the network is as built."""
        return None

    def prepare(self, model: OpenVLA) -> None:
        """Choose what trains; the one method a strategy must define."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Build the network once, load the weights to start from, and let the strategy prepare it."""
        if hasattr(self, "model"):
            return
        if self.weights is None:
            model = build_vla(self.names)
        else:
            model, self.names = start_from(self.weights, self.names)
        model.train()
        self.prepare(model)
        if self.feature_cache is not None:
            check_frozen(model.vision_backbone)
        self.model, self.validation = model, ActionMetrics(self.processor)

    def trained(self) -> list[dict[str, object]]:
        """Parameter groups of what the optimizer moves."""
        return parameter_groups(self.model, decay_norms_and_biases=self.decay_norms_and_biases)

    def configure_optimizers(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The strategy's optimizer over what it left trainable."""
        optimizer = self.build_optimizer(self.trained())
        scheduler = self.build_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Open the feature cache, whose key names the data's shards, how pixels are made and in what precision."""
        if self.feature_cache is None:
            return
        augmented = self.processor.augmentation is not None
        if augmented and self.feature_copies == 1:
            raise ConfigError(
                "augmentation with one stored copy of each frame would show the same picture every time",
                where="strategy.feature_copies",
                do="set feature_copies to 2 or more, or data.augment=false",
            )
        shards = self.trainer.datamodule.shards  # pyright: ignore[reportAttributeAccessIssue]  set by Trainer.fit
        preparation = {
            "vision": [self.names.vision, self.names.vision_options],
            "processor": self.processor.names.to_dict(),
            "augmentation_seed": self.processor.seed if augmented else None,
            "precision": str(self.trainer.precision),
        }
        self.known_features = FeatureCache(
            self.feature_cache,
            self.model,
            {name: (folder.content_hash, folder.first_rows[-1]) for name, folder in shards.items()},
            preparation,
            self.feature_copies if augmented else 1,
        )

    def on_fit_end(self) -> None:
        """Close the feature cache."""
        if self.known_features is not None:
            self.known_features.close()
            self.known_features = None

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch; a loss that is not finite stops the run with the batch's ids."""
        if self.known_features is not None:
            batch = replace(batch, features=self.known_features.features(batch))
        output = self.model(batch)
        if not torch.isfinite(output.loss):
            raise LossNotFinite(
                f"the loss is {output.loss.item()} at step {self.global_step}",
                where=f"batch at position {batch.position}: {', '.join(batch.keys)}",
                do="lower the learning rate, or look at these samples: vlakit shards verify=DIR",
            )
        with torch.no_grad():
            means = {name: rows.mean() for name, rows in self.validation.batch_values(output, batch).items()}
        self.log("train/loss", output.loss, batch_size=len(batch), prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in means.items()}, batch_size=len(batch))
        return output.loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Accumulate the metrics of one held-out batch."""
        output = self.model(batch)
        rows = {"loss": output.row_losses(len(batch)), **self.validation.batch_values(output, batch)}
        self.validation.update(rows, batch.datasets)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all held-out batches."""
        self.log_dict({f"val/{name}": value for name, value in self.validation.compute().items()}, sync_dist=True)
        self.validation.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the file is: names, numbers and statistics, from which a policy is rebuilt without Hydra."""
        checkpoint[CARD] = {
            "version": __version__,
            "strategy": self.name,
            "model": self.names.to_dict(),
            "processor": self.processor.names.to_dict(),
            "adapter": self.adapter,
            "statistics": statistics_to_json(self.processor.statistics),
            "contract": make_contract(self.model, self.processor, self.golden),
            **self.run_record,
        }


class Finetune(PolicyModule):
    """Trains the parameters whose names match the globs in `trainable`; `{last}` is the last language model layer."""

    name = "finetune"
    trainable: Sequence[str] = ("*",)

    def __init__(self, *args: Any, trainable: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trainable = tuple(trainable or type(self).trainable)

    def prepare(self, model: OpenVLA) -> None:
        train_only(model, self.trainable)
