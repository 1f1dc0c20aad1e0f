"""How much of a mixture each dataset is before any training: by the shards that are there, else as recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlakit.data.shards.index import INDEX_NAME
from vlakit.data.shards.reader import ShardFolder
from vlakit.data.specs.spec import Mixture, load_spec, spec_names
from vlakit.data.stream.mixture import mixture_entry
from vlakit.errors import InvalidData, UnknownName, nearest

SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of one dataset; None where nobody counted. source: where from: shards, spec, or given.

    transitions: those that training draws from; control_hz: steps a second of the robot.
    """

    dataset: str
    weight: float
    transitions: int | None = None
    episodes: int | None = None
    instructions: int | None = None
    control_hz: float | None = None
    source: str = ""

    @property
    def hours(self) -> float | None:
        """Of demonstrations."""
        if self.transitions is None or self.control_hz is None:
            return None
        return self.transitions / self.control_hz / SECONDS


@dataclass(frozen=True)
class Shares:
    """The datasets of one mixture, of which `samples` are drawn; None: one epoch.

    As in OpenVLA an epoch is the sum of weight times transitions: a dataset of weight 1 comes once in it.
    """

    rows: Sequence[Counted]
    samples: int | None = None

    @property
    def epoch(self) -> float:
        """Samples of an epoch."""
        return sum(row.weight * row.transitions for row in self.rows if row.transitions)

    @property
    def drawn(self) -> float:
        """Samples in all."""
        return self.epoch if self.samples is None else float(self.samples)

    @property
    def uncounted(self) -> list[str]:
        """Datasets that no share can be said of; the others' are as if these were left out."""
        return [row.dataset for row in self.rows if not row.transitions]

    def share(self, row: Counted) -> float | None:
        """The probability that a sample is drawn from it."""
        return row.weight * row.transitions / self.epoch if row.transitions else None

    def expected(self, row: Counted) -> float | None:
        """Samples drawn from it."""
        share = self.share(row)
        return None if share is None else share * self.drawn

    def epochs(self, row: Counted) -> float | None:
        """How often each of its transitions comes."""
        expected = self.expected(row)
        return expected / row.transitions if expected is not None and row.transitions else None


def shares(mixture: Mixture, root: Path, counts: Mapping[str, int], samples: int | None = None) -> Shares:
    """Count each dataset: its shard folder under `root`, else `counts`, else what its spec records.

    Raises UnknownName for a dataset that nothing knows, InvalidData where none was counted.
    """
    strange = [name for name in counts if name not in mixture.datasets]
    if strange:
        remedy = nearest(strange[0], mixture.datasets)
        raise UnknownName(f"no dataset {strange[0]!r} in mixture {mixture.name!r}", where="counts", do=remedy)
    rows = [_counted(name, weight, root / name, counts.get(name)) for name, weight in mixture.datasets.items()]
    found = Shares(rows, samples)
    if not found.epoch:
        remedy = "convert them to shards, or give counts={NAME: transitions}"
        raise InvalidData("no dataset of the mixture has been counted", where=f"mixture {mixture.name!r}", do=remedy)
    return found


def _counted(name: str, weight: float, folder: Path, given: int | None) -> Counted:
    spec = load_spec(name) if name in spec_names() else None
    rate = None if spec is None else spec.control_hz or spec.published.control_hz
    if (folder / INDEX_NAME).is_file():
        shards = ShardFolder.open(folder)
        n_episodes = shards.index.counts()["train"]["episodes"]
        n_frames = mixture_entry(shards, weight).n_frames
        return Counted(name, weight, n_frames, n_episodes, len(shards.instructions()), rate, "shards")
    if given is not None:
        return Counted(name, weight, given, control_hz=rate, source="given")
    if spec is None:
        what = f"no dataset called {name!r}: neither a spec nor shards"
        raise UnknownName(what, where=str(folder), do=nearest(name, spec_names()))
    published = spec.published
    known = "spec" if published.num_transitions else ""
    return Counted(name, weight, published.num_transitions, published.num_trajectories, control_hz=rate, source=known)
