"""`PolicyModule`: what every strategy shares. A strategy says what trains in `prepare`; nothing overrides the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vlakit import __version__
from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.contract import make_contract
from vlakit.checkpoints.formats import start_from
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.errors import CheckpointMismatch, LossNotFinite
from vlakit.models.cpu import use_onednn
from vlakit.models.network import Answering, HasFeatures, Network, Output, build_network, capability, tensors_hash
from vlakit.processing.processor import Processor
from vlakit.schema import Batch, Sample
from vlakit.strategies.feature_cache import FeatureCache, check_frozen, check_no_questions, opened
from vlakit.strategies.metrics import ActionMetrics
from vlakit.strategies.optim import parameter_groups
from vlakit.strategies.resuming import Continuation
from vlakit.strategies.sharding import shard
from vlakit.strategies.trainable import train_only


class PolicyModule(LightningModule):
    """Trains a network; `weights` is the checkpoint to start from (None: random weights).

    network: its kind and settings, as `build_network` takes them. optimizer: parameter groups -> Optimizer. scheduler:
    (optimizer, number of steps) -> schedule, stepped every step. feature_cache: folder from which a frozen encoder's
    features are read instead of computed; feature_copies augmented copies of each frame are kept. Without augmentation
    training is the same to the last bit.
    """

    name = "policy"
    model: Network  # built by configure_model, as is:
    validation: ActionMetrics

    def __init__(
        self,
        network: Mapping[str, Any],
        processor: Processor,
        optimizer: Callable[[list[dict[str, object]]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler],
        *,
        weights: str | None = None,
        decay_norms_and_biases: bool = True,
        feature_cache: str | None = None,
        feature_copies: int = 1,
    ) -> None:
        super().__init__()
        self.network = dict(network)
        self.processor, self.weights = processor, weights
        self.build_optimizer, self.build_scheduler = optimizer, scheduler
        self.decay_norms_and_biases = decay_norms_and_biases
        self.feature_cache, self.feature_copies = feature_cache, feature_copies
        self.known_features: FeatureCache | None = None
        self.facts: dict[str, Any] = {}  # plain facts of the run for the card: MLflow's id, shard hashes
        self.surroundings: dict[str, Any] = {}  # dataset -> camera and control rate, for the card
        self.continuation = Continuation()
        self.random_start: str | None = None  # tensors_hash of the weights that were drawn, where none were loaded
        self.contract: dict[str, Any] | None = None  # golden frames with answers, once the run has been closed

    @property
    def adapter(self) -> dict[str, Any] | None:
        """Numbers of the adapters a checkpoint must name to be rebuilt; None when the network is as built."""
        return None

    @property
    def needs_base(self) -> bool:
        """Whether training from random weights is most likely a mistake, because much of the network never moves."""
        return True

    def prepare(self, model: Network) -> None:
        """Choose what trains; the one method a strategy must define."""
        raise NotImplementedError

    def built(self, device: torch.device | str | None = None) -> Network:
        """The network with random weights, prepared for training; on 'meta' in seconds at any size."""
        model = build_network(self.network, self.processor, device=device)
        self.prepare(model.train())
        return model

    def configure_model(self) -> None:
        """Build the network once, load the weights to start from, and let the strategy prepare it."""
        if hasattr(self, "model"):
            return
        if self.weights is None:
            model = build_network(self.network, self.processor)
            self.random_start = tensors_hash(model)
        else:
            model = start_from(self.weights, self.network, self.processor)
        use_onednn(model.train())
        self.prepare(model)
        if self.device_mesh is not None:
            shard(model, self.device_mesh["data_parallel"])
        self.model, self.validation = model, ActionMetrics(self.processor)

    def check_able(self, model: Network, *, questions: bool = False) -> None:
        """Refuse a prepared network that cannot do what the run asks of it; questions: whether its data hold some.

        Raises PartMissing where it has no words to answer them, or no features to keep; ConfigError where what makes
        those features learns.
        """
        if questions:
            capability(model, Answering, purpose="data.questions")
        if self.feature_cache is not None:
            check_no_questions(questions)
            check_frozen(capability(model, HasFeatures, purpose="strategy.feature_cache").encoder)

    def trained(self) -> list[dict[str, object]]:
        """Parameter groups of what the optimizer moves."""
        return parameter_groups(self.model, decay_norms_and_biases=self.decay_norms_and_biases)

    def configure_optimizers(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The strategy's optimizer over what it left trainable."""
        optimizer = self.build_optimizer(self.trained())
        scheduler = self.build_scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning, but under bf16-mixed too, where it refuses a fused optimizer for a scaler that is not there."""
        plugin = self.trainer.precision_plugin
        unscaled = isinstance(plugin, MixedPrecision) and plugin.scaler is None
        clip = partial(Precision.clip_gradients, plugin) if unscaled else plugin.clip_gradients
        clip(optimizer, gradient_clip_val or 0.0, GradClipAlgorithmType(gradient_clip_algorithm or "norm"))

    def on_fit_start(self) -> None:
        """Open the feature cache, if the network can do what the run asks of it."""
        data: Any = getattr(self.trainer, "datamodule")  # noqa: B009  Lightning's, of any kind
        self.check_able(self.model, questions=bool(getattr(data, "questions", None)))
        if self.feature_cache is not None:
            self.known_features = opened(self.feature_cache, self, self.feature_copies)

    def on_fit_end(self) -> None:
        """Close the feature cache."""
        if self.known_features is not None:
            self.known_features.close()
            self.known_features = None

    def on_train_start(self) -> None:
        """Catch up with what the checkpoint that this goes on from still lacks."""
        self.continuation.on_train_start(self.trainer, self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Go on where the checkpoint was written."""
        self.continuation.on_train_batch_start(self.trainer, self.device)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch; a loss that is not finite stops the run with the batch's ids."""
        if self.known_features is not None:
            batch = replace(batch, features=self.known_features.features(batch))
        output: Output = self.model(batch)
        loss = self.logged_loss(output.loss, batch)
        means = {name: rows.nanmean() for name, rows in self.validation.batch_values(output, batch).items()}
        if output.answered is not None:
            means |= self.validation.by_source(self.validation.row_values(output, batch), batch.datasets)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        values = {f"train/{name}": value for name, value in {**means, "learning_rate": rate}.items()}
        self.log_dict(values, batch_size=len(batch))
        return loss

    def finite(self, loss: Tensor, position: int, keys: Sequence[str], do: str) -> Tensor:
        """The loss of a step. Raises LossNotFinite with the batch's keys, and what to do."""
        if not torch.isfinite(loss):
            raise LossNotFinite(
                f"the loss is {loss.item()} at step {self.global_step}",
                where=f"batch at position {position}: {', '.join(keys)}",
                do=do,
            )
        return loss

    def logged_loss(self, loss: Tensor, batch: Batch) -> Tensor:
        """The loss of a step, logged. Raises LossNotFinite."""
        do = "lower the learning rate, or look at these samples: vlakit shards verify=DIR"
        self.finite(loss, batch.position, batch.keys, do)
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Accumulate the metrics of one held-out batch."""
        output: Output = self.model(batch)
        self.validation.update(self.validation.row_values(output, batch), batch.datasets)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all held-out batches."""
        self.log_dict({f"val/{name}": value for name, value in self.validation.compute().items()}, sync_dist=True)
        self.validation.reset()
        self.continuation.validated = self.global_step

    def answer_golden(self, samples: Sequence[Sample]) -> None:
        """Let later checkpoints carry these frames with the answers of now: when a run closes, not at each checkpoint.

        Eight answers at 7B take longer than many a step, and under FSDP all ranks would have to give them together.
        """
        self.contract = make_contract(self.model, self.processor, samples)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the file is: names, numbers and statistics, from which a policy is rebuilt without Hydra."""
        checkpoint[CARD] = Card(
            network=self.model.description,
            processor=self.processor.description,
            statistics=statistics_to_json(self.processor.statistics),
            adapter=self.adapter,
            contract=self.contract or make_contract(self.model, self.processor, ()),
            strategy=self.name,
            version=__version__,
            surroundings=self.surroundings,
            facts=self.facts,
        ).to_dict()
        self.continuation.save(checkpoint, self._trainer, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a checkpoint of another network or strategy. Raises CheckpointMismatch."""
        self.check_resumed(Card.from_dict(checkpoint[CARD], where="ckpt_path"), where="ckpt_path")
        self.continuation.load(checkpoint)

    def check_resumed(self, card: Card, *, where: str) -> None:
        """Refuse a checkpoint of another strategy and, once this run's is built, network. Raises CheckpointMismatch."""
        mine: dict[str, Any] = {"strategy": self.name, "adapter": self.adapter}
        if hasattr(self, "model"):
            mine["network"] = self.model.description
        for key, value in mine.items():
            if getattr(card, key) != value:
                raise CheckpointMismatch(
                    f"the checkpoint's {key} is {getattr(card, key)}, this run's is {value}",
                    where=where,
                    do="resume with the experiment that wrote it; to start from its weights alone: model.weights=CKPT",
                )


class Finetune(PolicyModule):
    """Trains the parameters whose names match the globs in `trainable`; `{last}` is the last language model layer."""

    name = "finetune"
    trainable: Sequence[str] = ("*",)

    def __init__(
        self, *args: Any, trainable: Sequence[str] | None = None, name: str | None = None, **kwargs: Any
    ) -> None:
        """name: what cards and records call a strategy that is a YAML file alone."""
        super().__init__(*args, **kwargs)
        self.trainable = tuple(trainable or type(self).trainable)
        self.name = name or type(self).name

    @property
    def needs_base(self) -> bool:
        return "*" not in self.trainable

    def prepare(self, model: Network) -> None:
        train_only(model, self.trainable)
