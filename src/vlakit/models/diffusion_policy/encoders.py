"""What a policy sees as one vector a frame: a convolutional network for each camera, with group norm, behind a crop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.registry import Registry

CHANNELS_A_GROUP = 16
VISION: Registry[nn.Module] = Registry("camera network")  # (side in pixels, batch norm) -> features of (N, 3, S, S)


def _grouped(channels: int, **place: Any) -> nn.Module:
    return nn.GroupNorm(channels // CHANNELS_A_GROUP, channels, **place)


def _resnet(name: str, side: int, batch_norm: bool) -> nn.Module:
    return timm.create_model(
        name,
        num_classes=0,
        zero_init_last=False,
        norm_layer=nn.BatchNorm2d if batch_norm else _grouped,
    )


for _name in ("resnet18", "resnet34", "resnet50"):
    VISION.register(_name)(partial(_resnet, _name))


@VISION.register("resnet50_linear")
def resnet50_linear(side: int, batch_norm: bool, width: int = 512) -> nn.Module:
    """DROID's: all cells of a ResNet-50 through one linear layer, instead of their mean."""
    body = _resnet("resnet50", side, batch_norm)
    body.global_pool = nn.Flatten()
    return nn.Sequential(body, nn.Linear(2048 * (-(-side // 32)) ** 2, width))


@VISION.register("small")
def small(side: int, batch_norm: bool, width: int = 128) -> nn.Module:
    """Four convolutions of stride 2, whose cells a linear layer reads: for 64 px and two cores."""
    layers: list[nn.Module] = []
    for before, after in pairwise([3, 32, 64, 64, 64]):
        norm = nn.BatchNorm2d(after) if batch_norm else _grouped(after)
        layers += [nn.Conv2d(before, after, 3, 2, 1), norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (-(-side // 16)) ** 2, width), nn.ReLU())


class Cameras(nn.Module):
    """(B, W, 3, S, S) of each camera to (B, W, F). Crops are random in training, for each frame, and central in use.

    shared: one network for all cameras, which keeps its batch norm, as in the original.
    """

    def __init__(
        self, cameras: Sequence[str], vision: str, *, size: int, crop: int | None, shared: bool, group_norm: bool
    ) -> None:
        super().__init__()
        self.crop, self.shared = crop or size, shared
        if not 0 < self.crop <= size:
            raise ConfigError(
                f"a crop of {crop} px from pictures of {size} px", where="model.network.crop", do="crop less, or null"
            )
        build: Callable[..., nn.Module] = VISION.get(vision)
        names = ["rgb"] if shared else list(cameras)
        networks = {name: build(self.crop, batch_norm=shared or not group_norm) for name in names}
        self.key_model_map = nn.ModuleDict(networks)

    def forward(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """In the order of the cameras."""
        shape = next(iter(pixels.values())).shape[:2]
        frames = [self.cropped(one.flatten(0, 1)) for one in pixels.values()]  # (B W, 3, S, S) each
        if self.shared:
            features = list(self.key_model_map["rgb"](torch.cat(frames)).chunk(len(frames)))
        else:
            features = [network(one) for network, one in zip(self.key_model_map.values(), frames, strict=True)]
        return torch.cat(features, dim=-1).unflatten(0, shape)

    def cropped(self, frames: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, 3, crop, crop)."""
        room = frames.shape[-1] - self.crop
        if room == 0:
            return frames
        if not self.training:
            first = round(room / 2)
            return frames[..., first : first + self.crop, first : first + self.crop]
        top, left = torch.randint(room + 1, (2, len(frames), 1), device="cpu").to(frames.device)
        along = torch.arange(self.crop, device=frames.device)
        which = torch.arange(len(frames), device=frames.device)[:, None, None]
        return frames.movedim(1, -1)[which, (top + along)[:, :, None], (left + along)[:, None]].movedim(-1, 1)
