"""From what is seen and told to readouts: every group of tokens is projected, placed, and put into one sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError, InvalidData
from vlakit.models.octo.attention import Layout, attention_table
from vlakit.models.octo.stem import Stem
from vlakit.models.octo.transformer import Learned, Transformer, dense

MISSING = -1.0  # a goal that is not there is black: zeros before the pictures are normalised


@dataclass
class Seen:
    """B windows of W timesteps. frames (B, W) bool, False: padding, which nobody attends to.

    images: camera -> (B, W, 3, S, S) in [-1, 1]; present: camera -> (B, W) bool, where not every picture is real;
    goals: camera -> (B, 3, S, S); proprio (B, W, P); language (B, L, width) with told (B, L) bool, where it is real.
    """

    frames: Tensor
    images: dict[str, Tensor]
    present: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    goals: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    proprio: Tensor | None = None
    language: Tensor | None = None
    told: Tensor | None = None


@dataclass
class Read:
    """Last states: task (B, n, D), observations (B, W, n, D), readouts: name -> (B, W, n, D)."""

    task: Tensor
    observations: Tensor
    readouts: dict[str, Tensor]


@dataclass
class Group:
    """Tokens of one kind: (B, W, n, D) and whether each may be attended to (B, W, n)."""

    tokens: Tensor
    present: Tensor


@dataclass(frozen=True, kw_only=True)
class TrunkSettings:
    """Sizes of the trunk. cameras: name -> side of its pictures; language: tokens and their width; proprio: numbers.

    positions: timesteps that have a place, at most so many in a window. goals: whether a goal picture lies under each
    picture. repeat_task: the task's tokens stand in every timestep once more. off_by_one: see attention_table.
    """

    width: int
    layers: int
    heads: int
    mlp: int
    cameras: Mapping[str, int]
    language: tuple[int, int] = (0, 0)
    proprio: int = 0
    readouts: Mapping[str, int] = field(default_factory=lambda: {"action": 1})
    positions: int = 10
    stem: Sequence[int] = (32, 96, 192, 384)
    stem_width: int = 512
    stem_kernel: int = 3
    stem_patch: int = 1
    goals: bool = True
    repeat_task: bool = True
    off_by_one: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(
                f"width {self.width} and {self.heads} heads", where="model.network", do="let the heads share it evenly"
            )


class Placed(nn.Module):
    """Tokens (..., n, width in) to (..., n, D), and a learned place for each, of each timestep where there are some."""

    def __init__(self, inputs: int, *places: int) -> None:
        super().__init__()
        self.projection, self.place = dense(inputs, places[-1]), Learned(*places)

    def forward(self, tokens: Tensor) -> Tensor:
        place = self.place.bias
        return self.projection(tokens.to(place.dtype)) + (place if place.ndim == 2 else place[: tokens.shape[1]])


class Trunk(nn.Module):
    """Stems, projections, places, and the transformer over task tokens and W timesteps."""

    def __init__(self, settings: TrunkSettings) -> None:
        super().__init__()
        self.settings, width, w = settings, settings.width, settings.positions
        channels = 6 if settings.goals else 3
        self.stems = nn.ModuleDict()
        self.observed, self.task, self.readouts = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for camera, size in settings.cameras.items():
            stem = Stem(channels, settings.stem, settings.stem_width, settings.stem_kernel, settings.stem_patch)
            self.stems[camera] = stem
            self.observed[camera] = Placed(settings.stem_width, w, stem.tokens(size), width)
        if settings.proprio:
            self.observed["proprio"] = Placed(1, w, settings.proprio, width)
        n, text_width = settings.language
        if n:
            self.task["language"] = Placed(text_width, n, width)
        for name, tokens in settings.readouts.items():
            self.readouts[name] = Learned(w, tokens, width)
        self.transformer = Transformer(width, settings.layers, settings.heads, settings.mlp)
        self._tables: dict[tuple[Any, ...], Tensor] = {}

    def forward(self, seen: Seen) -> Read:
        """Raises InvalidData for more timesteps than there are places, and where there is nothing to see."""
        rows, window = seen.frames.shape
        if window > self.settings.positions:
            raise InvalidData(
                f"a window of {window} frames, Octo has places for {self.settings.positions}",
                where="model.processor.window",
                do=f"set it to {self.settings.positions} or less, or network.positions to more before training",
            )
        task = self._told(seen)
        observed = self._observed(seen, task)
        places: dict[str, Any] = dict(self.readouts.items())
        spoken = {name: place.bias[:window].expand(rows, -1, -1, -1) for name, place in places.items()}
        table = self._table(task, observed, spoken)
        groups = [*observed.values(), *(Group(x, x.new_ones(x.shape[:-1], dtype=torch.bool)) for x in spoken.values())]
        steps = torch.cat([group.tokens for group in groups], dim=2)  # (B, W, n, D)
        present = torch.cat([group.present for group in groups], dim=2)
        sequence = torch.cat([task.tokens, steps.flatten(1, 2)], dim=1)  # (B, tokens, D)
        keys = torch.cat([task.present, present.flatten(1, 2)], dim=1)
        states = self.transformer(sequence, (table & keys[:, None])[:, None])
        return self._read(states, task.tokens.shape[1], [group.tokens.shape[2] for group in groups], window)

    def _read(self, states: Tensor, n_task: int, sizes: list[int], window: int) -> Read:
        task, steps = states.split([n_task, states.shape[1] - n_task], dim=1)
        pieces = steps.unflatten(1, (window, -1)).split(sizes, dim=2)
        n_readouts = len(self.readouts)
        readouts = dict(zip(self.readouts, pieces[-n_readouts:], strict=True))
        return Read(task, torch.cat(pieces[:-n_readouts], dim=2), readouts)

    def _told(self, seen: Seen) -> Group:
        """(B, n, D): language, or nothing at all."""
        if seen.language is None or "language" not in self.task:
            nothing = next(self.parameters()).new_zeros(len(seen.frames), 0, self.settings.width)
            return Group(nothing, nothing[..., 0].bool())
        tokens = self.task["language"](seen.language)
        told = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if seen.told is None else seen.told
        return Group(tokens, told)

    def _observed(self, seen: Seen, task: Group) -> dict[str, Group]:
        """Pictures, numbers, and the task once more; a camera that shows nothing has no tokens."""
        frames = seen.frames[..., None]  # (B, W, 1)
        groups: dict[str, Group] = {}
        for camera in (one for one in self.stems if one in seen.images):
            tokens = self.observed[camera](self._pictures(seen, camera))
            there = frames & seen.present[camera][..., None] if camera in seen.present else frames
            groups[camera] = Group(tokens, there.expand(tokens.shape[:-1]))
        if seen.proprio is not None and "proprio" in self.observed:
            tokens = self.observed["proprio"](seen.proprio[..., None])
            groups["proprio"] = Group(tokens, frames.expand(tokens.shape[:-1]))
        if not groups:
            raise InvalidData(
                "no camera of Octo's", where=f"inputs of {', '.join(seen.images) or 'none'}", do="see model.processor"
            )
        if self.settings.repeat_task and task.tokens.shape[1]:
            window = seen.frames.shape[1]  # not masked where a frame is padding, as in the original
            repeated = task.tokens[:, None].expand(-1, window, -1, -1), task.present[:, None].expand(-1, window, -1)
            groups["task"] = Group(*repeated)
        return groups

    def _pictures(self, seen: Seen, camera: str) -> Tensor:
        """(B, W, n, width of the stem)."""
        pictures = seen.images[camera]
        if self.settings.goals:
            goal = seen.goals.get(camera)
            under = torch.full_like(pictures, MISSING) if goal is None else goal[:, None].expand_as(pictures)
            pictures = torch.cat([pictures, under], dim=2)
        return self.stems[camera](pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])

    def _table(self, task: Group, observed: Mapping[str, Group], spoken: Mapping[str, Tensor]) -> Tensor:
        """(1, tokens, tokens) bool, kept for each form of input."""
        sizes = tuple((name, group.tokens.shape[2]) for name, group in observed.items())
        names = tuple((name, tokens.shape[2]) for name, tokens in spoken.items())
        key = task.tokens.shape[1], sizes, names, next(iter(observed.values())).tokens.shape[1]
        if key not in self._tables:
            layout = Layout(key[0], dict(sizes), dict(names), key[3])
            with torch.device("cpu"):
                self._tables[key] = attention_table(layout, off_by_one=self.settings.off_by_one)
        return self._tables[key].to(task.tokens.device)[None]
