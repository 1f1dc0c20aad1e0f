"""Parameter groups and learning-rate schedules by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vlakit.models.openvla.vla import OpenVLA
from vlakit.strategies.optim import constant, cosine, parameter_groups


def ids(group: dict[str, object]) -> list[int]:
    params = group["params"]
    assert isinstance(params, list)
    return [id(p) for p in params]


def test_vectors_and_biases_do_not_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decaying, spared = parameter_groups(module, decay_norms_and_biases=False)
    assert ids(decaying) == [id(module[0].weight)]
    assert ids(spared) == [id(p) for p in (module[0].bias, module[1].weight, module[1].bias)]
    assert spared["weight_decay"] == 0.0
    assert "weight_decay" not in decaying


def test_everything_decays_when_asked_to() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    (only,) = parameter_groups(module, decay_norms_and_biases=True)
    assert ids(only) == [id(p) for p in module.parameters()]


@pytest.mark.parametrize("decay", [True, False])
def test_each_trainable_parameter_is_in_one_group_and_no_frozen_one(tiny_vla: OpenVLA, decay: bool) -> None:
    tiny_vla.vision_backbone.requires_grad_(False)
    found = [i for group in parameter_groups(tiny_vla, decay_norms_and_biases=decay) for i in ids(group)]
    assert sorted(found) == sorted(id(p) for p in tiny_vla.parameters() if p.requires_grad)


def rates(schedule: Callable[[torch.optim.Optimizer], LambdaLR], n_steps: int) -> list[float]:
    """The learning rate of each of the first n steps, of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, seen = schedule(optimizer), []
    for _ in range(n_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_constant_is_constant() -> None:
    assert rates(lambda optimizer: constant(optimizer, 5), 8) == [1.0] * 8


def test_warm_up_rises_in_equal_steps_to_the_rate() -> None:
    assert rates(lambda optimizer: constant(optimizer, 9, warmup_steps=3), 5) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_falls_to_nothing_and_stays_there() -> None:
    seen = rates(lambda optimizer: cosine(optimizer, 4), 7)
    half = math.sqrt(0.5)
    assert seen == pytest.approx([1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0, 0.0, 0.0])


def test_cosine_ends_at_its_final_share() -> None:
    assert rates(lambda optimizer: cosine(optimizer, 4, final_share=0.1), 5)[-1] == pytest.approx(0.1)


def test_cosine_starts_behind_the_warm_up() -> None:
    seen = rates(lambda optimizer: cosine(optimizer, 6, warmup_steps=2), 7)
    assert seen[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert seen[4] == pytest.approx(0.5)
    assert seen[6] == pytest.approx(0.0)


def test_cosine_without_steps_divides_by_nothing() -> None:
    assert rates(lambda optimizer: cosine(optimizer, 0), 2) == [1.0, 0.0]
