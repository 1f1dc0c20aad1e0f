"""Pictures to tokens: an EfficientNet whose every block the instruction scales and shifts, then TokenLearner.

Keras pads before a stride of two as if every side were even: 300 px become 9 x 9, where timm's own rule gives 10 x 10.
Sources: Brohan et al. 2022 (RT-1), Section 5.1; Tan and Le 2019, Table 1; Ryoo et al. 2021 (TokenLearner 1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from vlakit.errors import ConfigError, nearest

# (repeats, kernel, stride, expansion, channels) of the seven stages before they are scaled.
STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
STRIDES = tuple(stage[2] for stage in STAGES)
PADDINGS = ("even", "same")  # before a stride of two: as Keras does without a known size; by the size, as timm does
BATCH_NORM_EPS, LAYER_NORM_EPS = 1e-3, 1e-6


class Film(nn.Module):
    """(1 + mult(context)) x + add(context) over the channels of x (B, C, H, W); nothing changes at first."""

    def __init__(self, context: int, channels: int) -> None:
        super().__init__()
        self.mult, self.add = (_Zeros(context, channels) for _ in range(2))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """context (B, D)."""
        return (1 + self.mult(context)[:, :, None, None]) * x + self.add(context)[:, :, None, None]


class _Zeros(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class EvenConv2d(nn.Conv2d):
    """A convolution of stride two that pads (k // 2 - 1, k // 2), whatever the size of its input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Conv2d's name for it
        """(B, C, H, W) -> (B, C', H // 2, W // 2)."""
        before, after = self.kernel_size[0] // 2 - 1, self.kernel_size[0] // 2
        return super().forward(F.pad(input, (before, after, before, after)))


@dataclass(frozen=True)
class EncoderSizes:
    """Of an EfficientNet: factors of its widths and depths (1.2 and 1.4: B3), strides of its stages, padding.

    channels: of a last 1x1 convolution with FiLM behind it; None: there is none. drop_path: share of blocks left out.
    """

    width: float = 1.2
    depth: float = 1.4
    strides: Sequence[int] = STRIDES
    padding: str = "even"
    drop_path: float = 0.2
    channels: int | None = 512

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ConfigError(
                f"padding is {self.padding!r}", where="network.encoder", do=nearest(str(self.padding), PADDINGS)
            )
        if len(self.strides) != len(STAGES) or not set(self.strides) <= {1, 2}:
            raise ConfigError(
                f"strides {list(self.strides)}", where="network.encoder", do=f"give {len(STAGES)} numbers, each 1 or 2"
            )


def efficientnet(sizes: EncoderSizes) -> EfficientNet:
    """timm's EfficientNet without classifier, scaled; tensors are named as in its `tf_efficientnet_*` files."""
    stages = [
        [f"{'ds' if expansion == 1 else 'ir'}_r{repeats}_k{kernel}_s{stride}_e{expansion}_c{channels}_se0.25"]
        for (repeats, kernel, _, expansion, channels), stride in zip(STAGES, sizes.strides, strict=True)
    ]
    rounded = partial(round_channels, multiplier=sizes.width)
    net = EfficientNet(
        block_args=decode_arch_def(stages, sizes.depth),
        num_features=rounded(1280),
        num_classes=0,
        round_chs_fn=rounded,
        pad_type="same",
        act_layer=nn.SiLU,
        norm_layer=partial(nn.BatchNorm2d, eps=BATCH_NORM_EPS),  # pyright: ignore[reportArgumentType]
        drop_path_rate=sizes.drop_path,
    )
    if sizes.padding == "even":
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.__class__, module.padding = EvenConv2d, (0, 0)
    return net


class FilmEfficientNet(nn.Module):
    """Pictures (B, 3, S, S), normalised as ImageNet, and a context (B, D) to features (B, C, s, s)."""

    def __init__(self, context: int, sizes: EncoderSizes) -> None:
        super().__init__()
        self.net, channels = efficientnet(sizes), sizes.channels
        top = cast(int, self.net.num_features)
        self.width = channels or top
        last = [[m for m in block.children() if isinstance(m, nn.Conv2d)][-1] for block in self._blocks()]
        self.films = nn.ModuleList(Film(context, convolution.out_channels) for convolution in last)
        self.conv1x1 = None if channels is None else nn.Conv2d(top, channels, 1, bias=False)
        self.film_top = None if channels is None else Film(context, channels)

    def _blocks(self) -> list[nn.Module]:
        return [block for stage in cast(Any, self.net.blocks) for block in stage]

    def forward(self, pixels: Tensor, context: Tensor) -> Tensor:
        """(B, C, s, s)."""
        x = self.net.bn1(self.net.conv_stem(pixels))
        for block, film in zip(self._blocks(), self.films, strict=True):
            x = film(block(x), context)
        x = self.net.bn2(self.net.conv_head(x))
        if self.conv1x1 is not None and self.film_top is not None:
            x = self.film_top(self.conv1x1(x), context)
        return x


class TokenLearner(nn.Module):
    """Tokens (B, n, D) as weighted means of N places (B, N, D); each token's weights sum to one."""

    def __init__(self, width: int, tokens: int, bottleneck: int = 64) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.hidden, self.final = nn.Linear(width, bottleneck), nn.Linear(bottleneck, tokens)

    def weights(self, places: Tensor) -> Tensor:
        """(B, n, N)."""
        chosen = self.final(F.gelu(self.hidden(self.norm(places)), approximate="tanh"))  # (B, N, n)
        return chosen.transpose(1, 2).softmax(dim=-1)

    def forward(self, places: Tensor) -> Tensor:
        """(B, N, D) -> (B, n, D)."""
        return self.weights(places) @ places
