"""`PairDataModule`: batches of pairs, or of single episodes for losses that judge those, in an order of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from vlakit.data.shards.statistics import statistics_from_json
from vlakit.errors import ConfigError, InvalidData
from vlakit.preferences.losses import UNPAIRED, Scored
from vlakit.preferences.pair_file import PairFolder, Span
from vlakit.processing.images import encode_jpeg
from vlakit.processing.processor import Processor
from vlakit.schema import DatasetStatistics, Inputs, Sample


@dataclass(frozen=True)
class PreferenceBatch:
    """R answers, chosen before rejected: E episodes, each once, and which row is which.

    rows: the decisions of these episodes, S in all; ids, mask, reference (S, n), and the same mismatched; episode (S,):
    whose they are. order (R,): the episode of each answer. preferred (R,) bool. observe: decisions' numbers -> inputs.
    """

    rows: list[int]
    ids: Tensor
    mask: Tensor
    reference: Tensor
    mismatched_ids: Tensor
    mismatched_mask: Tensor
    mismatched_reference: Tensor
    episode: Tensor
    order: Tensor
    preferred: Tensor
    paired: bool
    action_size: int
    keys: list[str]
    observe: Callable[[Sequence[int]], Inputs]
    position: int = 0

    def __len__(self) -> int:
        """Answers."""
        return len(self.order)

    def to(self, *args: Any, **kwargs: Any) -> PreferenceBatch:
        """On another device; Lightning calls this."""
        moved = {name: value.to(*args, **kwargs) for name, value in vars(self).items() if isinstance(value, Tensor)}
        observe = self.observe
        return replace(self, **moved, observe=lambda rows: observe(rows).to(*args, **kwargs))

    def scored(self, logp: Tensor, mismatched: Tensor | None = None) -> Scored:
        """The answers with the policy's log-probabilities of the decisions (S, n); mismatched: of the other tokens."""
        counted, reference = self.mismatched_mask, self.mismatched_reference
        sums = None if mismatched is None else (self._sums(mismatched, counted), self._sums(reference, counted))
        answered, referred, mask = (self.answers(values) for values in (logp, self.reference, self.mask))
        return Scored(answered, referred, mask, self.preferred, sums, self.paired)

    def _sums(self, values: Tensor, counted: Tensor) -> Tensor:
        """(S, n) -> (R,) sums of what counts."""
        of_decisions = values.where(counted, 0.0).double().sum(dim=1)
        sums = of_decisions.new_zeros(int(self.episode.max()) + 1)
        return sums.index_add(0, self.episode, of_decisions)[self.order]

    def by_decision(self, of_answers: Tensor) -> Tensor:
        """(R, T) by answer -> (S, n) by decision: the opposite of `answers`, summed where an episode answers twice."""
        n = self.ids.shape[1]
        summed = of_answers.new_zeros(int(self.episode.max()) + 1, of_answers.shape[1])
        summed = summed.index_add(0, self.order, of_answers)  # (E, T)
        counts = torch.bincount(self.episode).tolist()
        return torch.cat([row[: count * n].view(count, n) for row, count in zip(summed, counts, strict=True)])

    def answers(self, values: Tensor) -> Tensor:
        """(S, n) by decision -> (R, T) by answer, zeros behind the end; T = n x the most decisions of an episode."""
        counts = torch.bincount(self.episode).tolist()
        episodes = [part.flatten() for part in values.split(counts)]
        padded = torch.nn.utils.rnn.pad_sequence(episodes, batch_first=True)  # (E, T)
        return padded[self.order]


