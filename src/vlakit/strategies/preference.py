"""Learning from pairs of a policy's own episodes: what is trained is as in fine-tuning, the loss is of whole episodes.

The reference is the policy that training starts from, whose log-probabilities the pairs bring: of a fine-tuned LoRA the
weights are merged, so that its adapters are part of the reference and new ones start from nothing.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from vlakit.errors import CheckpointMismatch, ConfigError
from vlakit.models.network import Likelihood, Network, capability
from vlakit.preferences.datamodule import PreferenceBatch
from vlakit.preferences.likelihood import log_probs, precise, push
from vlakit.preferences.losses import Exact, Judged, LossSettings, Scored, judge, weights_ratio
from vlakit.strategies.base import Finetune, PolicyModule
from vlakit.strategies.lora import Lora

log = logging.getLogger(__name__)
SAME = 0.05  # nats of a token by which the policy at its start may differ from its reference, in float32
CHECKED = 32  # decisions that are compared
TOO_FAR = "lower the learning rate or strategy.beta, or raise strategy.sft_weight"
BALANCED = 1.0, 4 / 3  # TRL's range of how much successes count beside failures


class PreferenceSteps(PolicyModule):
    """The steps of a training on pairs, over any strategy.

    micro_batch: decisions whose graph is in memory together; the gradient is that of whole episodes whatever it is.
    drift_warn: nats per token by which preferred tokens may become less likely before a warning; it stops nothing.
    Dropout is off, and pictures are not augmented: else the reference would not be that of the same question.
    """

    def __init__(
        self,
        *args: Any,
        loss: str = "dpo",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        sft_weight: float = 0.0,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        micro_batch: int = 64,
        drift_warn: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        numbers = (beta, label_smoothing, sft_weight, desirable_weight, undesirable_weight)
        self.judging = LossSettings(loss, *numbers)
        self.micro_batch, self.drift_warn, self._warned = micro_batch, drift_warn, False
        self._pending: tuple[PreferenceBatch, Tensor, Tensor | None] | None = None
        if self.weights is None:
            raise ConfigError(
                "preferences improve a policy, and this run starts from random weights",
                where="model.weights",
                do="model.weights=CKPT, the policy that drew the rollouts",
            )

    def check_able(self, model: Network, *, questions: bool = False) -> None:
        """As any strategy. Raises PartMissing for a network that cannot say how likely an answer is."""
        super().check_able(model, questions=questions)
        capability(model, Likelihood, purpose="strategy=dpo (log_prob)")

    @property
    def likelihood(self) -> Likelihood:
        """The network, without dropout."""
        return capability(self.model.eval(), Likelihood, purpose="strategy=dpo (log_prob)")

    def on_fit_start(self) -> None:
        """Refuse pairs of another policy, but for a run that goes on. Raises CheckpointMismatch, ConfigError."""
        super().on_fit_start()
        if self.trainer.world_size > 1:
            do = "trainer.devices=1: the gradient of a pair is pushed through in parts"
            raise ConfigError("pairs train on one device", where="trainer.devices", do=do)
        data: Any = getattr(self.trainer, "datamodule")  # noqa: B009  Lightning's, of any kind
        data.begin(self)
        if hasattr(self.model, "constrain"):
            self.model.constrain = bool(data.pairs.header["constrain"])  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        self._check_weights([data.pairs.spans[place].preferred for place in data.pairs.episodes("train")])
        if self.trainer.ckpt_path is None:
            self.check_reference(data.batch(data.first()).to(self.device))

    def on_train_start(self) -> None:
        """File how many of the starts gave pairs."""
        super().on_train_start()
        data: Any = getattr(self.trainer, "datamodule")  # noqa: B009
        for logger in self.loggers:
            logger.log_metrics({"pairs/yield": data.pairs.header["counts"]["yield"]}, step=self.global_step)

    def _check_weights(self, preferred: list[bool]) -> None:
        """Warn of weights of kto under which one side counts for much more than the other."""
        won, share = sum(preferred), self.judging
        ratio = weights_ratio(won, len(preferred) - won, share)
        if share.loss in ("kto", "apo_zero_unpaired") and not BALANCED[0] <= ratio <= BALANCED[1]:
            fitting = share.undesirable_weight * (len(preferred) - won) / max(won, 1)
            advice = f"strategy.desirable_weight={fitting:.2f}"
            log.warning("successes count %.2f times as much as failures; balanced: %s", ratio, advice)

    def check_reference(self, batch: PreferenceBatch) -> None:
        """Raise CheckpointMismatch unless the policy is the reference of these pairs."""
        rows = batch.rows[:CHECKED]
        own = log_probs(self.likelihood, batch.observe, rows, batch.ids[: len(rows)], self.micro_batch)
        off = float((own - batch.reference[: len(rows)])[batch.mask[: len(rows)]].abs().max())
        if not off <= (SAME if own.dtype == self.dtype else 10 * SAME):
            raise CheckpointMismatch(
                f"pairs of another policy: their reference differs by up to {off:.3g} nats from the one to start from",
                where=f"model.weights={self.weights}",
                do="start from the policy that drew the rollouts, or collect with this one: vlakit collect ckpt=CKPT",
            )

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Loss of a batch of pairs; its gradient is pushed through by `backward`, in parts."""
        graph = None
        if len(batch.rows) <= self.micro_batch:  # what fits into memory at once is asked once
            graph = self.likelihood.log_prob(batch.observe(batch.rows), batch.ids)
        scored = self.scored(batch, None if graph is None else precise(graph.detach()))
        exact = Exact.of(scored, self.judging)
        self._pending = batch, batch.by_decision(exact.weights), graph
        self._log(exact.judged, scored, batch)
        return self.finite(exact.judged.loss.detach(), batch.position, batch.keys, TOO_FAR).requires_grad_(True)

    def scored(self, batch: PreferenceBatch, logp: Tensor | None = None) -> Scored:
        """The batch with the policy's log-probabilities (S, n), where they are known, without a graph."""
        network, at_once = self.likelihood, self.micro_batch
        if logp is None:
            logp = log_probs(network, batch.observe, batch.rows, batch.ids, at_once)
        other = None
        if self.judging.loss == "kto":
            other = log_probs(network, batch.observe, batch.rows, batch.mismatched_ids, at_once)
        return batch.scored(logp, other)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The exact gradient: dL/dlogp of each token, times the gradient of that token's log-probability."""
        if self._pending is None:
            raise RuntimeError("backward without a training step")
        (batch, weights, graph), self._pending = self._pending, None
        weights = weights / self.trainer.accumulate_grad_batches
        if graph is not None:
            graph.backward(weights.to(graph.dtype))
            return
        with self.trainer.precision_plugin.forward_context():
            push(self.likelihood, batch.observe, batch.rows, batch.ids, weights, self.micro_batch)

    def validation_step(self, batch: Any, _: int) -> None:
        """The loss and TRL's scalars over held-out starts."""
        scored = self.scored(batch)
        judged = judge(scored, self.judging)
        values = {"loss": judged.loss, **judged.scalars(scored)}
        finite = {f"val/{name}": value.float() for name, value in values.items() if torch.isfinite(value)}
        self.log_dict(finite, batch_size=len(batch))

    def _log(self, judged: Judged, scored: Scored, batch: PreferenceBatch) -> None:
        """TRL's scalars by TRL's names, and by how much the policy has moved from its reference."""
        moved = (scored.logp - scored.reference)[scored.preferred]  # (R', T)
        counted = scored.mask[scored.preferred]
        drift = moved[counted].mean()
        values = {**judged.scalars(scored), "drift/chosen_per_token": drift}
        dimension = torch.arange(moved.shape[1], device=moved.device) % batch.action_size
        for number in range(batch.action_size):
            values[f"drift/dimension_{number}"] = moved[counted & (dimension == number)].mean()
        for name, won in (("chosen", scored.preferred), ("rejected", ~scored.preferred)):
            values[f"tokens/{name}"] = scored.n_tokens[won].float().mean()
        values["beta_tokens"] = self.judging.beta * scored.n_tokens.float().mean()  # what saturates the loss
        values["train/learning_rate"] = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        shown = {name: value.float() for name, value in values.items() if torch.isfinite(value)}
        self.log_dict(shown, batch_size=len(batch))
        self.log("train/loss", judged.loss.detach().float(), batch_size=len(batch), prog_bar=True)
        if drift < -self.drift_warn and not self._warned:
            self._warned = True
            log.warning("preferred tokens lost %.2f nats each: watch rollout/success_greedy", -float(drift))


class Preference(PreferenceSteps, Finetune):
    """Preferences over all parameters, or those of the globs in `trainable`."""

    name = "dpo"


class PreferenceLora(PreferenceSteps, Lora):
    """Preferences over fresh adapters; without them the network is the reference."""

    name = "dpo_lora"
