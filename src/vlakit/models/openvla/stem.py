"""A convolutional stem in place of a patch embedding: small towers learn with it from few images, not without.

Source: Xiao et al. 2021, Early Convolutions Help Transformers See Better; here with GroupNorm, which needs no batch.
"""

from __future__ import annotations

from typing import Any

from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

CHANNELS = (16, 32, 64)  # powers of two: 24 and 48 cost half as much again
GROUPS = 8


class ConvStem(PatchEmbed):
    """timm's `embed_layer` for patches of 16 px: four 3x3 convolutions of stride 2, the last one called `proj`."""

    def __init__(self, img_size: int = 64, patch_size: int = 16, embed_dim: int = 96, **options: Any) -> None:
        super().__init__(img_size, patch_size, embed_dim=embed_dim, **options)
        layers: list[nn.Module] = []
        for width_in, width in zip((3, *CHANNELS), CHANNELS, strict=False):
            layers += [
                nn.Conv2d(width_in, width, 3, 2, padding=1, bias=False),
                nn.GroupNorm(GROUPS, width),
                nn.ReLU(inplace=True),
            ]
        # Padding before alone would centre what a patch sees on its upper left corner: behind, here, on its middle.
        self.stem = nn.Sequential(*layers, nn.ZeroPad2d((0, 1, 0, 1)))
        self.proj = nn.Conv2d(CHANNELS[-1], embed_dim, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, N, D); not in channels_last, where GroupNorm's backward is nine times slower on a CPU."""
        hidden = self.proj(self.stem(x.contiguous()))  # (B, D, S/16, S/16)
        return hidden.flatten(2).transpose(1, 2)  # (B, N, D)
