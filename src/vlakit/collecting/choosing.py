"""The checkpoint of a preference training is chosen by rollouts: loss and accuracy of pairs do not say who succeeds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from vlakit.checkpoints.formats import start_from
from vlakit.collecting.collector import Collector, CollectPlan, training_starts
from vlakit.errors import ConfigError
from vlakit.evaluation.actors import action_bounds
from vlakit.evaluation.rollout import Options, rollout
from vlakit.evaluation.subject import statistics_for
from vlakit.evaluation.suite import Suite
from vlakit.files import atomic_writer
from vlakit.models.network import Likelihood
from vlakit.policy import TrainedPolicy
from vlakit.strategies.base import PolicyModule
from vlakit.strategies.ema import Ema

log = logging.getLogger(__name__)
CHOSEN = "chosen.pt"  # what trained, as it was at the best step so far


def _acting(trainer: Trainer) -> AbstractContextManager[object]:
    """Meanwhile the network holds the weights that a checkpoint will: the averaged ones where there are such."""
    averages = next((one for one in cast("Any", trainer).callbacks if isinstance(one, Ema)), None)
    return nullcontext() if averages is None else averages.showing(True)


class RolloutChoice(Callback):
    """Rolls the policy out every so many steps, and when training ends puts back what succeeded most often.

    starts: held-out ones, training starts of `starts_seed`, none of which any evaluation or pair uses. every: steps.
    drawn: of these starts are rolled out at temperature 1 too, for success and the divergence from the policy that
    training began with; 0: none. The rule stands in the checkpoint's card and in the record.
    """

    def __init__(
        self,
        suite: Suite,
        folder: str,
        *,
        starts: int = 50,
        starts_seed: int = 900,
        every: int = 100,
        drawn: int = 20,
        slots: int = 32,
        tasks: Sequence[str] = (),
    ) -> None:
        self.suite, self.folder, self.every = suite, Path(folder), every
        self.plan = CollectPlan(tuple(tasks), starts, starts_seed, 1, slots=slots)
        self.drawn = min(drawn, starts)
        self.states = training_starts(suite, tasks, starts, starts_seed)
        self.measured: list[dict[str, float]] = []
        self.best: dict[str, float] = {}

    @property
    def rule(self) -> str:
        """How the checkpoint is chosen, in words."""
        return (
            f"most successes among {len(self.states)} greedy rollouts from training starts of seed"
            f" {self.plan.starts_seed} in {self.suite.name}, every {self.every} steps; of equals the earliest;"
            " step 0 is the policy that training began with"
        )

    def state_dict(self) -> dict[str, Any]:
        """What was measured, for a run that goes on."""
        return {"measured": self.measured, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on choosing."""
        self.measured, self.best = list(state_dict["measured"]), dict(state_dict["best"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the policy that training begins with. Raises ConfigError where pairs are of these starts."""
        data: Any = getattr(trainer, "datamodule", None)
        pairs = {span.start for span in data.pairs.spans} if hasattr(data, "pairs") else set[str]()
        common = sorted(pairs & {state.name for state in self.states})
        if common:
            raise ConfigError(
                f"{len(common)} starts to choose by are those of pairs, such as {common[0]}",
                where="callbacks.choice.starts_seed",
                do="another seed, here or in vlakit collect",
            )
        if not self.measured:
            self._measure(trainer, cast("PolicyModule", pl_module), 0)  # an average is not there yet, nor another one

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure every so many steps, and at the last."""
        step = trainer.global_step
        due = step % self.every == 0 or step == trainer.max_steps
        if due and step > self.measured[-1]["step"]:
            with _acting(trainer):
                self._measure(trainer, cast("PolicyModule", pl_module), step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the best, and say so in the card."""
        file = self.folder / CHOSEN
        if self.best["step"] != self.measured[-1]["step"]:
            kept = torch.load(file, map_location=pl_module.device, weights_only=True)
            parameters = dict(cast("PolicyModule", pl_module).model.named_parameters())
            with torch.no_grad(), _acting(trainer):
                for name, tensor in kept.items():
                    parameters[name].copy_(tensor)
        file.unlink(missing_ok=True)
        facts = cast("PolicyModule", pl_module).facts
        facts["chosen"] = {"rule": self.rule, **self.best, "measured": self.measured}
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"rollout/chosen_{key}": value for key, value in self.best.items()}, step=trainer.global_step
            )
        log.info("chosen: step %d, success %.3f (%s)", self.best["step"], self.best["success"], self.rule)

    def _measure(self, trainer: Trainer, module: PolicyModule, step: int) -> None:
        mode = module.model.training
        constrain = bool(getattr(module.model, "constrain", True))
        policy = TrainedPolicy(module.model, module.processor.for_validation(), constrain=constrain)
        values = {"rollout/success_greedy": self._greedy(policy)}
        if self.drawn and isinstance(module.model, Likelihood):
            values |= self._drawn(policy, module, step)
        module.model.train(mode)
        self.measured.append({"step": step, "success": values["rollout/success_greedy"]})
        if self.measured[-1]["success"] > self.best.get("success", -1.0):
            self.best = self.measured[-1]
            trained = {name: p.detach().cpu() for name, p in module.model.named_parameters() if p.requires_grad}
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_writer(self.folder / CHOSEN) as stream:
                torch.save(trained, stream)
        log.info("step %d: %s", step, ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def _greedy(self, policy: TrainedPolicy) -> float:
        policy.pad_to = policy.processor.text_width(state.instruction for state in self.states)
        bounds = action_bounds(self.suite, statistics_for(self.suite, policy.processor), self.states)
        options = Options(min(self.plan.slots, len(self.states)), bounds=bounds)
        with closing(rollout(self.suite, policy, self.states, options)) as records:
            return float(np.mean([record.success for record in records]))

    def _drawn(self, policy: TrainedPolicy, module: PolicyModule, step: int) -> dict[str, float]:
        """Success at temperature 1, and per token: minus log-probability, and how far above the start's that is."""
        collector = Collector(policy, self.suite, self.plan)
        actor = collector.actor([step], seeing=True)
        rolled = list(collector.rolled([(state, 0) for state in self.states[: self.drawn]], actor))
        values = {"rollout/success_t1": float(np.mean([record.success for _, record, _ in rolled]))}
        first = self._first(module)
        above, own = [], []
        for _, _, draws in rolled:
            if draws.seen:
                ids, logp = torch.tensor(draws.ids), torch.tensor(draws.log_probs)
                with torch.no_grad():
                    before = first.log_prob(draws.seen, ids.numpy()).float().cpu()
                above.append((logp - before).flatten())
                own.append(logp.flatten())
        if own:
            values |= {
                "drift/kl_rollout": float(torch.cat(above).mean()),
                "entropy/action": -float(torch.cat(own).mean()),
            }
        return values

    def _first(self, module: PolicyModule) -> TrainedPolicy:
        """The policy that training began with, read anew: under an adapter that is not the bare base."""
        if module.weights is None:
            raise ConfigError(
                "no policy to start from", where="model.weights", do="name it, or callbacks.choice.drawn=0"
            )
        network = start_from(module.weights, module.network, module.processor).to(module.device)
        constrain = bool(getattr(module.model, "constrain", True))
        return TrainedPolicy(network, module.processor.for_validation(), constrain=constrain)
