"""What every strategy shares: building, stepping, refusing a bad loss, and saying what a checkpoint is."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from tiny_runs import TINY, built, data_of, module_of, saved, trainer_of

from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.file import read_checkpoint
from vlakit.errors import CheckpointMismatch, LossNotFinite
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Batch
from vlakit.strategies.full import Full
from vlakit.strategies.last_layer import LastLayer
from vlakit.strategies.lora import Lora
from vlakit.strategies.pretrain import Pretrain


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_batch(
    tiny_processor: TokenProcessor, tiny_batch: Batch, value: float
) -> None:
    broken = replace(tiny_batch, pixels={"primary": tiny_batch.pixels["primary"] * value}, position=420)
    with pytest.raises(LossNotFinite, match="the loss is nan") as caught:
        built(Full, tiny_processor).training_step(broken, 0)
    assert all(key in caught.value.where for key in broken.keys)
    assert "420" in caught.value.where


def test_a_bad_loss_stops_the_run_before_the_weights_change(
    bridge_shards: Path, tiny_processor: TokenProcessor
) -> None:
    data = data_of(bridge_shards, tiny_processor)
    module = built(Full, data.processor)
    with torch.no_grad():
        module.model.projector.fc1.bias.fill_(float("nan"))
    before = module.model.language_model.lm_head.weight.clone()
    with pytest.raises(LossNotFinite):
        trainer_of(2).fit(module, data)
    assert torch.equal(module.model.language_model.lm_head.weight, before)


class GradientNorm(Callback):
    """The norm of the gradients with which the last step was made."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norm = float(torch.nn.utils.get_total_norm(gradients))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_gradients_are_clipped_in_every_precision(
    bridge_shards: Path, tiny_processor: TokenProcessor, precision: str
) -> None:
    """With the optimizer of conf/optimizer, which is fused: Lightning alone refuses to under bf16-mixed."""
    data, seen = data_of(bridge_shards, tiny_processor), GradientNorm()
    module = built(LastLayer, data.processor, optimizer=partial(torch.optim.AdamW, lr=1e-3, fused=True))
    trainer_of(1, seen, precision=precision, gradient_clip_val=0.01).fit(module, data)
    assert seen.norm == pytest.approx(0.01, rel=0.02)


def test_the_network_is_built_once(tiny_processor: TokenProcessor) -> None:
    module = built(Full, tiny_processor)
    model = module.model
    module.configure_model()
    assert module.model is model


def test_weights_are_loaded_before_the_strategy_prepares(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    first = built(Full, tiny_processor)
    file = saved(first, tmp_path / "full.ckpt")
    second = built(LastLayer, tiny_processor, seed=99, weights=str(file))
    state = first.model.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in second.model.state_dict().items())
    assert not second.model.projector.fc1.weight.requires_grad


def test_lora_starts_from_another_runs_weights(
    tiny_processor: TokenProcessor, tiny_batch: Batch, tmp_path: Path
) -> None:
    first = built(Full, tiny_processor)
    second = built(Lora, tiny_processor, seed=99, rank=2, weights=str(saved(first, tmp_path / "full.ckpt")))
    with torch.no_grad():
        logits = [one.model.eval().answers(tiny_batch).logits for one in (first, second)]
        assert torch.equal(*logits)


def test_weights_that_are_no_checkpoint_stop_the_run(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch):
        built(Full, tiny_processor, weights=str(tmp_path / "none.ckpt"))


def test_a_checkpoint_says_what_it_is(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    module = built(Lora, tiny_processor, rank=4)
    module.facts = {"run_id": "abc"}
    card = read_checkpoint(saved(module, tmp_path / "a.ckpt"))[CARD]
    assert card["strategy"] == "lora"
    assert card["network"] == TINY | {"vision_options": {}, "llm_options": {}}
    assert card["processor"] == {"kind": "tokens", **tiny_processor.settings.to_dict()}
    assert (card["adapter"]["rank"], card["adapter"]["alpha"]) == (4, 4)
    assert list(card["statistics"]) == ["bridge_orig"]
    assert card["run_id"] == "abc"


def test_a_run_logs_train_and_validation_metrics_per_dataset(
    bridge_shards: Path, tiny_processor: TokenProcessor
) -> None:
    data = data_of(bridge_shards, tiny_processor)
    options = {"limit_val_batches": 2, "val_check_interval": 2, "check_val_every_n_epoch": None}
    trainer = trainer_of(2, num_sanity_val_steps=0, **options)
    trainer.fit(built(LastLayer, data.processor), data)
    found = set(trainer.logged_metrics)
    names = {"loss", "token_accuracy", "l1", "l1_position_m", "l1_rotation_rad", "l1_gripper"}
    assert {f"train/{name}" for name in names} <= found
    assert {f"val/{name}" for name in names} <= found
    assert {f"val/{name}/bridge_orig" for name in names} <= found
    assert float(trainer.logged_metrics["val/loss"]) == pytest.approx(
        float(trainer.logged_metrics["val/loss/bridge_orig"])
    )


def test_what_is_frozen_does_not_move_and_what_trains_does(bridge_shards: Path, tiny_processor: TokenProcessor) -> None:
    data = data_of(bridge_shards, tiny_processor)
    module = built(LastLayer, data.processor)
    before = {name: t.clone() for name, t in module.model.named_parameters()}
    trainer_of(2).fit(module, data)
    moved = {name for name, p in module.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in module.model.named_parameters() if p.requires_grad}


def test_a_tiny_run_learns(bridge_shards: Path, tiny_processor: TokenProcessor) -> None:
    data = data_of(bridge_shards, tiny_processor)
    module = built(Full, data.processor)
    batch = next(iter(data.train_dataloader()))
    module.model.eval()
    before = module.model(batch).loss.item()
    trainer_of(8).fit(module, data)
    assert module.model(batch).loss.item() < before - 1


def test_pretraining_spares_norms_and_biases(tiny_processor: TokenProcessor) -> None:
    assert not module_of(Pretrain, tiny_processor).decay_norms_and_biases
    assert module_of(Full, tiny_processor).decay_norms_and_biases
