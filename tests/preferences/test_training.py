"""Training on pairs: the exact gradient in parts, the right reference, the checkpoint that rollouts choose."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from preference_cases import KIND, Rightward, collected, paired_up, policy
from tiny_runs import saved, trainer_of

from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.file import read_checkpoint
from vlakit.checkpoints.formats import LoadOptions
from vlakit.collecting import choosing
from vlakit.collecting.choosing import RolloutChoice
from vlakit.collecting.rounds import IteratedPairs
from vlakit.errors import CheckpointMismatch, ConfigError, LossNotFinite, PartMissing
from vlakit.models.network import Likelihood, capability
from vlakit.policy import TrainedPolicy
from vlakit.preferences.datamodule import PairDataModule, PairOrder
from vlakit.preferences.losses import LOSSES, judge
from vlakit.preferences.pair_file import PairFolder
from vlakit.strategies.base import Finetune
from vlakit.strategies.ema import Ema
from vlakit.strategies.lora import Lora
from vlakit.strategies.optim import constant
from vlakit.strategies.preference import Preference, PreferenceLora

TRUSTED = LoadOptions(trusted=("preference_cases",))
ADAM = partial(torch.optim.Adam, lr=0.02)
SGD = partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    return paired_up(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint of the policy that drew the pairs."""
    module = Finetune(KIND, policy().processor, ADAM, constant)
    torch.manual_seed(0)
    module.configure_model()
    assert all(torch.equal(a, b) for a, b in zip(module.model.parameters(), policy().network.parameters(), strict=True))
    module.surroundings = {"fake_dots": {"camera": "primary"}}
    return str(saved(module, tmp_path_factory.mktemp("start") / "start.ckpt"))


def data(pairs: PairFolder, loss: str = "dpo", batch_size: int = 4) -> PairDataModule:
    return PairDataModule(policy().processor, str(pairs.path), loss, batch_size=batch_size, seed=3)


def module(weights: str, kind: Any = Preference, **options: Any) -> Any:
    defaults: dict[str, Any] = {"optimizer": SGD, "scheduler": constant, "micro_batch": 5, "beta": 0.3}
    return kind(network=KIND, processor=policy().processor, weights=weights, **(defaults | options))


def fitted(
    weights: str, pairs: PairFolder, steps: int = 3, *callbacks: Any, kind: Any = Preference, **options: Any
) -> Any:
    one = module(weights, kind, **options)
    trainer_of(steps, *callbacks).fit(one, data(pairs, options.get("loss", "dpo")))
    return one


