"""What values look at: a policy's state once told a skill, a picture read once for all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vlakit.errors import PartMissing, UnknownName
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.models.openvla.decoding import after_prompts
from vlakit.models.openvla.told import states_behind
from vlakit.models.openvla.vla import OpenVLA
from vlakit.planning.looks import look_of
from vlakit.planning.skills import library
from vlakit.planning.values import Fit, Tries
from vlakit.policy import TrainedPolicy
from vlakit.schema import Observation

SKILLS = library(load_embodiment("d0"))
PROMPTS = [[1, *range(40, 40 + n), 3] for n in (2, 9, 5, 5, 14)]


@pytest.fixture(scope="module")
def tiny() -> TrainedPolicy:
    return TrainedPolicy.from_checkpoint("tiny")


def pictures(n: int) -> list[Observation]:
    noise = np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    return [Observation.of(one, "wait", "tabletop_d0") for one in noise]


@torch.inference_mode()
@pytest.mark.parametrize("at_once", [64, 2])
def test_states_behind_one_picture_are_those_of_prompts_alone(tiny_vla: OpenVLA, at_once: int) -> None:
    context = tiny_vla.encode_image(torch.randn(3, 6, 64, 64, generator=torch.Generator().manual_seed(0)))
    together = states_behind(tiny_vla, context, PROMPTS, at_once)
    for row in range(3):
        for place, prompt in enumerate(PROMPTS):
            alone = after_prompts(tiny_vla, context[row : row + 1], [prompt])[0, -1]
            torch.testing.assert_close(together[row, place], alone, rtol=1e-4, atol=1e-4)


def test_all_skills_look_as_each_asked_for_alone(tiny: TrainedPolicy) -> None:
    see, shown = look_of("state", tiny, SKILLS), pictures(2)
    everything = see(shown, None)
    assert everything.shape[:3] == (2, len(SKILLS), 1)
    for skill in (0, 60, 155):
        assert np.allclose(see(shown, [skill, skill]), everything[:, skill], atol=1e-3)
    assert np.array_equal(look_of("patches", tiny, SKILLS)(shown, None), tiny.features(shown))


def test_values_of_all_skills_are_each_by_its_own_look() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 1, 8)).astype(np.float32)
    tries = Tries(features, rng.integers(0, len(SKILLS), 40), features[:, 0, 0] > 0, np.arange(40))
    network = Fit(epochs=1)(tries, SKILLS).network
    looks = rng.standard_normal((2, len(SKILLS), 1, 8)).astype(np.float32)
    values = network.values(looks)
    for skill in (0, 60, 155):
        assert np.allclose(values[:, skill], network.values(looks[:, skill])[:, skill], atol=1e-6)


def test_what_cannot_be_looked_at_is_refused(tiny: TrainedPolicy) -> None:
    with pytest.raises(UnknownName, match="patches"):
        look_of("patch", tiny, SKILLS)
    network = tiny.network
    assert isinstance(network, OpenVLA)
    before = network.senses
    network.senses = replace(before, film=True)
    try:
        with pytest.raises(PartMissing, match="FiLM"):
            network.told(tiny.observed(pictures(1)), PROMPTS)
    finally:
        network.senses = before
