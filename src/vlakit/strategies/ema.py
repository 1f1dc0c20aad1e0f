"""Averaged weights: what validates, answers and is saved is an exponential moving average of what trains.

Source: diffusion_policy/model/diffusion/ema_model.py. Its first two updates copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.schema import Sample
from vlakit.strategies.base import Finetune, PolicyModule

_PREFIX = "model."  # of the network's tensors in a checkpoint


def decay(
    update: int,
    *,
    update_after: int = 0,
    inv_gamma: float = 1.0,
    power: float = 2 / 3,
    least: float = 0.0,
    most: float = 0.9999,
) -> float:
    """What share of the average an update keeps, counted from 0.

    >>> [round(decay(n, power=0.75), 4) for n in (0, 1, 2, 10, 10_000)]
    [0.0, 0.0, 0.4054, 0.8222, 0.999]
    """
    step = max(0, update - update_after - 1)
    return 0.0 if step == 0 else max(least, min(1 - (1 + step / inv_gamma) ** -power, most))


@torch.no_grad()
def averaged(average: Mapping[str, Tensor], network: nn.Module, share: float) -> None:
    """Move the average towards a network, in place. Of batch norms and of what does not train it becomes a copy.

    Parameters that the average lacks are passed over, and so are buffers.
    """
    for prefix, module in network.named_modules():
        copied = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if name not in average:
                continue
            if copied or not parameter.requires_grad:
                average[name].copy_(parameter)
            else:
                average[name].mul_(share).add_(parameter, alpha=1 - share)


class Ema(Callback):
    """Keeps the average of what trains, and puts it in the network's place in validation, in files and at the end.

    A checkpoint's network is the average; what trains lies in this callback's state, from which a run goes on.
    """

    def __init__(self, **numbers: Any) -> None:
        """numbers: those of `decay`."""
        try:
            decay(0, **numbers)
        except TypeError as error:
            remedy = "its numbers: update_after, inv_gamma, power, least, most"
            raise ConfigError(f"no average can be made: {error}", where="strategy.ema", do=remedy) from error
        self.numbers, self.updates = numbers, 0
        self.other: dict[str, Tensor] = {}  # the average, or, while the network shows that, what trains
        self.shown = False
        self._parameters: dict[str, nn.Parameter] = {}
        self._restored: Mapping[str, Tensor] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average begins as a copy; behind a checkpoint, whose network it is, what trained takes its place."""
        network = cast("PolicyModule", pl_module).model
        self._parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.other, self.shown = {name: p.detach().clone() for name, p in self._parameters.items()}, False
        if self._restored is not None:
            for name, parameter in self._parameters.items():
                parameter.data.copy_(self._restored[name])
            self._restored = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Behind each step of the optimizer."""
        if self.updates < trainer.global_step:
            averaged(self.other, cast("PolicyModule", pl_module).model, decay(self.updates, **self.numbers))
            self.updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average is what validates."""
        self.show(True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What trains goes on."""
        self.show(False)

    def show(self, average: bool) -> None:
        """Let the network hold the average, or what trains: tensors change places, and follow it to another device."""
        if average != self.shown:
            for name, parameter in self._parameters.items():
                parameter.data, self.other[name] = self.other[name].to(parameter.device), parameter.data
            self.shown = average

    @contextmanager
    def showing(self, average: bool) -> Iterator[Mapping[str, Tensor]]:
        """The same meanwhile, with the tensors of the network."""
        was = self.shown
        self.show(average)
        try:
            yield {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        finally:
            self.show(was)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The file's network is the average."""
        with self.showing(True) as tensors:
            checkpoint["state_dict"].update({_PREFIX + name: tensor for name, tensor in tensors.items()})

    def state_dict(self) -> dict[str, Any]:
        """How many updates there were, and the weights that train."""
        with self.showing(False) as tensors:
            return {"updates": self.updates, "trained": dict(tensors or self._restored or {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, once training starts."""
        self.updates, self._restored = state_dict["updates"], state_dict["trained"]


class Averaged(Finetune):
    """A strategy whose policy is the average of the weights that it trains. ema: numbers of `decay`."""

    name = "averaged"

    def __init__(self, *args: Any, ema: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ema = Ema(**(ema or {}))

    def configure_callbacks(self) -> Sequence[Callback]:
        """The average is kept by Lightning's own means."""
        return [self.ema]

    def answer_golden(self, samples: Sequence[Sample]) -> None:
        """The average answers."""
        with self.ema.showing(True):
            super().answer_golden(samples)