def gradients(one: Any) -> list[torch.Tensor]:
    return [p.grad.clone() for p in one.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("loss", LOSSES.names())
@pytest.mark.parametrize("micro_batch", [1, 7, 10_000])
def test_the_gradient_in_parts_is_that_of_the_whole_batch(
    pairs: PairFolder, weights: str, loss: str, micro_batch: int
) -> None:
    one, source = module(weights, loss=loss, micro_batch=micro_batch, sft_weight=0.5), data(pairs, loss)
    one.configure_model()
    one.model.double()
    one.trainer = trainer_of(1)
    one.log = one.log_dict = lambda *a, **k: None
    one.trainer.strategy._optimizers = [SGD(one.model.parameters())]
    with torch.no_grad():  # away from the reference, where some losses have no slope
        one.model.lm_head.bias += 0.3 * torch.randn(len(one.model.lm_head.bias))
    batch = source.batch(source._numbered("train")[:5])
    observe = batch.observe
    batch = type(batch)(**{**vars(batch), "observe": lambda rows: observe(rows).to(torch.float64)})
    one.backward(one.training_step(batch, 0))
    in_parts = gradients(one)
    one.zero_grad()
    network = one.likelihood
    logp = network.log_prob(batch.observe(batch.rows), batch.ids)
    other = network.log_prob(batch.observe(batch.rows), batch.mismatched_ids)
    judge(batch.scored(logp, other), one.judging).loss.backward()
    assert in_parts
    for part, whole in zip(in_parts, gradients(one), strict=True):
        assert part.allclose(whole, atol=1e-9)


def test_dropout_is_off_so_that_the_loss_begins_at_log_2(pairs: PairFolder, weights: str) -> None:
    one = module(weights, optimizer=partial(torch.optim.SGD, lr=0.0))
    trainer = trainer_of(2)
    trainer.fit(one, data(pairs))
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(np.log(2), abs=1e-5)
    assert float(trainer.callback_metrics["rewards/accuracies"]) <= 1


def test_margins_and_drift_are_logged_by_trls_names_at_every_step(pairs: PairFolder, weights: str) -> None:
    trainer = trainer_of(3, limit_val_batches=1.0, val_check_interval=1, check_val_every_n_epoch=None)
    trainer.fit(module(weights), data(pairs))
    sides = [f"{name}/{side}" for name in ("rewards", "logps", "tokens") for side in ("chosen", "rejected")]
    wanted = {*sides, "rewards/margins", "rewards/accuracies", "drift/chosen_per_token", "drift/dimension_6"}
    assert wanted | {"val/loss", "val/rewards/accuracies", "beta_tokens"} <= set(trainer.callback_metrics)


def test_a_training_that_goes_on_is_the_one_that_was_not_interrupted(
    pairs: PairFolder, weights: str, tmp_path: Path
) -> None:
    whole = fitted(weights, pairs, 4)
    first, trainer = module(weights), trainer_of(2)
    trainer.fit(first, data(pairs))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = module(weights)
    trainer_of(4).fit(second, data(pairs), ckpt_path=str(tmp_path / "half.ckpt"), weights_only=True)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_order_is_a_function_of_its_position_and_takes_each_pair_once_an_epoch() -> None:
    batches = [[n for _, n in batch] for _, batch in zip(range(6), PairOrder(9, 3, 1), strict=False)]
    later = [[n for _, n in batch] for _, batch in zip(range(2), PairOrder(9, 3, 1, first=4), strict=False)]
    assert later == batches[4:]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(number for batch in epoch for number in batch) == list(range(9))
    assert batches[:3] != batches[3:]


def test_under_new_adapters_lies_the_fine_tuned_policy_and_never_the_bare_base(weights: str, tmp_path: Path) -> None:
    tuned = Lora(KIND, policy().processor, ADAM, constant, weights=weights, rank=2)
    tuned.configure_model()
    with torch.no_grad():
        for name, parameter in tuned.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5 * torch.randn_like(parameter))
    tuned.surroundings = {"fake_dots": {"camera": "primary"}}
    sft = TrainedPolicy.from_checkpoint(saved(tuned, tmp_path / "sft.ckpt"), options=TRUSTED)
    folder = paired_up(tmp_path, sft)
    moved = np.abs(
        np.array(folder["reference"])
        - policy()
        .log_prob([folder.observation(row) for row in range(len(folder["ids"]))], np.array(folder["ids"]))
        .detach()
        .numpy()
    )
    assert moved.max() > 0.1  # the bare base would be another reference
    one = fitted(str(tmp_path / "sft.ckpt"), folder, 1, kind=PreferenceLora, rank=2)
    inputs = one.likelihood.log_prob
    batch = data(folder).batch(data(folder).first())
    after = inputs(batch.observe(batch.rows), batch.ids).detach()
    assert (after - batch.reference).abs().max() > 1e-5  # a step was taken
    layers = [layer for layer in one.model.modules() if hasattr(layer, "disable_adapters")]
    for layer in layers:
        layer.enable_adapters(False)
    below = inputs(batch.observe(batch.rows), batch.ids).detach()
    assert layers
    assert (below - batch.reference).abs().max() < 1e-5  # and the reference is where it was


def test_pairs_of_another_policy_are_refused_before_the_first_step(pairs: PairFolder, tmp_path: Path) -> None:
    torch.manual_seed(9)
    other = Finetune(KIND, policy().processor, ADAM, constant)
    other.configure_model()
    with pytest.raises(CheckpointMismatch, match="pairs of another policy") as caught:
        fitted(str(saved(other, tmp_path / "other.ckpt")), pairs)
    assert "vlakit collect" in caught.value.do


def test_preferences_without_a_policy_to_start_from_are_refused() -> None:
    with pytest.raises(ConfigError, match="random weights"):
        module(None)  # pyright: ignore[reportArgumentType]


def test_a_network_without_log_prob_is_told_what_it_lacks(tmp_path: Path) -> None:
    toy = {"kind": "toy_network:ToyNetwork"}
    start = Finetune(toy, policy().processor, ADAM, constant)
    start.configure_model()
    file = saved(start, tmp_path / "toy.ckpt")
    one = Preference(network=toy, processor=policy().processor, optimizer=SGD, scheduler=constant, weights=str(file))
    one.configure_model()
    with pytest.raises(PartMissing, match=r"log_prob\) needs Likelihood"):
        one.check_able(one.model)


def test_a_loss_that_is_not_finite_names_the_episodes(pairs: PairFolder, weights: str) -> None:
    with pytest.raises(LossNotFinite, match="the loss is") as caught:
        fitted(weights, pairs, 9, optimizer=partial(torch.optim.SGD, lr=torch.inf))
    assert "#" in caught.value.where


def test_preferences_make_the_dice_succeed_and_rollouts_choose_the_step(
    pairs: PairFolder, weights: str, tmp_path: Path
) -> None:
    choice = RolloutChoice(Rightward(), str(tmp_path), starts=20, starts_seed=900, every=20, drawn=20, slots=20)
    one = fitted(weights, pairs, 60, choice, optimizer=ADAM, loss="dpo", beta=0.1, sft_weight=0.2)
    before, after = choice.measured[0]["success"], choice.best["success"]
    assert after >= before + 0.3
    file = saved(one, tmp_path / "after.ckpt")
    facts = read_checkpoint(file)[CARD]["chosen"]
    assert facts["step"] == choice.best["step"]
    assert "of equals the earliest" in facts["rule"]
    again = TrainedPolicy.from_checkpoint(file, options=TRUSTED)
    assert choice._greedy(again) == after  # what was put back is what was measured
    assert not (tmp_path / "chosen.pt").exists()


