"""A network with a likelihood that costs nothing, and a suite in which what it draws decides who succeeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fake_suite import SPEED, FakeEnvironment, FakeSuite, statistics
from torch import Tensor, nn

from vlakit.checkpoints.card import Card
from vlakit.collecting.collector import Collector, CollectPlan
from vlakit.collecting.pairing import make_pairs
from vlakit.evaluation.suite import InitialState, Step
from vlakit.models.network import Drawn, Network
from vlakit.policy import TrainedPolicy
from vlakit.preferences.episodes import Rollouts
from vlakit.preferences.pair_file import PairFolder
from vlakit.preferences.pairs import PairPlan
from vlakit.processing.settings import TokenSettings
from vlakit.processing.tokens import TokenProcessor, token_processor
from vlakit.schema import Float32, Inputs

KIND = {"kind": "preference_cases:Dice"}


class Dice(Network):
    """Ids of each dimension are drawn alone, from logits that a mean colour moves; dropout as large models have it."""

    constrain = True
    kind, settings = KIND["kind"], {}

    def __init__(self, processor: Any) -> None:
        super().__init__()
        reading = token_processor(processor, purpose="the dice")
        self.tokens, self.n = reading.actions, 7 * processor.settings.chunk
        self.dropout = nn.Dropout(0.5)
        self.q_proj = nn.Linear(3 * processor.settings.window, 8)
        self.lm_head = nn.Linear(8, self.n * self.tokens.n_bins)
        with torch.no_grad():  # what it finds likeliest is a move to the left, where nothing is won
            self.lm_head.bias[self.tokens.n_bins - 2] += 1.5

    def logits(self, inputs: Inputs) -> Tensor:
        """(B, n, bins)."""
        seen = torch.cat([frames.mean(dim=(3, 4)).flatten(1) for frames in inputs.pixels.values()], dim=1)
        hidden = self.dropout(torch.tanh(self.q_proj(seen)))
        return self.lm_head(hidden).view(len(inputs), self.n, -1).log_softmax(dim=-1)

    def sample(self, inputs: Inputs, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Drawn:
        with torch.no_grad():
            logp = self.logits(inputs)
            flat = (logp / temperature).softmax(dim=-1).flatten(0, 1)
            column = torch.multinomial(flat, 1, generator=generator).view(logp.shape[:2])
            return self._drawn(column, logp, inputs)

    def log_prob(self, inputs: Inputs, ids: Tensor) -> Tensor:
        return self.logits(inputs).gather(2, (ids - self.tokens.begin)[..., None])[..., 0]

    def predict(self, inputs: Inputs) -> Tensor:
        logp = self.logits(inputs)
        return self._drawn(logp.argmax(dim=-1), logp, inputs).actions

    def _drawn(self, column: Tensor, logp: Tensor, inputs: Inputs) -> Drawn:
        ids = column + self.tokens.begin
        actions = torch.from_numpy(self.tokens.decode(ids.numpy())).view(len(ids), *inputs.action_shape)
        return Drawn(actions, ids, logp.gather(2, column[..., None])[..., 0])


class RightwardEnvironment(FakeEnvironment):
    """Over as soon as one action goes right by most of what it may."""

    def step(self, action: Float32) -> Step:
        step = super().step(action)
        done = float(action[0]) > 0.7 * SPEED
        return Step(step.observation, float(done), done)


@dataclass
class Rightward(FakeSuite):
    """Who draws a move to the right within four steps succeeds."""

    limit: int = 4

    def environment(self) -> FakeEnvironment:
        return RightwardEnvironment(self)


def processor(chunk: int = 1, window: int = 1) -> TokenProcessor:
    settings = TokenSettings(
        image_size=16, channel_statistics=("half",), tokenizer="words", chunk=chunk, window=window, n_bins=16
    )
    return TokenProcessor(settings, {"fake_dots": statistics()})


def policy(chunk: int = 1, window: int = 1, seed: int = 0) -> TrainedPolicy:
    torch.manual_seed(seed)
    reading = processor(chunk, window)
    card = Card(KIND, reading.description, {}, surroundings={"fake_dots": {"camera": "primary"}})
    return TrainedPolicy(Dice(reading), reading, card)


def collected(folder: Path, one: TrainedPolicy | None = None, suite: FakeSuite | None = None, **plan: Any) -> Rollouts:
    """12 starts, 4 rollouts of each, unless told otherwise."""
    settings: dict[str, Any] = {"starts": 12, "rollouts_per_start": 4, "slots": 4} | plan
    collector = Collector(one or policy(), suite or Rightward(), CollectPlan(**settings))
    return collector.collect(folder, collector.header("dice", "fake", {}))


def paired_up(
    folder: Path, one: TrainedPolicy | None = None, rollouts: Rollouts | None = None, **plan: Any
) -> PairFolder:
    """Rollouts of the dice, and pairs of them."""
    one = one or policy()
    rollouts = rollouts or collected(folder / "rollouts", one)
    make_pairs(one, rollouts, Rightward(), PairPlan(**plan), folder / "pairs", name="dice", at_once=16)
    return PairFolder(folder / "pairs")


def names(states: Sequence[InitialState]) -> set[str]:
    return {state.name for state in states}
