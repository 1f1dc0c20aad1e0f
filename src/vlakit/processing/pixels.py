"""What happens to one picture on its way into a network, the same in training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from vlakit.errors import InvalidData
from vlakit.processing.augment import ImageAugmentation
from vlakit.processing.images import (
    GREY,
    channel_tables,
    check_image,
    crop_and_resize,
    jpeg_round_trip,
    letterbox_fill,
    resizer,
)
from vlakit.processing.settings import ProcessorSettings
from vlakit.schema import Float32, UInt8

ImageChange: TypeAlias = Callable[[UInt8], UInt8]


def observed_frames(images: Any, camera: str) -> Sequence[UInt8]:
    """The pictures of one camera of an observation as arrays, PIL images and tensors among them.

    Raises InvalidData for a camera that is not there, and for what is no picture: a path, bytes, a tensor on a GPU.
    """
    if not isinstance(images, Mapping):
        what = f"images is a {type(images).__name__}, not camera -> pictures"
        raise InvalidData(what, where="observation", do="write Observation.of(image, instruction)")
    shown = cast("Mapping[str, Any]", images)
    if camera not in shown:
        raise InvalidData(
            f"no camera {camera!r}",
            where=f"observation has {', '.join(shown) or 'none'}",
            do="give the policy the cameras that it was trained with",
        )
    frames = shown[camera]
    if isinstance(frames, np.ndarray):
        return cast("Sequence[UInt8]", frames)
    try:
        if isinstance(frames, list | tuple):
            return [_picture(one) for one in cast("Sequence[Any]", frames)]
        return cast("Sequence[UInt8]", _picture(frames))
    except (ValueError, TypeError, RuntimeError) as error:
        remedy = "give (height, width, 3) uint8 RGB, a PIL image or a tensor on the CPU"
        raise InvalidData(f"camera {camera!r} shows no picture: {error}", where="observation", do=remedy) from error


def _picture(value: Any) -> UInt8:
    if isinstance(value, str | bytes | bytearray | PurePath):
        raise TypeError(f"{type(value).__name__}, a file or its bytes: open it with PIL.Image.open first")
    pixels = np.asarray(value)
    if pixels.dtype == object:
        raise TypeError(f"this is a {type(value).__name__}")
    return pixels


class PictureChain:
    """(H, W, 3) uint8 to (3 k, S, S) float32 for k towers: JPEG, resize, augmentation or crop, normalisation."""

    def __init__(self, settings: ProcessorSettings, augmentation: ImageAugmentation | None, seed: int) -> None:
        self.settings, self.augmentation, self.seed = settings, augmentation, seed
        self.resize = resizer(settings.resize)
        self.scale, self.shift = channel_tables(settings.channel_statistics)  # (k, 3)
        # The letterbox of two towers pads with two colours; whatever fills no border needs one square for all.
        fills = [letterbox_fill(tower) for tower in settings.channel_statistics]
        self.fills = fills if settings.resize == "letterbox" and len(set(fills)) > 1 else fills[-1:] or [GREY]
        self.before_resize: list[ImageChange] = [jpeg_round_trip] if settings.jpeg else []
        self.after_resize: list[ImageChange] = []
        if settings.center_crop is not None:
            self.after_resize.append(partial(crop_and_resize, area=settings.center_crop))

    def pixels(self, image: UInt8, *, where: str = "observation", position: int | None = None) -> Tensor:
        """(H, W, 3) uint8 to (3 k, S, S) float32; a `position` in the stream asks for augmentation."""
        changes: list[ImageChange] = []
        if self.augmentation is not None and position is not None:
            changes.append(partial(self.augmentation, seed=self.seed, position=position))
        return self._towers(check_image(image, where=where), changes)

    def observed_pixels(self, image: UInt8, *, where: str = "observation") -> Tensor:
        """`pixels` of what a policy sees: JPEG and centre crop where the settings ask for them, never augmented."""
        check_image(image, where=where)
        for change in self.before_resize:
            image = change(image)
        return self._towers(image, self.after_resize)

    def _towers(self, image: UInt8, changes: Sequence[ImageChange]) -> Tensor:
        squares = [self.resize(image, self.settings.image_size, fill) for fill in self.fills]
        for change in changes:
            squares = [change(square) for square in squares]
        return self.normalized(np.stack(squares))

    def shown(self, pixels: Tensor) -> UInt8:
        """The picture (S, S, 3) uint8 of the first tower in pixels (3 k, S, S): the opposite of `normalized`."""
        levels = (pixels[:3].numpy() - self.shift[0][:, None, None]) / self.scale[0][:, None, None]
        return np.ascontiguousarray(np.moveaxis(np.rint(levels).clip(0, 255).astype(np.uint8), 0, -1))

    def normalized(self, squares: UInt8 | Float32) -> Tensor:
        """Pictures (..., k or 1, S, S, 3) in [0, 255], one a tower or one for all, to (..., 3 k, S, S) float32."""
        planes = np.ascontiguousarray(np.moveaxis(squares, -1, -3))  # (..., k or 1, 3, S, S)
        towers = planes * self.scale[:, :, None, None]
        towers += self.shift[:, :, None, None]
        return torch.as_tensor(towers).flatten(-4, -3)
