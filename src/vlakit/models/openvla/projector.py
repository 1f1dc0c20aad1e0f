"""Patches into the language model's space. Two layers for one tower, three for fused towers, as in Prismatic."""

from torch import Tensor, nn


class Projector(nn.Module):
    """GELU MLP (B, N, D_v) -> (B, N, D): fc1, fc2, and fc3 behind a fourfold widening when towers are fused."""

    def __init__(self, vision_width: int, hidden_size: int, *, fused: bool) -> None:
        super().__init__()
        first = 4 * vision_width if fused else hidden_size
        self.fc1 = nn.Linear(vision_width, first)
        self.fc2 = nn.Linear(first, hidden_size)
        self.fc3 = nn.Linear(hidden_size, hidden_size) if fused else None
        self.activation = nn.GELU()

    def forward(self, patches: Tensor) -> Tensor:
        hidden = self.fc2(self.activation(self.fc1(patches)))
        return hidden if self.fc3 is None else self.fc3(self.activation(hidden))
