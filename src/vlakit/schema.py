"""The only types that cross packages. B batch, T text tokens, N patches, A action size, H chunk, W history window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
UInt8: TypeAlias = npt.NDArray[np.uint8]
Bool: TypeAlias = npt.NDArray[np.bool_]

NO_LOSS = -100  # the label of an id that the loss ignores


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy sees at one moment. images: camera -> (W, H, W', 3) uint8 RGB, its last W frames, oldest first.

    proprio (W, P) float32 in the units of the dataset. window_mask (W,): False where the window begins before the
    episode and repeats its first frame; None: every frame is real. dataset: whose statistics apply; None: the
    checkpoint knows one dataset only.
    W PIL images or tensors stand for the pictures of a camera too; the processor refuses what is no picture.
    """

    images: Mapping[str, UInt8]
    instruction: str
    dataset: str | None = None
    proprio: Float32 | None = None
    window_mask: Bool | None = None

    @classmethod
    def of(cls, image: Any, instruction: str, dataset: str | None = None, *, camera: str = "primary") -> Observation:
        """One picture (H, W, 3) of one camera, without a past: an array, a PIL image or a tensor."""
        frames: Any = [image]
        if isinstance(image, np.ndarray):
            frames = cast("UInt8", image)[None]
        return cls({camera: frames}, instruction, dataset)

    @property
    def image(self) -> UInt8:
        """(H, W, 3), the latest picture of the first camera."""
        return next(iter(self.images.values()))[-1]


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
    the end. past (W - 1, A): the actions of the window's earlier frames, the first again where it starts too early.
    position: the sample's number in the stream, which also seeds its augmentation.
    answer: of a question about the picture, which `instruction` then is; no action goes with it.
    """

    key: str
    dataset: str
    instruction: str
    images: dict[str, list[bytes]]
    actions: Float32
    window_mask: Bool
    chunk_mask: Bool
    previous_action: Float32 | None = None  # (A,) the step before; None at the start of an episode
    past: Float32 | None = None
    proprio: Float32 | None = None  # (W, P), in the order of the dataset's statistics
    position: int = 0
    row: int = -1  # the frame's number among all frames of its dataset's shards; -1: not from shards
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """Action statistics of one dataset in physical units, each (A,) float64; mask False = left as it is."""

    q01: Float64
    q99: Float64
    mean: Float64
    std: Float64
    min: Float64
    max: Float64
    mask: Bool
    num_transitions: int
    num_trajectories: int
    proprio: dict[str, Float64] | None = None  # the same names; None: written as zeros, as OpenVLA does


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded sample before it joins a batch: pixels camera -> (W, C, S, S), proprio (W, P), both normalised.

    prompt and answer (t,) int64 for policies that read text; the loss is on the answer.
    """

    key: str
    dataset: str
    pixels: dict[str, Tensor]
    window_mask: Bool
    actions: Float32  # (H, A) physical units
    normalized: Float32  # (H, A) in [-1, 1], gripper as it is
    chunk_mask: Bool
    proprio: Float32 | None = None
    past: Float32 | None = None  # (W - 1, A) normalised: what was done in the window before the chunk
    prompt: Int64 | None = None
    answer: Int64 | None = None
    position: int = 0
    row: int = -1


@dataclass(slots=True)
class TextBatch:
    """Right-padded ids (B, T) int64 with a mask, 1 where real, and labels, NO_LOSS where there is no loss.

    Of an observation there is a prompt and no answer, so that no label is set. weights (B, T) float32 of the labels in
    the loss, of sum 1; None: all weigh the same.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    weights: Tensor | None = None

    def balanced(self) -> TextBatch:
        """The same text in whose loss each row weighs as much as any other, however long its answer is."""
        labelled = self.labels != NO_LOSS
        counts = labelled.sum(dim=1, keepdim=True).clamp(min=1)
        return replace(self, weights=labelled.float() / counts / len(labelled))

    def prompts(self) -> list[list[int]]:
        """The ids of each row that carry no loss: what an answer follows."""
        kept = (self.mask > 0) & (self.labels == NO_LOSS)
        rows: list[list[int]] = [ids[keep].tolist() for ids, keep in zip(self.ids, kept, strict=True)]  # pyright: ignore[reportUnknownMemberType]
        return rows


@dataclass(slots=True, kw_only=True)
class Inputs:
    """What a network sees of B moments. pixels: camera -> (B, W, C, S, S) float32; window_mask (B, W) bool.

    proprio (B, W, P) and text where the policy takes them. action_shape: (H, A) of the answer that is asked for.
    features (B, N, D), where they are known, take the place of the frozen encoder.
    """

    pixels: dict[str, Tensor]
    window_mask: Tensor
    datasets: list[str]
    action_shape: tuple[int, int]
    proprio: Tensor | None = None
    text: TextBatch | None = None
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.datasets)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move every tensor, as `torch.Tensor.to`; Lightning calls this."""
        return _mapped(self, lambda tensor: tensor.to(*args, **kwargs))

    def like(self, weight: Tensor) -> Self:
        """On the device of a network's weight, pictures and features in its dtype; what is a measure keeps its own."""
        there = self.to(weight.device)
        features = None if there.features is None else there.features.to(weight.dtype)
        return replace(there, features=features, pixels={name: x.to(weight.dtype) for name, x in there.pixels.items()})

    def pin_memory(self) -> Self:
        """Pin every tensor; the DataLoader calls this."""
        return _mapped(self, lambda tensor: tensor.pin_memory())


@dataclass(slots=True, kw_only=True)
class Batch(Inputs):
    """Inputs and what was done: actions (B, H, A) in physical units, normalized (B, H, A), chunk_mask (B, H) bool.

    A row whose chunk_mask is all False has no action: it is a question about a picture. position: number of the first
    sample in the stream; rows: the samples' `row`.
    """

    actions: Tensor
    normalized: Tensor
    chunk_mask: Tensor
    keys: list[str]
    past: Tensor | None = None  # (B, W - 1, A) normalised: what was done in the window before the chunk
    position: int = 0
    rows: list[int] = field(default_factory=list[int])


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a batch, or of what is in it, with every tensor changed."""
    if hasattr(value, "dim"):
        return change(value)
    if isinstance(value, dict):
        tensors = cast("dict[str, Any]", value)
        return {key: _mapped(one, change) for key, one in tensors.items()}
    if isinstance(value, TextBatch | Inputs):
        return replace(value, **{f.name: _mapped(getattr(value, f.name), change) for f in fields(value)})
    return value