def test_where_training_only_harms_the_policy_that_it_began_with_is_chosen(
    pairs: PairFolder, weights: str, tmp_path: Path
) -> None:
    choice = RolloutChoice(Rightward(), str(tmp_path), starts=10, starts_seed=900, every=2, drawn=0, slots=10)
    one = fitted(weights, pairs, 4, choice, optimizer=partial(torch.optim.SGD, lr=0.0))
    assert (choice.best["step"], len(choice.measured)) == (0, 3)
    assert torch.equal(one.model.lm_head.bias, policy().network.lm_head.bias)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]


def test_where_weights_are_averaged_the_average_is_rolled_out_put_back_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "TrainedPolicy", lambda network, *_, **__: network)
    choice = RolloutChoice(Rightward(), str(tmp_path), starts=4, starts_seed=900, every=1, drawn=0, slots=4)
    rolled: list[float] = []

    def greedy(network: torch.nn.Linear) -> float:
        rolled.append(network.weight.item())
        return [0.0, 0.3, 0.1, 0.2][len(rolled) - 1]

    monkeypatch.setattr(choice, "_greedy", greedy)
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    preparing = SimpleNamespace(for_validation=lambda: None)
    module: Any = SimpleNamespace(model=network, device="cpu", facts={}, processor=preparing)
    ema = Ema(power=0.75)
    trainer: Any = SimpleNamespace(callbacks=[choice, ema], loggers=[], callback_metrics={}, global_step=0, max_steps=3)
    for callback in (choice, ema):
        callback.on_train_start(trainer, module)
    for step in (1, 2, 3):
        network.weight.data.fill_(10.0 * step)
        trainer.global_step = step
        for callback in (ema, choice):
            callback.on_train_batch_end(trainer, module, None, None, 0)
    choice.on_train_end(trainer, module)
    checkpoint: dict[str, Any] = {"state_dict": {}}
    ema.on_save_checkpoint(trainer, module, checkpoint)
    assert choice.best["step"] == 1
    assert rolled[:3] == [0, 10, 20]
    assert 20 < rolled[3] < 30  # the average of the third step, which is not what trains
    assert checkpoint["state_dict"]["model.weight"].item() == rolled[1]


def test_starts_to_choose_by_must_not_be_those_of_pairs(pairs: PairFolder, weights: str, tmp_path: Path) -> None:
    choice = RolloutChoice(Rightward(), str(tmp_path), starts=4, starts_seed=100, every=2, slots=4)
    with pytest.raises(ConfigError, match="are those of pairs"):
        fitted(weights, pairs, 2, choice)


def test_each_round_is_paired_by_the_policy_that_it_begins_with(weights: str, tmp_path: Path) -> None:
    rounds = IteratedPairs(
        policy().processor, weights, Rightward(), str(tmp_path), "dpo",
        steps=6, rounds=2, batch_size=4, seed=0, starts=12, rollouts_per_start=4, slots=4, trusted=["preference_cases"],
    )  # fmt: skip
    one = module(weights, optimizer=ADAM)
    trainer_of(6, reload_dataloaders_every_n_epochs=1, max_epochs=-1).fit(one, rounds)
    folders = [PairFolder(tmp_path / f"round_{number}" / "pairs") for number in range(2)]
    assert folders[0].header["policy"]["sha256"] != folders[1].header["policy"]["sha256"]
    assert not {span.start for span in folders[0].spans} & {span.start for span in folders[1].spans}
    assert one.trainer.global_step == 6
    with pytest.raises(ConfigError, match="no 4 rounds"):
        IteratedPairs(policy().processor, weights, Rightward(), "x", "dpo", steps=6, rounds=4, batch_size=1, seed=0)


def test_the_dice_are_a_policy_with_a_likelihood(tmp_path: Path) -> None:
    assert capability(policy().network, Likelihood, purpose="a test")
    assert 0 < sum(one.success for one in collected(tmp_path / "r").episodes()) < 48


def test_unbalanced_weights_of_kto_are_named_with_those_that_balance(
    pairs: PairFolder, weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    won = sum(pairs.spans[place].preferred for place in pairs.episodes("train"))
    lost = len(pairs.episodes("train")) - won
    with caplog.at_level("WARNING"):
        fitted(weights, pairs, 1, loss="kto", desirable_weight=9.0)
    assert f"strategy.desirable_weight={lost / won:.2f}" in caplog.text
    caplog.clear()
    fitted(weights, pairs, 1, loss="kto", desirable_weight=round(1.1 * lost / won, 2))
    assert "balanced" not in caplog.text
