"""A policy of one's own: a small convolutional network that regresses a chunk of actions from one picture."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from vlakit.models.network import Network, Output
from vlakit.processing.processor import Processor
from vlakit.schema import Batch, Inputs


class CnnPolicy(Network):
    """Four convolutions and a linear head over the present frame of the first camera; the loss is L1."""

    def __init__(self, processor: Processor, width: int = 16, action_size: int = 7) -> None:
        super().__init__()
        settings = processor.settings
        self.camera, self.shape = settings.cameras[0], (settings.chunk, action_size)
        channels = [3 * len(settings.channel_statistics), width, width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(4 * 2 * width, settings.chunk * action_size)

    def forward(self, batch: Batch) -> Output:
        """L1 over the actions that exist."""
        predicted = self.actions(batch)  # (B, H, A)
        distance = (predicted - batch.normalized).abs().mean(dim=2) * batch.chunk_mask  # (B, H)
        row_losses = distance.sum(dim=1) / batch.chunk_mask.sum(dim=1).clamp(min=1)
        return Output(row_losses.mean(), row_losses.detach(), predicted.detach())

    def predict(self, inputs: Inputs) -> Tensor:
        """(B, H, A) normalised."""
        return self.actions(inputs).float()

    def actions(self, inputs: Inputs) -> Tensor:
        """(B, H, A)."""
        frames = inputs.pixels[self.camera][:, -1]  # (B, C, S, S)
        return torch.tanh(self.head(self.body(frames))).view(len(inputs), *self.shape)
