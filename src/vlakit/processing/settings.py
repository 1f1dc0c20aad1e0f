"""What a checkpoint stores of its processor: plain settings, from which it is rebuilt without Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from vlakit.errors import CheckpointMismatch, ConfigError, nearest
from vlakit.processing.normalizer import NORMALIZATIONS


@dataclass(frozen=True, kw_only=True)
class ProcessorSettings:
    """Of any policy: which cameras and how much of the past it sees, at which size, and how far ahead it acts."""

    image_size: int
    channel_statistics: tuple[str, ...]  # of each tower that sees the image, DINOv2 first
    resize: str = "resize-naive"
    cameras: tuple[str, ...] = ("primary",)
    window: int = 1  # W, frames of history, the present one last
    proprio: int = 0  # P, numbers of proprioception that it takes; 0: none
    chunk: int = 1  # H, actions that it answers with
    normalization: str = "openvla"  # a name of normalizer.NORMALIZATIONS: by which bounds actions become -1 to 1
    jpeg: bool = False  # observations pass through JPEG before the resize, as in the peers' evaluation
    center_crop: float | None = None  # area cut from observations; 0.9 where training cropped at random

    def __post_init__(self) -> None:
        if self.center_crop is not None and not 0 < self.center_crop <= 1:
            raise ConfigError(
                f"center_crop is {self.center_crop}",
                where="processor.center_crop",
                do="give the share of the area to keep, such as 0.9, or null",
            )
        if self.normalization not in NORMALIZATIONS:
            raise ConfigError(
                f"normalization is {self.normalization!r}",
                where="processor.normalization",
                do=nearest(str(self.normalization), NORMALIZATIONS),
            )
        if not (self.cameras or self.proprio > 0) or self.window < 1 or self.chunk < 1 or self.proprio < 0:
            raise ConfigError(
                f"cameras {list(self.cameras)}, window {self.window}, chunk {self.chunk}, proprio {self.proprio}",
                where="processor",
                do="name at least one camera, or proprio; window and chunk are 1 or more, proprio 0 or more",
            )

    @property
    def trained(self) -> int:
        """Actions that a training example holds."""
        return self.chunk

    @property
    def ahead(self) -> int:
        """Those of them from the present on, which is what is read of the data."""
        return self.chunk

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain values, as a configuration or a checkpoint holds them. Raises CheckpointMismatch."""
        plain = {key: value for key, value in values.items() if key != "kind"}
        if "camera" in plain:  # until 0.1.0 there was one
            plain["cameras"] = [plain.pop("camera")]
        try:
            lists: dict[str, Any] = {
                key: tuple(plain[key]) for key in ("channel_statistics", "cameras") if key in plain
            }
            return cls(**{**plain, **lists})
        except (TypeError, KeyError) as error:
            raise CheckpointMismatch(
                f"the processor cannot be rebuilt: {error}",
                where=f"processor keys {sorted(plain)}; known: {', '.join(one.name for one in fields(cls))}",
                do="load the checkpoint with the vlakit version that wrote it",
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The opposite of from_dict: plain values only; a usual normalisation is left out, as older cards do."""
        values: dict[str, Any] = asdict(self)
        if self.normalization == "openvla":
            values.pop("normalization")
        return {**values, "channel_statistics": list(self.channel_statistics), "cameras": list(self.cameras)}


@dataclass(frozen=True, kw_only=True)
class ReadingSettings(ProcessorSettings):
    """Of a policy that reads text."""

    tokenizer: str
    tokenizer_path: str | None = None  # the folder of one whose files do not ship with vlakit


@dataclass(frozen=True, kw_only=True)
class InstructionSettings(ReadingSettings):
    """Of a policy that reads an instruction's first `text_tokens` ids and answers in numbers."""

    text_tokens: int = 16
    camera_sizes: Mapping[str, int] = field(default_factory=dict[str, int])  # of cameras that are not image_size wide

    def __post_init__(self) -> None:
        super().__post_init__()
        strange = sorted(self.camera_sizes.keys() - set(self.cameras))
        if strange or self.text_tokens < 1:
            raise ConfigError(
                f"camera_sizes of {strange or 'no camera'}, text_tokens {self.text_tokens}",
                where="processor",
                do=f"camera_sizes names cameras of {list(self.cameras)}; text_tokens is 1 or more",
            )

    def to_dict(self) -> dict[str, Any]:
        """As any settings', with a plain dict in it."""
        return {**super().to_dict(), "camera_sizes": dict(self.camera_sizes)}


@dataclass(frozen=True, kw_only=True)
class TokenSettings(ReadingSettings):
    """Of a policy that reads text and answers in action tokens."""

    prompt: str = "openvla"
    n_bins: int = 256
    padding_id: int | None = None  # first id past the actions; None: the tokenizer's
