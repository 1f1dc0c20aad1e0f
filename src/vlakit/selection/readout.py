"""A learner whose rounds cost seconds: a small network over features of a frozen policy, read once and kept.

It answers all tokens of an action at once, from a hidden layer with dropout. What it shows of acquisitions is shown on
these features: it is no fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.data.rlds.images import decode_image
from vlakit.data.shards.statistics import proprio_columns
from vlakit.data.specs.standardize import standardize
from vlakit.errors import InvalidData
from vlakit.models.network import Represents, capability
from vlakit.policy import TrainedPolicy
from vlakit.processing.normalizer import normalize
from vlakit.processing.tokens import token_processor
from vlakit.schema import Float32, Int64, Observation
from vlakit.selection.acquisitions import Need, Outlook
from vlakit.selection.maps import DatasetMap
from vlakit.selection.outlook import PASSES, dropout_only
from vlakit.selection.pool import LabelNotBought, Pool
from vlakit.selection.training_map import Visits

KINDS = ("fused", "vision", "language")


@dataclass(frozen=True)
class Frames:
    """All frames of N demonstrations. features: kind -> (F, D); tokens (F, A): number of each action's bin from 0 on.

    owner (F,): demonstration of each frame; its first frame comes first.
    """

    features: Mapping[str, Float32]
    tokens: Int64
    owner: Int64

    def __len__(self) -> int:
        return int(self.owner.max()) + 1

    @property
    def first(self) -> Int64:
        """(N,) first frame of each demonstration."""
        return np.searchsorted(self.owner, np.arange(len(self)))

    @property
    def seen(self) -> Float32:
        """(F, D) what the network sees: all kinds side by side."""
        return np.concatenate([self.features[kind] for kind in KINDS], axis=1)

    def rows(self, ids: Sequence[int]) -> Int64:
        """The frames of these demonstrations."""
        return np.flatnonzero(np.isin(self.owner, np.asarray(list(ids))))


@torch.inference_mode()
def features_of(policy: TrainedPolicy, observations: Sequence[Observation], rows: int = 64) -> dict[str, Float32]:
    """kind -> (B, D) representations of observations. Raises PartMissing for a network that has none."""
    network = capability(policy.network, Represents, purpose="a readout")
    parts = [
        network.representations(policy.observed(observations[start : start + rows]))
        for start in range(0, len(observations), rows)
    ]
    return {kind: torch.cat([part[kind] for part in parts]).float().cpu().numpy() for kind in KINDS}


def frames_of(pool: Pool, policy: TrainedPolicy, dataset: str) -> Frames:
    """All frames of a pool as a frozen policy sees them; dataset: whose statistics make tokens of its actions.

    It reads every label: a learner must not. `Readout.labels` hands out those that were bought.
    """
    cameras = policy.processor.settings.cameras
    reading = token_processor(policy.processor, purpose="a readout")
    observations: list[Observation] = []
    tokens: list[Int64] = []
    owner: list[int] = []
    for number, header in enumerate(pool.headers):
        steps = pool.source.read(header, pool.spec.keys(cameras))
        one = standardize(steps, pool.spec, where=str(header), cameras=cameras)
        states = proprio_columns(one.proprio, pool.spec.proprio, len(one))
        for step, said in enumerate(one.instructions):
            images = {camera: decode_image(one.images[camera][step])[None] for camera in cameras}
            observations.append(Observation(images, said, dataset, states[step : step + 1] if states.size else None))
        normalized = normalize(one.action, reading.statistics_of(dataset), reading.settings.normalization)
        tokens.append(reading.actions.padding_id - 1 - reading.actions.encode(normalized))
        owner += [number] * len(one)
    return Frames(features_of(policy, observations), np.concatenate(tokens), np.array(owner))


@dataclass(frozen=True)
class ReadoutSettings:
    """Sizes and numbers of a fit; the number of steps is the same however many demonstrations there are."""

    hidden: int = 256
    dropout: float = 0.3
    steps: int = 300
    batch: int = 64
    learning_rate: float = 1e-3
    bins: int = 256
    passes: int = PASSES
    seed: int = 0


@dataclass
class Readout:
    """A learner (selection/rounds.py). held_out: frames to evaluate on, of demonstrations that are no outliers."""

    frames: Frames
    held_out: Frames
    settings: ReadoutSettings = field(default_factory=ReadoutSettings)
    network: nn.Sequential | None = None
    bought: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        seen = self.frames.seen[self.frames.first]  # of first frames alone: the rest is not there before collecting
        self.center, self.spread = seen.mean(axis=0), seen.std(axis=0) + 1e-6

    def labels(self, rows: Int64) -> Tensor:
        """(R, A) tokens of frames. Raises LabelNotBought for a frame of a demonstration that was not acquired."""
        strangers = set(self.frames.owner[rows].tolist()) - self.bought
        if strangers:
            raise LabelNotBought(f"demonstration {min(strangers)} was not acquired", do="acquire it first")
        return torch.from_numpy(self.frames.tokens[rows])

    def fit(self, number: int, ids: Sequence[int]) -> dict[str, float]:
        """From random weights on these demonstrations; token accuracy on the held-out frames."""
        self.bought = frozenset(int(one) for one in ids)
        rows = self.frames.rows(ids)
        inputs, labels = self.inputs(self.frames.seen[rows]), self.labels(rows)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.settings.seed * 1000 + number)
            network, optimizer = self._fresh(labels.shape[1], inputs.shape[1])
            for _ in range(self.settings.steps):
                chosen = torch.randint(len(rows), (min(self.settings.batch, len(rows)),))
                self._step(network, optimizer, inputs[chosen], labels[chosen])
        self.network = network.eval()
        with torch.no_grad():
            answered = self.logits(self.held_out.seen).argmax(dim=-1).numpy()
        return {"eval/token_accuracy": float((answered == self.held_out.tokens).mean())}

    def outlook(self, number: int, need: Need) -> Outlook:
        """Of the first frame of every demonstration; core-sets look at the frozen features."""
        if need in KINDS:
            return Outlook(features={need: self.frames.features[need][self.frames.first]})
        if need == "nothing":
            return Outlook()
        seen, network = self.frames.seen[self.frames.first], self._network
        with torch.no_grad():
            certain = self.logits(seen).log_softmax(dim=-1).numpy()
            if need == "answers":
                return Outlook(certain)
            with dropout_only(network), torch.random.fork_rng([]):
                torch.manual_seed(self.settings.seed * 1000 + number)
                passes = [self.logits(seen).log_softmax(dim=-1).numpy() for _ in range(self.settings.passes)]
        return Outlook(certain, np.stack(passes))

    def mapped(self, ids: Sequence[int], epochs: int = 15) -> DatasetMap:
        """The map of a training on these demonstrations, from the passes that train, dropout on."""
        self.bought = frozenset(int(one) for one in ids)
        order = sorted(self.bought)
        rows = self.frames.rows(order)
        visits = Visits(np.searchsorted(order, self.frames.owner[rows]))
        inputs, labels = self.inputs(self.frames.seen[rows]), self.labels(rows)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.settings.seed)
            network, optimizer = self._fresh(labels.shape[1], inputs.shape[1])
            for _ in range(epochs):
                for chosen in torch.randperm(len(rows)).split(self.settings.batch):
                    logits = self._step(network, optimizer, inputs[chosen], labels[chosen])
                    p_label = logits.softmax(dim=-1).gather(2, labels[chosen][..., None]).mean(dim=(1, 2))
                    hits = (logits.argmax(dim=-1) == labels[chosen]).double().mean(dim=1)
                    for row, p, hit in zip(chosen.tolist(), p_label.tolist(), hits.tolist(), strict=True):
                        visits.add(row, p, hit)
        known = visits.known()
        return DatasetMap(np.array(order, np.int64), known.confidence, known.variability, known.correctness)

    def inputs(self, seen: Float32) -> Tensor:
        """(R, D) features in units of the pool's first frames."""
        return torch.from_numpy(((seen - self.center) / self.spread).astype(np.float32))

    def logits(self, seen: Float32) -> Tensor:
        """(R, A, bins) of features (R, D)."""
        return self._network(self.inputs(seen))

    @property
    def _network(self) -> nn.Sequential:
        if self.network is None:
            raise InvalidData("nothing was fitted yet", where="Readout", do="call fit first")
        return self.network

    def _fresh(self, size: int, width: int) -> tuple[nn.Sequential, torch.optim.Optimizer]:
        one = self.settings
        layers = [nn.Linear(width, one.hidden), nn.GELU(), nn.Dropout(one.dropout)]
        network = nn.Sequential(*layers, nn.Linear(one.hidden, size * one.bins), nn.Unflatten(1, (size, one.bins)))
        return network.train(), torch.optim.AdamW(network.parameters(), one.learning_rate)

    def _step(self, network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = network(inputs)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        optimizer.step()
        return logits.detach()


class ReadoutPolicy:
    """A `Policy`: the frozen policy's features, the readout's likeliest bins, physical units."""

    def __init__(self, base: TrainedPolicy, readout: Readout) -> None:
        self.base, self.readout, self.window = base, readout, base.window

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> Float32:
        """(B, H, A), one forward pass of the frozen policy."""
        features = features_of(self.base, observations)
        seen = np.concatenate([features[kind] for kind in KINDS], axis=1)
        bins = self.readout.logits(seen).argmax(dim=-1).numpy()
        tokens = token_processor(self.base.processor, purpose="a readout").actions
        normalized = tokens.decode(tokens.padding_id - 1 - bins).astype(np.float32)
        chunk = self.base.processor.settings.chunk
        shaped = normalized.reshape(len(bins), chunk, -1)
        return self.base.processor.physical(shaped, [one.dataset for one in observations])

    def reset(self, slots: Sequence[int]) -> None:
        """Nothing is remembered."""


def extended(known: DatasetMap, rank: np.ndarray, features: Float32, *, ridge: float = 1.0) -> np.ndarray:
    """(N,) rank of every demonstration by a ridge regression from features (N, D) of those with a map: rank (M,).

    The usable form of a map: it reads labels of what is labelled alone.
    """
    points = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    labelled = points[known.ids]
    weights = np.linalg.solve(
        labelled.T @ labelled + ridge * len(labelled) * np.eye(points.shape[1]), labelled.T @ (rank - rank.mean())
    )
    return points @ weights + rank.mean()
