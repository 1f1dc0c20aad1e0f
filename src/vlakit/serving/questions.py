"""What a client asked, checked: `Question`; and why it gets no action: `Refused`, `Busy`. No error looks like one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlakit.errors import InvalidData, VlakitError, nearest
from vlakit.schema import Float32, UInt8

log = logging.getLogger(__name__)
MAX_SIDE = 8192  # pixels of a picture
MAX_WORDS = 2000  # characters of an instruction
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


class Refused(InvalidData):
    """A question that has no answer: something in it is missing or is not what the policy takes."""


class Busy(VlakitError):
    """A question that is right and came at the wrong moment: the queue is full, the server ends, time is over."""


class Unauthorized(VlakitError):
    """A client without the token."""


@dataclass(frozen=True)
class Question:
    """One moment. images: camera of the policy -> (T, H, W, 3) uint8; proprio (T, P) float32 in the dataset's units."""

    images: Mapping[str, UInt8]
    instruction: str
    dataset: str | None = None
    proprio: Float32 | None = None


@dataclass
class Asked:
    """What a question must hold: keys of a dialect, camera by camera, and datasets whose statistics there are.

    cameras: camera of the policy -> the dialect's key. dataset: whose statistics apply where nobody says.
    """

    cameras: Mapping[str, str]
    datasets: tuple[str, ...] = ()
    dataset: str | None = None
    proprio: int = 0
    proprio_key: str = "observation/state"
    _told: set[str] = field(default_factory=set[str])

    def question(
        self, images: Mapping[str, Any], instruction: Any, *, unnorm_key: Any = None, proprio: Any = None
    ) -> Question:
        """The checked question. images: the dialect's key -> a picture, or frames (T, H, W, 3). Raises Refused."""
        missing = [key for key in self.cameras.values() if key not in images]
        if missing:
            raise Refused(
                f"no picture {missing[0]!r}",
                where=f"pictures in the question: {', '.join(map(str, images)) or 'none'}",
                do=f"send {', '.join(self.cameras.values())}; the server names them by cameras={{CAMERA: KEY}}",
            )
        self._tell([str(key) for key in images if key not in self.cameras.values()])
        shown = {camera: frames_of(images[key], key) for camera, key in self.cameras.items()}
        return Question(shown, instruction_of(instruction), self.dataset_of(unnorm_key), self._proprio(proprio))

    def dataset_of(self, key: Any) -> str | None:
        """The dataset whose statistics are asked for. Raises Refused for one that the policy does not know."""
        if key is None and self.dataset is None and len(self.datasets) > 1:
            known = ", ".join(self.datasets)
            raise Refused("no unnorm_key, and there are several", where="unnorm_key", do=f"send one of {known}"[:300])
        if key is None:
            return self.dataset
        if not isinstance(key, str) or key not in self.datasets:
            raise Refused(
                f"unknown unnorm_key {key!r}"[:200], where="unnorm_key", do=nearest(str(key)[:100], self.datasets)
            )
        return key

    def _proprio(self, value: Any) -> Float32 | None:
        if self.proprio == 0:
            return None
        if value is None:
            raise Refused("no proprio", where=self.proprio_key, do=f"send {self.proprio} numbers")
        array = np.asarray(value)
        rows = array.reshape(-1, array.shape[-1] if array.ndim == 2 else array.size or 1)
        if array.dtype.kind not in "iuf" or rows.shape[1] != self.proprio or not np.isfinite(array).all():
            what = f"proprio {array.shape} {array.dtype} where {self.proprio} finite numbers are taken"
            raise Refused(what, where=self.proprio_key, do=f"send {self.proprio} numbers in the dataset's units")
        return rows.astype(np.float32)

    def _tell(self, keys: list[str]) -> None:
        """Warn once of each picture that nobody asked for."""
        unknown = [key for key in keys if key not in self._told][: 100 - len(self._told)]
        self._told.update(unknown)
        if unknown:
            log.warning("pictures that the policy does not look at are left out: %s", ", ".join(unknown)[:300])


def instruction_of(value: Any) -> str:
    """The words of a question. Raises Refused for none, for what is no text and for a book."""
    if not isinstance(value, str) or not value.strip():
        raise Refused("no instruction", where=f"instruction {value!r}"[:100], do="say in words what to do")
    if len(value) > MAX_WORDS:
        raise Refused(f"an instruction of {len(value)} characters", where="instruction", do=f"at most {MAX_WORDS}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused("an instruction with half a character", where="instruction", do="send text that is valid UTF-8")
    return value


def frames_of(value: Any, key: str) -> UInt8:
    """(T, H, W, 3) uint8 from a picture, or from frames (T, H, W, 3) or (T, 3, H, W). Raises Refused."""
    if isinstance(value, np.ndarray) and value.ndim == 4:
        if not 1 <= len(value) <= 64:
            raise Refused(f"{len(value)} frames", where=key, do="send 1 to 64")
        return np.stack([picture_of(frame, key) for frame in value])
    return picture_of(value, key)[None]


def picture_of(value: Any, key: str) -> UInt8:
    """(H, W, 3) uint8 RGB from (H, W), (H, W, 1 | 3 | 4) or (3, H, W): alpha is dropped. Raises Refused."""
    do = "send (height, width, 3) or (3, height, width) uint8 RGB"
    if not isinstance(value, np.ndarray):
        raise Refused(f"the picture is a {type(value).__name__}, no array", where=str(key), do=do)
    if value.dtype != np.uint8:
        raise Refused(f"the picture is of {value.dtype}", where=str(key), do=do)
    if value.ndim == 2:
        value = value[..., None]
    if value.ndim == 3 and value.shape[-1] not in CHANNELS and value.shape[0] == 3:
        value = np.moveaxis(value, 0, -1)
    if value.ndim != 3 or value.shape[-1] not in CHANNELS or not all(0 < side <= MAX_SIDE for side in value.shape[:2]):
        raise Refused(f"the picture has the shape {value.shape}", where=str(key), do=do)
    rgb = value[..., :3] if value.shape[-1] > 1 else np.repeat(value, 3, axis=-1)
    return np.ascontiguousarray(rgb)


def pictures_in(payload: Mapping[Any, Any], asked: Asked) -> dict[str, Any]:
    """The values under a camera's key, and whatever else looks like a picture."""
    keys = set(asked.cameras.values())
    return {
        key: value
        for key, value in payload.items()
        if isinstance(key, str) and (key in keys or (isinstance(value, np.ndarray) and value.ndim >= 3))
    }
