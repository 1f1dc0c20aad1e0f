"""Laws of a denoised trajectory: where it begins, what answers depend on, what the loss is a mean of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from models.diffusion_policy.cases import NETWORKS, UNET, batch, policy, processor
from torch import nn

from vlakit.errors import CheckpointMismatch, ConfigError, PartMissing
from vlakit.models.diffusion_policy.unet import Unet
from vlakit.models.network import Likelihood, build_network, capability
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ProcessorSettings


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_learns_and_answers_have_the_shape_asked_for(name: str) -> None:
    network, given = policy(name), batch(processor())
    output = network(given)
    output.loss.backward()
    assert [key for key, one in network.named_parameters() if one.grad is None or not one.grad.any()] == []
    assert torch.isclose(output.loss, output.row_losses.mean())
    network.eval()
    assert network(given).predicted.shape == given.normalized.shape
    assert network.predict(given).shape == (3, 4, 7)


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim"])
def test_no_answer_depends_on_its_neighbours_or_on_the_one_before(scheduler: str) -> None:
    network = policy(sampler={"scheduler": scheduler, "num_train_timesteps": 10}).eval()
    given = batch(processor())
    together = network.predict(given)
    one = batch(processor(), rows=1)
    one.pixels = {camera: x[1:2] for camera, x in given.pixels.items()}
    assert given.proprio is not None
    one.proprio = given.proprio[1:2]
    torch.testing.assert_close(network.predict(one)[0], together[1], rtol=1e-4, atol=1e-5)
    assert torch.equal(network.predict(given), together)


@pytest.mark.parametrize(
    ("window", "horizon", "chunk", "executed_from", "steps"),
    [
        (2, 16, 8, None, range(1, 9)),
        (1, 8, 4, None, range(4)),
        (2, 16, 8, 2, range(2, 10)),
        (3, 4, 8, None, range(2, 4)),
    ],
)
def test_the_part_carried_out_begins_with_the_present(
    window: int, horizon: int, chunk: int, executed_from: int | None, steps: range
) -> None:
    of = processor(window=window, horizon=horizon, chunk=chunk)
    network = policy(of=of, executed_from=executed_from)
    index = torch.arange(network.length)[None, :, None].expand(2, -1, 7)
    assert network.executed(index)[0, :, 0].tolist() == list(steps)


def test_a_horizon_that_a_unet_cannot_halve_is_padded_within_the_network() -> None:
    of = processor(window=1, horizon=1, chunk=8)
    network, given = policy(of=of).eval(), batch(of)
    assert (of.settings.chunk, network.length) == (1, 2)
    assert network.predict(given).shape == (3, 1, 7)
    assert network(given).predicted.shape == (3, 1, 7)


def test_a_unet_of_one_level_halves_nothing() -> None:
    of = processor(horizon=7)
    assert policy(of=of, options={**UNET, "widths": [16]}).length == 7


def test_the_loss_under_several_noises_is_the_mean_of_single_losses() -> None:
    network, given = policy(noise_samples=8), batch(processor(), rows=2)
    torch.manual_seed(3)
    together = network(given)
    torch.manual_seed(3)
    seen = network.seen(given)
    trajectory, known = network.trajectory(given.normalized, seen)
    noise = torch.randn(16, *trajectory.shape[1:]).unflatten(0, (2, 8))
    steps = torch.randint(10, (16,)).unflatten(0, (2, 8))
    single = [network.errors(trajectory, noise[:, i], steps[:, i], seen, known).mean() for i in range(8)]
    torch.testing.assert_close(together.loss, torch.stack(single).mean())


def test_what_lies_outside_the_episode_carries_no_loss() -> None:
    network, given = policy().eval(), batch(processor(), rows=2)
    given.chunk_mask = given.chunk_mask.clone()
    given.chunk_mask[0, 3:] = False
    given.chunk_mask[1] = False
    output = network(given)
    assert output.row_losses.isnan().tolist() == [False, True]
    torch.testing.assert_close(output.loss, output.row_losses[0])


def test_padding_of_the_instruction_changes_nothing_but_in_droids_sum() -> None:
    of = processor()
    short = batch(of)
    assert short.text is not None
    ids, mask = (torch.nn.functional.pad(x, (0, 5), value=v) for x, v in ((short.text.ids, 1472), (short.text.mask, 0)))
    long = replace(short, text=replace(short.text, ids=ids, mask=mask, labels=torch.full_like(ids, -100)))
    for pool, same in (("mean", True), ("sum", True), ("sum_padded", False)):
        network = policy(of=of, pool=pool).eval()
        assert torch.allclose(network.seen(short), network.seen(long)) == same


def test_cameras_have_group_norm_and_a_shared_network_keeps_its_batch_norm() -> None:
    def norms(**options: Any) -> set[type[nn.Module]]:
        modules = policy(vision="resnet18", **options).obs_encoder.modules()
        return {type(one) for one in modules if isinstance(one, nn.GroupNorm | nn.modules.batchnorm._BatchNorm)}

    assert norms() == {nn.GroupNorm}
    assert all(issubclass(one, nn.BatchNorm2d) for one in norms(shared=True))


def test_crops_are_central_in_use_and_differ_between_frames_in_training() -> None:
    cameras = policy(crop=24).obs_encoder
    picture = torch.arange(32 * 32).float().view(1, 1, 32, 32).expand(64, 3, -1, -1)
    assert torch.equal(cameras.eval().cropped(picture), picture[..., 4:28, 4:28])
    cropped = cameras.train().cropped(picture)
    assert cropped.shape == (64, 3, 24, 24)
    corners = cropped[:, 0, 0, 0].long()
    assert len(set(corners.tolist())) > 20
    assert {int(c) // 32 for c in corners} <= set(range(9)) >= {int(c) % 32 for c in corners}
    assert torch.equal(cropped[:, 0] - corners[:, None, None], picture[:, 0, :24, :24])


def test_absolute_targets_are_poses_from_the_present_one_and_come_back_as_steps() -> None:
    of = processor(window=2)
    network, given = policy(of=of, targets="absolute"), batch(of)
    assert network.targets is not None
    assert given.proprio is not None
    poses = network.targets.there(given.normalized, given)
    steps = torch.from_numpy(of.physical(given.normalized.numpy(), ["one"] * 3))  # metres and radians
    torch.testing.assert_close(
        poses[:, 1, :2], given.proprio[:, -1, :2] + steps[:, 1, :2]
    )  # proprio spans -1 to 1 here
    torch.testing.assert_close(poses[:, 3, :2] - poses[:, 1, :2], steps[:, 2:4, :2].sum(dim=1))
    assert torch.equal(poses[..., 6:], given.normalized[..., 6:])
    torch.testing.assert_close(network.targets.back(poses, given)[:, 1:], given.normalized[:, 1:], atol=1e-5, rtol=1e-4)
    network.eval()
    assert network.predict(given).shape == (3, 4, 7)


def test_parameter_counts_are_the_originals() -> None:
    """Counted in the original: 307.0 M with two cameras and nine numbers, ten actions; 65.8 M of low dimensions."""
    with torch.device("meta"):
        picture = Unet(10, seen=2 * (2 * 512 + 9), widths=[512, 1024, 2048], time_width=128)
    assert round(sum(one.numel() for one in picture.parameters()) / 1e6, 1) == 307.0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"backbone": "unett"}, "unet"),
        ({"condition": "globl"}, "global"),
        ({"sampler": {"scheduler": "dpm"}}, "ddpm"),
        ({"sampler": {"scheduler": "ddim", "steps": 200}}, "num_train_timesteps"),
        ({"sampler": {"scheduler": "ddim", "betas": 3}}, "beta_schedule"),
        ({"sampler": {"scheduler": "ddim", "prediction_type": "v_prediction"}}, "sample"),
        ({"options": {**UNET, "widths": [12, 32]}}, "multiples"),
        ({"crop": 40}, "crop less"),
        ({"pool": "max"}, "mean"),
        ({"targets": "absolut"}, "absolute"),
        ({"targets": "absolute", "of": processor(proprio=0)}, "targets=relative"),
    ],
)
def test_a_setting_that_it_lacks_is_refused_in_words(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(**change)
    assert word in caught.value.do


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"noise_samples": 0}, "0 noises"),
        ({"executed_from": 99}, "from number 99"),
        ({"executed_from": -1}, "from number -1"),
        ({"of": processor(normalization="normal")}, "one standard deviation"),
    ],
)
def test_numbers_under_which_nothing_is_learnt_or_answered_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        policy(**change)
    wide = {"scheduler": "ddim", "clip_sample_range": 5.0}
    assert policy(of=processor(normalization="normal"), sampler=wide).sampler.scheduler.config["clip_sample_range"] == 5


def test_other_things_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="widthss"):
        policy(options={"widthss": [16, 32]})
    plain = Processor(ProcessorSettings(image_size=32, channel_statistics=("half",)))
    with pytest.raises(CheckpointMismatch, match="kind"):
        build_network({"kind": "diffusion_policy"}, plain)
    given = batch(processor())
    with pytest.raises(ConfigError, match="action_size"):
        policy(action_size=6)(given)
    with pytest.raises(PartMissing, match="Likelihood"):
        capability(policy(), Likelihood, purpose="log_prob")
