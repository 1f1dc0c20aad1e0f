"""One client's episode: its last frames, actions not yet handed out, chunks to be averaged; and how it is forgotten."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlakit.schema import Float32, Observation, UInt8
from vlakit.serving.questions import Question, Refused


@dataclass(frozen=True)
class Memory:
    """What a session keeps. window: frames that the policy sees; queue: actions of a chunk to hand out one by one, 0:
    the whole chunk is the answer; ensemble: weight exp(-ensemble * i) of the i-th oldest of all predictions for now, as
    ACT (arXiv 2304.13705) and Octo do, where the oldest weighs most; None: the newest chunk alone.
    """

    window: int = 1
    queue: int = 0
    ensemble: float | None = None

    @property
    def stateless(self) -> bool:
        """Whether an answer depends on its question alone."""
        return self.window == 1 and self.queue == 0 and self.ensemble is None


@dataclass
class Session:
    """A client. number: its own among all; row: its row in batches of a fixed size, None where they have none."""

    memory: Memory
    number: int
    row: int | None = None
    episodes: int = 0
    instruction: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _history: deque[dict[str, UInt8]] = field(default_factory=deque[dict[str, UInt8]])
    _proprio: deque[Float32] = field(default_factory=deque[Float32])
    _real: deque[bool] = field(default_factory=deque[bool])
    _plan: deque[Float32] = field(default_factory=deque[Float32])
    _chunks: deque[Float32] = field(default_factory=deque[Float32])  # the newest first; each begins at its own question

    def reset(self) -> None:
        """An episode begins: nothing of the last one is left."""
        self.episodes += 1
        self.instruction = None
        for kept in (self._history, self._proprio, self._real, self._plan, self._chunks):
            kept.clear()

    def observe(self, question: Question) -> Observation:
        """The question with the frames before it; other words begin another episode. Raises Refused."""
        if self.instruction not in (None, question.instruction):
            self.reset()
        self.instruction = question.instruction
        size = self.memory.window
        counts = {len(images) for images in question.images.values()} or {1}
        if len(counts) != 1:
            do = "send as many of each camera, those since the last question"
            raise Refused(f"{sorted(counts)} frames of the cameras", where="pictures", do=do)
        number = counts.pop()
        moments = number if question.proprio is None else len(question.proprio)
        if moments not in (number, size):
            raise Refused(f"proprio of {moments} moments", where="proprio", do=f"send one of each frame, or all {size}")
        self._remember(question, min(number, size), size)
        images = {name: np.concatenate([one[name] for one in self._history]) for name in question.images}
        proprio = np.stack(self._proprio) if self._proprio else None
        mask = None if size == 1 else np.array(self._real)
        return Observation(images, question.instruction, question.dataset, proprio, mask)

    def _remember(self, question: Question, number: int, size: int) -> None:
        """Take in the newest frames; the first of an episode stands in for those before it."""
        stand_ins = 0 if self._history else size - number
        for place in [-number] * stand_ins + list(range(-number, 0)):
            self._history.append({name: images[place, None] for name, images in question.images.items()})
            if question.proprio is not None:
                self._proprio.append(question.proprio[place])
        self._real.extend([False] * stand_ins + [True] * number)
        for kept in (self._history, self._real, self._proprio):
            while len(kept) > size:
                kept.popleft()

    def history(self) -> tuple[deque[Any], ...]:
        """A copy of what is remembered of frames, for `recall` where the question turns out to have no answer."""
        return self._history.copy(), self._real.copy(), self._proprio.copy()

    def recall(self, history: tuple[deque[Any], ...]) -> None:
        """Forget the frames since: they will be sent again."""
        self._history, self._real, self._proprio = history

    def planned(self) -> Float32 | None:
        """(1, A): the next action of the queue; None where the policy must be asked."""
        return self._plan.popleft()[None] if self._plan else None

    def answer(self, chunk: Float32) -> Float32:
        """(T, A) to hand out now of the policy's newest chunk (H, A)."""
        if self.memory.ensemble is not None:
            return self._ensembled(chunk, self.memory.ensemble)
        if self.memory.queue:
            self._plan.extend(chunk[1 : self.memory.queue])
            return chunk[:1]
        return chunk

    def _ensembled(self, chunk: Float32, decay: float) -> Float32:
        self._chunks.appendleft(chunk)
        while len(self._chunks) > len(chunk):
            self._chunks.pop()
        now = np.stack([one[age] for age, one in enumerate(self._chunks)][::-1])  # (n, A), the oldest first
        weights = np.exp(-decay * np.arange(len(now)))
        return (weights[:, None] * now / weights.sum()).sum(axis=0, keepdims=True).astype(np.float32)
