"""The action tokens of RT-1's own code: named parts, numbers truncated to buckets, choices as they are.

Truncation makes an answer low by half a bucket on average. vlakit's own bins (ActionTokenizer) have no such bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlakit.errors import ActionNotFinite, ConfigError, InvalidData, nearest
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.schema import Float32, Int64

KINDS = ("float32", "int32")


@dataclass(frozen=True)
class Part:
    """`size` numbers in [low, high], a token each; or, as int32, a choice among `size`, one-hot: one token in all.

    Bounds are one number for all, or a list.
    """

    name: str
    size: int
    kind: str
    low: float | Sequence[float] = -1.0
    high: float | Sequence[float] = 1.0

    @property
    def tokens(self) -> int:
        """How many it takes."""
        return 1 if self.kind == "int32" else self.size

    @property
    def bounds(self) -> tuple[Float32, Float32]:
        """low and high, each (size,) or a number."""
        return np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)

    @classmethod
    def of(cls, row: Sequence[Any]) -> Part:
        """A row of a configuration: name, size, kind, low, high. Raises ConfigError."""
        try:
            part = cls(*row)
            low, high = part.bounds
            sound = part.size >= 1 and (part.kind == "int32" or bool(np.all(low < high)))
        except (TypeError, ValueError) as error:
            remedy = "write [name, size, float32 or int32, low, high]"
            raise ConfigError(f"a part of an action is {row!r}", where="processor.parts", do=remedy) from error
        if part.kind not in KINDS or not sound:
            do = nearest(str(part.kind), KINDS) if part.kind not in KINDS else "size is 1 or more, low below high"
            raise ConfigError(f"a part of an action is {row!r}", where="processor.parts", do=do)
        return part


class PartedTokenizer(ActionTokenizer):
    """Actions (..., A), the parts one behind another, to tokens (..., n) in [0, n_bins) and back, in float32."""

    def __init__(self, parts: Sequence[Part], n_bins: int = 256) -> None:
        super().__init__(n_bins, n_bins)
        widest = max([0, *(part.size for part in parts if part.kind == "int32")])
        if not parts or widest > n_bins:
            remedy = f"name one part or more, with {n_bins} choices at most, as n_bins says"
            raise ConfigError(f"{len(parts)} parts, of {widest} choices", where="processor.parts", do=remedy)
        self.parts = tuple(parts)
        ends = np.cumsum([part.size for part in parts])
        self.columns = [slice(int(end) - part.size, int(end)) for part, end in zip(parts, ends, strict=True)]

    @property
    def action_size(self) -> int:
        """A."""
        return sum(part.size for part in self.parts)

    def n_tokens(self, action_size: int) -> int:
        """n. Raises ConfigError for another A than the parts'."""
        if action_size != self.action_size:
            raise ConfigError(
                f"actions of {action_size} numbers, the parts have {self.action_size}",
                where="processor.parts",
                do=f"set model.network.action_size={self.action_size}, or let the parts describe the actions",
            )
        return sum(part.tokens for part in self.parts)

    def joined(self, actions: Mapping[str, npt.ArrayLike]) -> Float32:
        """Named parts, each (..., size), as one action (..., A)."""
        return np.concatenate([np.asarray(actions[part.name], np.float32) for part in self.parts], axis=-1)

    def split(self, actions: Float32) -> dict[str, Float32]:
        """The opposite."""
        return {part.name: actions[..., at] for part, at in zip(self.parts, self.columns, strict=True)}

    def encode(self, actions: npt.ArrayLike) -> Int64:
        """(..., A) to (..., n) int64. Values outside are clipped, NaN raises ActionNotFinite.

        >>> PartedTokenizer([Part("open", 3, "int32"), Part("x", 2, "float32")]).encode([0, 1, 0, 0.0, 1.5])
        array([  1, 127, 255])
        """
        values = np.asarray(actions, np.float32)
        if values.shape[-1] != self.action_size:
            raise InvalidData(
                f"an action of {values.shape[-1]} numbers, the parts have {self.action_size}",
                where="action tokenizer",
                do="let model.processor.parts describe the dataset's actions, or set it to null",
            )
        if not np.isfinite(values).all():
            raise ActionNotFinite("an action to tokenize is not finite", do="check the data: vlakit shards verify=DIR")
        pairs = zip(self.parts, self.columns, strict=True)
        return np.concatenate([self._encoded(part, values[..., at]) for part, at in pairs], axis=-1)

    def _encoded(self, part: Part, values: Float32) -> Int64:
        if part.kind == "int32":
            return values.argmax(axis=-1)[..., None].astype(np.int64)
        low, high = part.bounds
        share = (values.clip(low, high) - low) / (high - low)
        return (share * np.float32(self.n_bins - 1)).astype(np.int64)

    def decode(self, ids: npt.ArrayLike, *, strict: bool = True) -> Float32:
        """(..., n) to (..., A) float32; a choice that there is not becomes the first, strict or not, as there."""
        tokens = np.asarray(ids, np.int64)
        ends = np.cumsum([part.tokens for part in self.parts])
        pairs = [(part, tokens[..., end - part.tokens : end]) for part, end in zip(self.parts, ends, strict=True)]
        return np.concatenate([self._decoded(part, some) for part, some in pairs], axis=-1)

    def _decoded(self, part: Part, ids: Int64) -> Float32:
        if part.kind == "int32":
            chosen = np.where(ids < part.size, ids, 0)
            return (chosen == np.arange(part.size)).astype(np.float32)
        low, high = part.bounds
        return (ids.astype(np.float32) / np.float32(self.n_bins - 1) * (high - low) + low).astype(np.float32)