class PairOrder:
    """Batches of numbers below n without end: an epoch is a permutation by its seed and number, from any batch on."""

    def __init__(self, n: int, batch_size: int, seed: int, first: int = 0) -> None:
        self.n, self.batch_size, self.seed, self.first = n, min(batch_size, n), seed, first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Lists of (position of the batch, number)."""
        per_epoch, position = self.n // self.batch_size, self.first
        while True:
            epoch, place = divmod(position, per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
            numbers = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [(position, int(number)) for number in numbers]
            position += 1


class PairDataModule(LightningDataModule):
    """The pairs of a folder that `vlakit pairs` wrote; loss: whose judgement decides between pairs and episodes.

    `processor` leaves with the statistics of the policy that drew them. Raises InvalidData.
    """

    collects = False  # whether pairs come later

    def __init__(
        self,
        processor: Processor,
        pairs: str | None,
        loss: str,
        *,
        batch_size: int,
        seed: int,
        val_batch_size: int = 16,
    ) -> None:
        super().__init__()
        self.unpaired, self.batch_size, self.seed, self.val_batch_size = (
            loss in UNPAIRED,
            batch_size,
            seed,
            val_batch_size,
        )
        self.source = processor
        self.folder: PairFolder | None = None
        if pairs is not None:
            self.use(PairFolder(pairs))
        elif not self.collects:
            do = "data.pairs=DIR, a folder that vlakit pairs wrote of rollouts of vlakit collect"
            raise ConfigError("no pairs are named", where="data.pairs", do=do)

    def use(self, folder: PairFolder) -> None:
        """Take these pairs."""
        self.folder = folder
        self.prepare_with(statistics_from_json(folder.header["statistics"], where=str(folder.path)))

    def prepare_with(self, statistics: Mapping[str, DatasetStatistics]) -> None:
        """Let the processor know these, and augment nothing."""
        self.processor = self.source.for_training(statistics, None)
        self.observing = self.processor.for_validation()

    def begin(self, module: Any) -> None:
        """A training of this module begins."""

    @property
    def pairs(self) -> PairFolder:
        """The folder. Raises InvalidData before there is one."""
        if self.folder is None:
            raise InvalidData("no pairs yet", where="data", do="they are collected when training begins")
        return self.folder

    shards: dict[str, Any] = {}  # noqa: RUF012  none: the last words of a training ask

    @property
    def hashes(self) -> dict[str, str]:
        """What the record calls the pairs."""
        return {} if self.folder is None else {"pairs": self.folder.hash}

    @property
    def folders(self) -> dict[str, str]:
        """Where they are."""
        return {} if self.folder is None else {"pairs": str(self.folder.path)}

    @property
    def surroundings(self) -> dict[str, Any]:
        """As the policy's card said: these pictures are of the same camera."""
        return self.pairs.header["surroundings"]

    def train_dataloader(self) -> DataLoader[PreferenceBatch]:
        """Endless shuffled batches, from the step that a checkpoint has done."""
        done = self.trainer.global_step * self.trainer.accumulate_grad_batches if self.trainer else 0
        order: Any = PairOrder(len(self._numbered("train")), self.batch_size, self.seed, done)
        return self._loader("train", order)

    def val_dataloader(self) -> DataLoader[PreferenceBatch]:
        """Every held-out pair or episode once, in order."""
        numbers = range(len(self._numbered("val")))
        size = self.val_batch_size
        batches: Any = [[(0, n) for n in numbers[first : first + size]] for first in range(0, len(numbers), size)]
        return self._loader("val", batches)

    def golden_samples(self, n_samples: int) -> list[Sample]:
        """Frames of the pairs, for a checkpoint's contract."""
        folder, window, chunk = self.pairs, self.processor.settings.window, self.processor.settings.chunk
        rows = np.linspace(0, len(folder["ids"]) - 1, min(n_samples, len(folder["ids"]))).astype(int).tolist()
        size = len(self.processor.statistics_of(folder.header["dataset"]).q01)
        samples: list[Sample] = []
        for row in rows:
            seen = folder.observation(row)
            mask = np.ones(window, np.bool_) if seen.window_mask is None else seen.window_mask
            images = {camera: [encode_jpeg(frame) for frame in frames] for camera, frames in seen.images.items()}
            acted, nothing = np.zeros((chunk, size), np.float32), np.zeros(chunk, np.bool_)
            said = (f"pairs_{row}", folder.header["dataset"], seen.instruction)
            samples.append(Sample(*said, images, acted, mask, nothing, proprio=seen.proprio))
        return samples

    def _numbered(self, split: str) -> Sequence[Any]:
        """The pairs of a split, or its episodes. Raises InvalidData where training would have none."""
        found = self.pairs.episodes(split) if self.unpaired else self.pairs.pairs[split]
        if split == "train" and not found:
            raise InvalidData("nothing to train on", where=str(self.pairs.path), do="vlakit pairs with held_out=0")
        return found

    def _loader(self, split: str, order: Any) -> DataLoader[PreferenceBatch]:
        numbered = self._numbered(split)

        def collate(some: Sequence[tuple[int, int]]) -> PreferenceBatch:
            return self.batch([numbered[number] for _, number in some], some[0][0])

        everything: Any = _Numbers()
        return DataLoader(everything, batch_sampler=order, collate_fn=collate)

    def first(self) -> list[Any]:
        """The first pair, or episode, to train on."""
        return list(self._numbered("train")[:1])

    def batch(self, taken: Sequence[Any], position: int = 0) -> PreferenceBatch:
        """Pairs, or places of episodes, as a batch."""
        folder = self.pairs
        places = list(taken) if self.unpaired else [one[side] for side in (0, 1) for one in taken]
        once = sorted(set(places))
        spans = [folder.spans[place] for place in once]
        rows = [row for span in spans for row in range(span.first, span.last)]
        arrays = {name: torch.as_tensor(np.asarray(folder[name][rows])) for name in _ARRAYS}
        preferred = [folder.spans[place].preferred for place in places]
        if not self.unpaired:
            preferred = [number < len(taken) for number in range(len(places))]
        return PreferenceBatch(
            rows=rows,
            **arrays,
            episode=torch.repeat_interleave(torch.tensor([span.last - span.first for span in spans])),
            order=torch.tensor([once.index(place) for place in places]),
            preferred=torch.tensor(preferred),
            paired=not self.unpaired,
            action_size=len(self.processor.statistics_of(folder.header["dataset"]).q01),
            keys=[_key(folder.spans[place]) for place in places],
            observe=lambda some: folder.observe(self.observing, some),
            position=position,
        )


_ARRAYS = ("ids", "mask", "reference", "mismatched_ids", "mismatched_mask", "mismatched_reference")


class _Numbers:
    """What a loader asks by position: itself."""

    def __getitem__(self, number: tuple[int, int]) -> tuple[int, int]:
        return number


def _key(span: Span) -> str:
    return f"{span.start}#{span.rollout}"
