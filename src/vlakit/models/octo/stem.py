"""Pictures to tokens: a few convolutions whose kernels are standardised at every call (SmallStem16)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.models.octo.transformer import EPSILON

GROUPS = 32
STRIDE = 2


class StandardConv(nn.Conv2d):
    """A convolution whose kernel has mean 0 and deviation 1 over inputs and places; epsilon joins the deviation."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Conv2d's name for it
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = weight / (weight.std(dim=(1, 2, 3), keepdim=True, unbiased=False) + 1e-5)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class Stem(nn.Module):
    """(B, C, S, S) in [-1, 1] to (B, n, width), row by row; each of `widths` halves the sides."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (32, 96, 192, 384),
        width: int = 512,
        kernel: int = 3,
        patch: int = 1,
    ) -> None:
        """patch: places (patch, patch) of the last convolution become one token."""
        super().__init__()
        odd = [one for one in widths if one % GROUPS]
        if odd or not widths:
            raise ConfigError(
                f"stem widths {list(widths)}",
                where="model.network.stem",
                do=f"give at least one, each a multiple of the {GROUPS} groups of its norm",
            )
        inputs = [channels, *widths[:-1]]
        self.convolutions = nn.ModuleList(
            StandardConv(before, after, kernel, STRIDE, kernel // 2)
            for before, after in zip(inputs, widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, after, EPSILON) for after in widths)
        self.embedding = nn.Conv2d(widths[-1], width, patch, patch)
        self.kernel, self.patch, self.width = kernel, patch, width

    def forward(self, pictures: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            pictures = F.relu(norm(convolution(pictures)))
        return self.embedding(pictures).flatten(2).transpose(1, 2)

    def tokens(self, size: int) -> int:
        """How many tokens a picture of this side becomes. Raises ConfigError where there is none.

        >>> Stem(6).tokens(256), Stem(6).tokens(128)
        (256, 64)
        """
        side = size
        for _ in self.convolutions:
            side = (side + 2 * (self.kernel // 2) - self.kernel) // STRIDE + 1
        if side // self.patch < 1:
            raise ConfigError(
                f"a picture of {size} px becomes no token", where="model.network.stem", do="give fewer stem widths"
            )
        return (side // self.patch) ** 2
