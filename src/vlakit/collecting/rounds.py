"""Rounds of rollouts and training: each round's pairs are of the policy that the round begins with, its reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from vlakit.checkpoints.card import Card
from vlakit.checkpoints.formats import LoadOptions, load
from vlakit.collecting.collector import Collector, CollectPlan
from vlakit.collecting.pairing import make_pairs
from vlakit.data.shards.statistics import statistics_to_json
from vlakit.errors import ConfigError
from vlakit.evaluation.subject import statistics_for
from vlakit.evaluation.suite import Suite
from vlakit.policy import TrainedPolicy
from vlakit.preferences.datamodule import PairDataModule, PairOrder, PreferenceBatch
from vlakit.preferences.pair_file import PairFolder
from vlakit.preferences.pairs import PairPlan
from vlakit.processing.processor import Processor

log = logging.getLogger(__name__)


class IteratedPairs(PairDataModule):
    """Pairs that are collected anew `rounds` times in a training; each round has starts and draws of its own.

    An epoch of Lightning's is a round, so the trainer reloads its loaders at each. weights: the policy that the first
    round rolls out. folder: where rollouts and pairs stay. options: batch_size, and those of CollectPlan for the first
    round. Raises ConfigError for steps that are no whole rounds.
    """

    collects = True

    def __init__(
        self,
        processor: Processor,
        weights: str,
        suite: Suite,
        folder: str,
        loss: str,
        *,
        steps: int,
        rounds: int = 3,
        trusted: Sequence[str] = (),
        **options: Any,
    ) -> None:
        if steps % rounds:
            what = f"{steps} steps are no {rounds} rounds of equal length"
            raise ConfigError(what, where="data.rounds", do=f"steps={rounds * (steps // rounds + 1)}")
        self.suite, self.place, self.steps_a_round, self.rounds = suite, Path(folder), steps // rounds, rounds
        batch_size = options.pop("batch_size")
        self.plan = CollectPlan(**options)
        first = load(weights, LoadOptions(trusted=tuple(trusted)))
        self.card = first.card
        self.known = {suite.dataset: statistics_for(suite, first.processor)}
        super().__init__(processor, None, loss, batch_size=batch_size, seed=self.plan.seed)
        self.prepare_with(self.known)

    @property
    def surroundings(self) -> dict[str, Any]:
        """As the first policy's card says."""
        return {name: one for name, one in self.card.surroundings.items() if name == self.suite.dataset}

    def begin(self, module: Any) -> None:
        """Roll out the first policy."""
        self._round(module, module.trainer.current_epoch)

    def train_dataloader(self) -> DataLoader[PreferenceBatch]:
        """The steps of a round, over pairs of the policy as it is now."""
        trainer: Any = self.trainer
        number = trainer.current_epoch
        self._round(trainer.lightning_module, number)
        done = trainer.global_step - number * self.steps_a_round  # of a round that was interrupted
        order = PairOrder(len(self._numbered("train")), self.batch_size, self.seed + number, done)
        return self._loader("train", list(islice(order, self.steps_a_round - done)))

    def _round(self, module: Any, number: int) -> None:
        place = self.place / f"round_{number}"
        if self.folder is not None and self.folder.path == place / "pairs":
            return
        if not (place / "pairs").exists():
            self._collect(module, place, number)
        self.use(PairFolder(place / "pairs"))

    def _collect(self, module: Any, place: Path, number: int) -> None:
        mode = module.model.training
        card = Card(
            module.model.description,
            module.processor.description,
            statistics_to_json(self.known),
            surroundings=self.surroundings,
        )
        policy = TrainedPolicy(module.model, module.processor.for_validation(), card)
        plan = replace(self.plan, seed=self.plan.seed + number, starts_seed=self.plan.starts_seed + number)
        collector = Collector(policy, self.suite, plan)
        name = f"round {number}"
        rollouts = collector.collect(place / "rollouts", collector.header(name, self.suite.name, {}))
        made = make_pairs(policy, rollouts, self.suite, PairPlan(seed=plan.seed), place / "pairs", name=name)
        counts = made["counts"]
        log.info("round %d: success %.3f, %d pairs", number, counts["success"], counts["pairs"])
        module.model.train(mode)
