"""The average of what trains: its formula, where it stands in for the network, and a run that goes on from a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from models.diffusion_policy.cases import UNET
from tiny_runs import data_of, trainer_of
from torch import Tensor, nn

from vlakit.checkpoints.contract import check_contract
from vlakit.checkpoints.formats import load
from vlakit.errors import ConfigError
from vlakit.processing.diffusion import DiffusionProcessor, DiffusionSettings
from vlakit.strategies.ema import Averaged, Ema, averaged, decay
from vlakit.strategies.optim import cosine
from vlakit.strategies.saving import LastCheckpoint

NUMBERS = {"power": 0.75}
NETWORK = {
    "kind": "diffusion_policy", "vision": "small", "options": UNET,
    "sampler": {"scheduler": "ddim", "num_train_timesteps": 10, "steps": 2},
}  # fmt: skip


def processor() -> DiffusionProcessor:
    common: dict[str, Any] = {"image_size": 32, "channel_statistics": ["imagenet_twice"], "normalization": "limits"}
    return DiffusionProcessor(DiffusionSettings.from_dict({**common, "window": 2, "horizon": 8, "chunk": 4}))


def test_the_share_that_an_update_keeps_follows_the_originals_formula() -> None:
    for update in (10, 10_000):
        assert decay(update, **NUMBERS) == pytest.approx(1 - update**-0.75)
    assert [decay(update, **NUMBERS) for update in (0, 1)] == [0.0, 0.0]
    assert decay(10**9, **NUMBERS) == 0.9999
    assert decay(9, update_after=8) == 0.0 < decay(10, update_after=8)
    assert decay(2, least=0.9) == 0.9


def test_batch_norms_and_what_does_not_train_are_copied_and_buffers_left() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network[0].bias.requires_grad_(False)
    average = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    averaged(average, network, 0.75)
    assert torch.equal(average["0.weight"], 0.25 * network[0].weight)
    assert torch.equal(average["0.bias"], network[0].bias)
    assert torch.equal(average["1.weight"], network[1].weight)
    assert not average["1.running_var"].any()


def test_the_average_follows_a_network_that_left_its_device() -> None:
    asked: list[torch.device] = []

    class OnAGpu:
        """What stands for a tensor there: it can only be fetched."""

        def to(self, device: torch.device) -> Tensor:
            asked.append(device)
            return torch.ones(2, 2)

    module: Any = nn.Module()
    module.model = nn.Linear(2, 2, bias=False)
    ema: Any = Ema()
    ema.on_train_start(None, module)
    ema.other = {"weight": OnAGpu()}
    with ema.showing(True) as tensors:
        assert torch.equal(tensors["weight"], torch.ones(2, 2))
        assert torch.equal(module.model.weight, torch.ones(2, 2))
    assert asked == [torch.device("cpu")]


def test_a_number_that_no_average_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="powr"):
        Ema(powr=1)


class Watch(Callback):
    """Losses, the weights that train behind each step, and the weights that validate."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.trained: list[Tensor] = []
        self.validated: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.trained.append(weight(pl_module))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.validated.append(weight(pl_module))


def weight(module: LightningModule) -> Tensor:
    return module.model.model.final_conv[1].weight.detach().clone()  # pyright: ignore


def trained(shards: Path, folder: Path, steps: int, ckpt: Path | None = None) -> tuple[Watch, Averaged, Trainer, Any]:
    """Training that validates every second step and keeps the newest checkpoint there."""
    torch.manual_seed(4)
    data = data_of(shards, processor())  # pyright: ignore
    optimizer, schedule = partial(torch.optim.AdamW, lr=1e-2), partial(cosine, warmup_steps=2, from_zero=False)
    module = Averaged(NETWORK, data.processor, optimizer, lambda o, _: schedule(o, 6), ema=NUMBERS)
    last = LastCheckpoint(dirpath=folder, filename="last", every_n_train_steps=2, enable_version_counter=False)
    options = {"val_check_interval": 2, "check_val_every_n_epoch": None, "limit_val_batches": 1, "max_epochs": -1}
    options |= {"num_sanity_val_steps": 0, "enable_checkpointing": True, "default_root_dir": folder}
    watch = Watch()
    trainer = trainer_of(steps, watch, last, **options)
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return watch, module, trainer, data


@pytest.fixture(scope="module")
def whole(bridge_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watch, Averaged, Trainer, Any, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return *trained(bridge_shards, folder, 6), folder


def test_the_average_validates_and_what_trains_goes_on(whole: tuple[Watch, Averaged, Trainer, Any, Path]) -> None:
    watch = whole[0]
    average = watch.trained[0].clone()
    for update, one in enumerate(watch.trained):
        share = decay(update, **NUMBERS)
        average = share * average + (1 - share) * one
        if update % 2:
            torch.testing.assert_close(watch.validated[update // 2], average)
    assert not torch.allclose(watch.validated[-1], watch.trained[-1])


def test_files_and_their_contract_are_the_averages(whole: tuple[Watch, Averaged, Trainer, Any, Path]) -> None:
    watch, module, trainer, data, folder = whole
    module.answer_golden(data.golden_samples(2))
    trainer.save_checkpoint(folder / "end.ckpt")
    loaded = load(folder / "end.ckpt")
    assert torch.equal(loaded.network.state_dict()["model.final_conv.1.weight"], watch.validated[-1])
    assert loaded.card.contract
    assert len(loaded.card.contract["frames"]) == 2
    check_contract(loaded.card.contract, loaded.network.eval(), loaded.processor, where="end.ckpt", strict=True)
    assert torch.equal(weight(module), watch.trained[-1])  # and the run could go on


def test_a_run_goes_on_to_the_same_bits(
    bridge_shards: Path, tmp_path: Path, whole: tuple[Watch, Averaged, Trainer, Any, Path]
) -> None:
    trained(bridge_shards, tmp_path, 4)
    second, module, trainer, _ = trained(bridge_shards, tmp_path, 6, ckpt=tmp_path / "last.ckpt")
    assert second.losses == whole[0].losses[4:]
    assert torch.equal(second.trained[-1], whole[0].trained[-1])
    assert torch.equal(second.validated[-1], whole[0].validated[-1])
    assert (module.ema.updates, trainer.global_step) == (6, 6)
