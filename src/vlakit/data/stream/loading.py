"""The order of training for torch: a batch sampler that knows what was consumed, a dataset that decodes in the worker.

Workers run ahead, so the state to save is not that of the sampler but that after the last consumed batch.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any, Generic, TypeVar

from torch.utils.data import Dataset, Sampler

from vlakit.data.questions import QuestionFolder
from vlakit.data.shards.reader import SampleRef, ShardFolder, folder_of
from vlakit.data.stream.mixture import MixtureOrder
from vlakit.errors import ConfigError
from vlakit.schema import Batch, Example, Sample

STATES_KEPT = 4096  # far more batches than workers ever draw ahead
T_co = TypeVar("T_co", covariant=True)


class MixtureSampler(Sampler[list[SampleRef]]):
    """Batch sampler over a MixtureOrder that keeps the state after each batch until it is reported consumed."""

    def __init__(self, order: MixtureOrder, n_batches: int | None = None) -> None:
        """n_batches: batches an iteration yields before it ends; the next iteration goes on. None: without end."""
        self.order, self.n_batches = order, n_batches
        self._states: deque[tuple[int, dict[str, Any]]] = deque([(0, order.state_dict())], STATES_KEPT)

    def __iter__(self) -> Iterator[list[SampleRef]]:
        yielded = 0
        while self.n_batches is None or yielded < self.n_batches:
            batch = self.order.next_batch()
            self._states.append((self._states[-1][0] + 1, self.order.state_dict()))
            yielded += 1
            yield batch

    def state_after(self, n_consumed_batches: int) -> dict[str, Any]:
        """State after that many batches since this sampler was made or loaded, over all its iterations.

        Older states are forgotten: ask in rising order. Raises ConfigError for one that is forgotten or not yet drawn.
        """
        while len(self._states) > 1 and self._states[0][0] < n_consumed_batches:
            self._states.popleft()
        number, state = self._states[0]
        if number != n_consumed_batches:
            what = f"no state after batch {n_consumed_batches}: known are {number} to {self._states[-1][0]}"
            raise ConfigError(what, do="report consumed batches in rising order")
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, counting consumed batches from 0 again; raises CheckpointMismatch."""
        self.order.load_state_dict(state)
        self._states = deque([(0, self.order.state_dict())], STATES_KEPT)


def deaf(_: int) -> None:
    """In a worker: leave it to the parent to answer signals, which a terminal or SLURM sends to the whole group.

    The parent saves a checkpoint behind its step, for which it may need another batch; then it ends its workers. Its
    own SIGTERM is heeded: it is all that a process which ends by an error sends, and it waits until they are gone.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # an ignored signal is dropped before anybody can wait for it
        Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@dataclass(frozen=True)
class Collate:
    """Examples to a batch; balanced: in whose loss each row weighs the same. Can be sent to a worker process."""

    collate: Callable[[Sequence[Example]], Batch]
    balanced: bool

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = self.collate(examples)
        if not self.balanced or batch.text is None:
            return batch
        return replace(batch, text=batch.text.balanced())


class SampleDataset(Dataset[T_co], Generic[T_co]):
    """Map-style dataset from SampleRef to what `encode` makes of the sample, image decoding included."""

    def __init__(
        self,
        folders: Mapping[str, ShardFolder | QuestionFolder],
        encode: Callable[[Sample], T_co],
        *,
        window: int = 1,
        chunk: int = 1,
        cameras: Sequence[str] | None = None,
    ) -> None:
        """cameras: those to read, all by default."""
        self.folders, self.encode = dict(folders), encode
        self.window, self.chunk, self.cameras = window, chunk, cameras

    def __getitem__(self, index: SampleRef) -> T_co:
        folder = folder_of(self.folders, index.dataset)
        return self.encode(folder.read_sample(index, window=self.window, chunk=self.chunk, cameras=self.cameras))
