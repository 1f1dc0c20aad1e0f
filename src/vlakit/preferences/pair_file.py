"""A folder of pairs: `pairs.json` says what they are, .npy files what the policy saw, drew, and how likely that was.

The reference's log-probabilities are computed once, when the folder is made: the reference is the policy that was
fine-tuned, never the bare base under an adapter, and no second model is needed in training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from vlakit.errors import ConfigError, CorruptRecord, InvalidData
from vlakit.files import content_hash, disk_full_as_error, publish, write_atomically
from vlakit.models.network import Likelihood
from vlakit.preferences.episodes import Episode, Rollouts, arrays_of, observation_of
from vlakit.preferences.likelihood import log_probs
from vlakit.preferences.pairs import Paired, PairPlan, mismatches
from vlakit.processing.processor import Processor
from vlakit.schema import Inputs, Observation

HEADER, ANOTHER = "pairs.json", 1e-2  # nats by which two runs of one policy never differ in one token
COPIED = (
    "suite",
    "dataset",
    "temperature",
    "constrain",
    "statistics",
    "surroundings",
    "policy",
    "starts_seed",
    "starts",
)


@dataclass(frozen=True)
class Span:
    """The episode that rows first to last of the arrays are of; preferred: whether it succeeded."""

    start: str
    rollout: int
    instruction: str
    preferred: bool
    split: str
    first: int
    last: int


class PairFolder:
    """A folder of pairs, open for reading; S rows, one a decision of the policy.

    pairs: split -> (place of the chosen, of the rejected) among `spans`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            self.header: dict[str, Any] = json.loads((self.path / HEADER).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            do = f"vlakit pairs rollouts=DIR out={self.path}, of a folder that vlakit collect wrote"
            raise InvalidData("no pairs here", where=str(self.path), do=do) from None
        except ValueError as error:
            raise CorruptRecord(f"{HEADER} is no JSON: {error}", where=str(self.path), do="make it again") from None
        self.spans = [Span(**span) for span in self.header["spans"]]
        self.pairs: dict[str, list[list[int]]] = self.header["pairs"]
        self._said = [span.instruction for span in self.spans for _ in range(span.first, span.last)]
        self._arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(self.path.glob("*.npy"))}

    def __getitem__(self, name: str) -> Any:
        """One of the arrays: ids, mask, behaviour, reference (S, n), and mismatched_ids, _mask, _reference."""
        return self._arrays[name]

    @property
    def hash(self) -> str:
        """sha256 of all of it."""
        return content_hash(self.path)

    def episodes(self, split: str) -> list[int]:
        """Places of the spans of a split."""
        return [place for place, span in enumerate(self.spans) if span.split == split]

    def observation(self, row: int) -> Observation:
        """What the policy saw."""
        return observation_of(self._arrays, row, self._said[row], self.header["dataset"])

    def observe(self, processor: Processor, rows: Sequence[int]) -> Inputs:
        """What the network sees: as an observation, hence never augmented."""
        return processor.observe([self.observation(row) for row in rows])


@dataclass(frozen=True)
class Reference:
    """The policy that a training is not to leave: network and processor, what it is called, and its content's hash."""

    network: Likelihood
    processor: Processor
    name: str
    sha256: str
    device: torch.device


# Episodes -> for each in turn what the policy saw at each question.
Frames: TypeAlias = Callable[[Sequence[Episode]], Iterable[Sequence[Observation]]]


