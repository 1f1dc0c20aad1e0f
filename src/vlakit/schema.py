"""The only types that cross packages. B batch, T text tokens, N patches, A action size, H chunk, W history window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
UInt8: TypeAlias = npt.NDArray[np.uint8]

NO_LOSS = -100  # the label of an id that the loss ignores


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy sees: `image` (H, W, 3) uint8 RGB, what a person says, and whose statistics apply."""

    image: UInt8
    instruction: str
    dataset: str | None = None  # None: the checkpoint knows one dataset only


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One demonstration after standardisation; every per-step field has the same length.

    action (T, A) float32: metres, radians, gripper 1 = open. images: camera -> one encoded image a step.
    proprio: key -> (T, P) float32.
    """

    dataset: str
    action: Float32
    instructions: list[str]
    images: dict[str, list[bytes]]
    proprio: dict[str, Float32] = field(default_factory=dict[str, Float32])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])  # plain JSON values: episode id, source file

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment as it leaves the shards: still encoded, with its history window and its action chunk.

    images: camera -> W encoded images, oldest first; window_mask (W,) bool: False where the window starts before
    the episode and repeats its first frame. actions (H, A) float32 in physical units; chunk_mask (H,) bool: False past
    the end.
    position: the sample's number in the stream, which also seeds its augmentation.
    """

    key: str
    dataset: str
    instruction: str
    images: dict[str, list[bytes]]
    actions: Float32
    window_mask: npt.NDArray[np.bool_]
    chunk_mask: npt.NDArray[np.bool_]
    previous_action: Float32 | None = None  # (A,) the step before; None at the start of an episode
    proprio: Float32 | None = None  # (W, P) in the order of the shards' index; None where they hold none
    position: int = 0
    row: int = -1  # the frame's number among all frames of its dataset's shards; -1: not from shards


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """Action statistics of one dataset in physical units, each (A,) float64; mask False = left as it is."""

    q01: Float64
    q99: Float64
    mean: Float64
    std: Float64
    min: Float64
    max: Float64
    mask: npt.NDArray[np.bool_]
    num_transitions: int
    num_trajectories: int
    proprio: dict[str, Float64] | None = None  # the same names; None: written as zeros, as OpenVLA does


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded sample before padding: pixel_values (3k, S, S) float32, input_ids and labels (T,) int64."""

    key: str
    dataset: str
    pixel_values: Tensor
    input_ids: Int64
    labels: Int64
    actions: Float32  # (H, A) physical units
    normalized: Float32  # (H, A) in [-1, 1], gripper as it is
    chunk_mask: npt.NDArray[np.bool_]
    position: int = 0
    row: int = -1


@dataclass(slots=True)
class Batch:
    """Right-padded examples: pixel_values (B, 3k, S, S), input_ids, attention_mask, labels (B, T), actions (B, H, A).

    labels are -100 where there is no loss; position is the number of the first sample in the stream. rows: the samples'
    `row`. features (B, N, D_v), where they are known, take the place of the vision towers.
    """

    pixel_values: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    actions: Tensor
    normalized: Tensor
    chunk_mask: Tensor
    keys: list[str]
    datasets: list[str]
    position: int = 0
    rows: list[int] = field(default_factory=list[int])
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """Move every tensor, as `torch.Tensor.to`; Lightning calls this."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """Pin every tensor; the DataLoader calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {f.name: value for f in fields(self) if hasattr(value := getattr(self, f.name), "dim")}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})
