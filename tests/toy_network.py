"""A network of another family, as a user writes one: several cameras, a window and proprioception to a chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlakit.models.network import Network, Output, row_means
from vlakit.processing.processor import Processor
from vlakit.schema import Batch, Inputs


class ToyNetwork(Network):
    """Mean colours of every frame and the proprioception, through one linear layer."""

    def __init__(self, processor: Processor, n_actions: int = 7) -> None:
        super().__init__()
        settings = processor.settings
        channels = 3 * len(settings.channel_statistics) * len(settings.cameras)
        self.shape = settings.chunk, n_actions
        self.regressor = nn.Linear(settings.window * (channels + settings.proprio), settings.chunk * n_actions)

    def predict(self, inputs: Inputs) -> Tensor:
        seen = [frames.mean(dim=(3, 4)) for frames in inputs.pixels.values()]  # (B, W, C)
        seen += [] if inputs.proprio is None else [inputs.proprio]
        return self.regressor(torch.cat(seen, dim=2).flatten(1)).view(len(inputs), *self.shape)

    def forward(self, batch: Batch) -> Output:
        predicted = self.predict(batch)
        errors = (predicted - batch.normalized) ** 2
        weight = batch.chunk_mask[..., None].expand_as(errors)
        return Output(errors[weight].mean(), row_means(errors.detach(), batch.chunk_mask), predicted.detach())


def no_network(processor: Processor) -> nn.Linear:
    """Something that can be built and is no Network."""
    return nn.Linear(1, 1)