def write_pairs(
    out: Path,
    rollouts: Rollouts,
    made: Paired,
    plan: PairPlan,
    reference: Reference,
    frames: Frames,
    at_once: int = 128,
) -> dict[str, Any]:
    """Make the folder `out`, whole or absent; returns its header.

    Raises ConfigError where `out` is there already, InvalidData for tokens or log-probabilities that are not those of
    this policy.
    """
    if out.exists():
        raise ConfigError("the folder is there already", where=str(out), do="give a new one: out=DIR")
    kept = _kept(rollouts.episodes(), made, plan)
    spans = _spans(kept, made)
    partial = out.with_name(out.name + ".partial")
    with disk_full_as_error(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_arrays(partial, kept, spans, frames, plan.seed)
    places = {episode.number: place for place, episode in enumerate(kept)}
    header: dict[str, Any] = {
        **{key: rollouts.header[key] for key in COPIED},
        "reference": {"name": reference.name, "sha256": reference.sha256},
        "plan": asdict(plan),
        "counts": dict(made.counts),
        "pairs": {s: [[places[one.number] for one in pair] for pair in pairs] for s, pairs in made.pairs.items()},
        "spans": [asdict(span) for span in spans],
    }
    write_atomically(partial / HEADER, json.dumps(header, indent=1) + "\n")
    replay = _refer(PairFolder(partial), reference, at_once)
    header["replay_error"] = replay
    write_atomically(partial / HEADER, json.dumps(header, indent=1) + "\n")
    publish(partial, out)
    return header


def _kept(episodes: Sequence[Episode], made: Paired, plan: PairPlan) -> list[Episode]:
    needed = {one.number for pairs in made.pairs.values() for pair in pairs for one in pair}
    return [one for one in episodes if one.usable and (plan.unpaired or one.number in needed)]


def _spans(episodes: Sequence[Episode], made: Paired) -> list[Span]:
    ends = np.cumsum([len(one.asked) for one in episodes]).tolist()
    return [
        Span(
            one.start,
            one.rollout,
            one.instruction,
            one.success,
            "val" if one.start in made.held_out else "train",
            first,
            last,
        )
        for one, first, last in zip(episodes, [0, *ends], ends, strict=False)
    ]


def _write_arrays(folder: Path, episodes: Sequence[Episode], spans: Sequence[Span], frames: Frames, seed: int) -> None:
    rows = spans[-1].last
    pictures: dict[str, Any] = {}
    for span, seen in zip(spans, frames(episodes), strict=True):
        for row, one in zip(range(span.first, span.last), seen, strict=True):
            for name, value in arrays_of(one).items():
                if name not in pictures:
                    kind: dict[str, Any] = {"mode": "w+", "dtype": value.dtype, "shape": (rows, *value.shape)}
                    pictures[name] = np.lib.format.open_memmap(folder / f"{name}.npy", **kind)
                pictures[name][row] = value
    for array in pictures.values():
        array.flush()
    arrays = {
        "ids": np.concatenate([one.tokens for one in episodes]),
        "mask": np.concatenate([one.mask for one in episodes]),
        "behaviour": np.concatenate([one.behaviour for one in episodes]),
        **_mismatched(episodes, seed),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _mismatched(episodes: Sequence[Episode], seed: int) -> dict[str, Any]:
    """Each episode's questions with the tokens of another, as far as the shorter of the two goes."""
    ids: list[Any] = []
    masks: list[Any] = []
    for episode, partner in zip(episodes, mismatches(episodes, seed), strict=True):
        other, length = episodes[partner], len(episode.asked)
        common = min(length, len(other.asked))
        mask = np.zeros(episode.mask.shape, np.bool_)
        mask[:common] = other.mask[:common]
        ids.append(np.concatenate([other.tokens[:common], episode.tokens[common:]]))
        masks.append(mask)
    return {"mismatched_ids": np.concatenate(ids), "mismatched_mask": np.concatenate(masks)}


def _refer(folder: PairFolder, reference: Reference, at_once: int) -> float:
    """Write the reference's log-probabilities; returns by how much the recorded ones differ from them at most."""
    rows = range(len(folder["ids"]))

    def scored(name: str) -> Any:
        ids = torch.tensor(np.array(folder[name]), device=reference.device)
        observe = lambda some: folder.observe(reference.processor, some).to(reference.device)  # noqa: E731
        return log_probs(reference.network, observe, rows, ids, at_once).cpu().numpy()

    own = scored("ids")
    replay = float(np.abs(own - folder["behaviour"])[np.asarray(folder["mask"])].max())
    if not replay <= ANOTHER:
        raise InvalidData(
            f"the recorded log-probabilities are off by up to {replay:.3g} nats from those of this policy now",
            where=f"reference {reference.name}",
            do="other pictures than it saw, tokens that it did not draw, or another policy: collect anew with it",
        )
    np.save(folder.path / "reference.npy", own)
    np.save(folder.path / "mismatched_reference.npy", scored("mismatched_ids"))
    return replay


def described(header: Mapping[str, Any]) -> list[str]:
    """The yield in words."""
    counts = header["counts"]
    split = {name: len(pairs) for name, pairs in header["pairs"].items()}
    return [
        f"{counts['starts']} starts: {counts['all_won']} won in all rollouts, {counts['all_lost']} in none,"
        f" {100 * counts['yield']:.1f} % give pairs",
        f"{counts['pairs']} pairs ({split['train']} to train, {split['val']} held out);"
        f" tokens of chosen {counts['tokens_chosen']:.0f}, of rejected {counts['tokens_rejected']:.0f}",
        f"recorded log-probabilities replay to {header['replay_error']:.1e} nats",
    ]
