"""What a conversion may be told."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TypedDict

from vlakit.data.specs.spec import DatasetSpec
from vlakit.errors import ConfigError

_ERRORS = ("on_error", "max_errors")


class OptionKeywords(TypedDict, total=False):
    """The keyword arguments of `convert` that change what it writes; defaults are those of `ConversionOptions`."""

    max_frames_per_shard: int
    max_bytes_per_shard: int
    val_fraction: float
    cameras: tuple[str, ...]
    image_size: int | None
    on_error: str
    max_errors: float


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """Shard limits, share of episodes held out for val, cameras to keep, square image side in px (None: as stored).

    on_error: raise, or skip an episode that cannot be used, as long as they are at most `max_errors` of a split.
    """

    max_frames_per_shard: int = 2000
    max_bytes_per_shard: int = 500_000_000
    val_fraction: float = 0.05
    cameras: tuple[str, ...] = ("primary",)
    image_size: int | None = None
    on_error: str = "raise"
    max_errors: float = 0.001

    def written(self) -> dict[str, object]:
        """What the index says of them; what older versions did not know is left out where it changes nothing."""
        content = {**asdict(self), "cameras": list(self.cameras)}
        return content if self.on_error == "skip" else {k: v for k, v in content.items() if k not in _ERRORS}

    def check(self, spec: DatasetSpec) -> None:
        """Raise ConfigError for a value that cannot be used with `spec`."""
        sizes = self.max_frames_per_shard, self.max_bytes_per_shard, 1 if self.image_size is None else self.image_size
        if min(sizes) < 1:
            raise ConfigError("shard limits and image_size must be above 0", where=f"dataset {spec.name}")
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(f"val_fraction {self.val_fraction} is not in [0, 1)", where=f"dataset {spec.name}")
        known = [camera for camera, key in spec.images.items() if key]
        missing = [camera for camera in self.cameras if camera not in known]
        if missing or not self.cameras:
            raise ConfigError(
                f"cameras {list(self.cameras)} cannot be kept", where=f"dataset {spec.name}", do=f"choose from {known}"
            )


def no_camera(spec: DatasetSpec, cameras: Collection[str]) -> ConfigError:
    """The error of a spec that chooses none of a dataset's cameras; which one a policy sees only a person can say."""
    found = ", ".join(cameras) or "none"
    return ConfigError(
        f"the spec chooses no camera, the dataset has {len(cameras)}: {found}",
        where=f"dataset {spec.name}",
        do=f"write images: {{primary: {next(iter(cameras), 'KEY')}}} into the spec, with the key of the one it sees",
    )
