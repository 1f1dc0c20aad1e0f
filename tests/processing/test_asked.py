"""What a policy is asked: pictures of any make or a refusal, instructions as text, answers that are numbers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rlds_cases import episode, write

from vlakit.checkpoints.card import Card
from vlakit.data.shards.convert import convert
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.errors import ActionNotFinite, InvalidData
from vlakit.models.openvla.vla import OpenVLA
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Observation

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.parametrize("image", [Image.fromarray(PIXELS), torch.as_tensor(PIXELS), PIXELS])
def test_a_pil_image_or_a_tensor_is_seen_as_the_array_is(tiny_processor: TokenProcessor, image: Any) -> None:
    expected = tiny_processor.observe([Observation.of(PIXELS, "lift the cube")]).pixels["primary"]
    for one in (Observation.of(image, "lift the cube"), Observation({"primary": [image]}, "lift the cube")):  # type: ignore[dict-item]
        assert torch.equal(tiny_processor.observe([one]).pixels["primary"], expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Path("a.jpg"), "a file or its bytes"),
        ("a.jpg", "a file or its bytes"),
        (b"\xff\xd8", "a file or its bytes"),
        (None, "this is a NoneType"),
        (Image.fromarray(PIXELS).convert("L"), r"shape \(48, 64\)"),
        (Image.fromarray(PIXELS).convert("RGBA"), r"shape \(48, 64, 4\)"),
        (torch.as_tensor(PIXELS).permute(2, 0, 1), r"shape \(3, 48, 64\)"),
        (PIXELS / np.float32(255), "type float32"),
        (torch.zeros(48, 64, 3, dtype=torch.bfloat16), "shows no picture"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(tiny_processor: TokenProcessor, image: Any, message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        tiny_processor.observe([Observation.of(image, "lift the cube")])


def test_a_picture_in_place_of_named_cameras_is_refused_with_what_to_write(tiny_processor: TokenProcessor) -> None:
    with pytest.raises(InvalidData, match="not camera -> pictures") as caught:
        tiny_processor.observe([Observation(Image.fromarray(PIXELS), "lift the cube")])  # type: ignore[arg-type]
    assert "Observation.of" in caught.value.do


@pytest.mark.parametrize("instruction", ["", "  \n", b"lift the cube", None, 3])
def test_an_instruction_is_text_that_says_something(tiny_processor: TokenProcessor, instruction: Any) -> None:
    with pytest.raises(InvalidData, match="the instruction is"):
        tiny_processor.observe([Observation.of(PIXELS, instruction)])


def test_unknown_words_are_named_once(tiny_processor: TokenProcessor, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("lift the cube", "lift the 方块", "lift the 方块", "Déjà vu, 拿起 方块"):
        tiny_processor.observe([Observation.of(PIXELS, text)])
    named = [record.getMessage().partition("know: ")[2] for record in caplog.records]
    assert named == ["方块", "拿起"]


def test_two_instructions_that_become_the_same_ids_are_refused_before_training(
    tiny_processor: TokenProcessor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["拿起红色的杯子", "推动蓝色的方块", "lift the cube"]
    folder, spec = write(tmp_path, [episode(seed, text=texts[seed % 3].encode()) for seed in range(6)])
    convert(folder, tmp_path / "shards" / "toy", spec)
    with pytest.raises(InvalidData, match="become the same ids"):
        VLADataModule(tiny_processor, {"toy": 1.0}, str(tmp_path / "shards"), batch_size=2, seed=0)
    assert "does not know: 拿起红色的杯子, 推动蓝色的方块" in caplog.text


def test_writing_that_differs_in_case_and_spaces_alone_is_one_instruction(tiny_processor: TokenProcessor) -> None:
    tiny_processor.check_instructions(
        ["Lift the  cube", "lift the cube", "PUT 杯 down", "put 杯  down", "push 杯子 away"]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_policy_never_returns_a_number_that_is_not_finite(tiny_processor: TokenProcessor, value: float) -> None:
    answers = np.zeros((2, 1, 7), np.float32)
    answers[1, 0, 6] = value
    with pytest.raises(ActionNotFinite, match="the policy's answer is not a number"):
        tiny_processor.physical(answers, ["bridge_orig", None])
    wide = replace(tiny_processor.statistics["bridge_orig"], q99=np.full(7, 1e300))
    huge = TokenProcessor(tiny_processor.settings, {"bridge_orig": wide})
    with pytest.raises(ActionNotFinite), np.errstate(over="ignore"):
        huge.physical(np.ones((1, 1, 7), np.float32), ["bridge_orig"])


def test_no_observation_at_all_is_refused_in_words(tiny_processor: TokenProcessor) -> None:
    with pytest.raises(InvalidData, match="a batch of 0 observations"):
        tiny_processor.observe([])


def test_proprio_that_is_not_finite_is_refused(tiny_processor: TokenProcessor) -> None:
    settings = replace(tiny_processor.settings, proprio=2)
    numbers = {name: np.array([0.0, 1.0]) for name in ("q01", "min")} | {
        name: np.ones(2) * 2 for name in ("q99", "max")
    }
    statistics = replace(tiny_processor.statistics["bridge_orig"], proprio=numbers)
    processor = TokenProcessor(settings, {"bridge_orig": statistics})
    seen = Observation({"primary": PIXELS[None]}, "lift", None, np.array([[0.5, np.nan]], np.float32))
    with pytest.raises(InvalidData, match="proprio is not finite"):
        processor.observe([seen])


def test_another_aspect_ratio_than_in_training_is_warned_of_once(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    card = Card(tiny_vla.description, tiny_processor.description, {})
    card.surroundings["bridge_orig"] = {"camera": "primary", "picture": [320, 240]}
    policy = TrainedPolicy(tiny_vla, tiny_processor, card)
    caplog.set_level(logging.WARNING)
    policy.act([Observation.of(PIXELS, "lift the cube")])  # 64 x 48: the same
    assert caplog.text == ""
    for _ in range(2):
        policy.act([Observation.of(PIXELS[:, :48], "lift the cube")])
    assert caplog.text.count("the camera shows 48 x 48 pictures, the policy was trained on 320 x 240") == 1


def test_the_picture_of_training_is_in_the_surroundings_unless_the_conversion_squashed_it(
    tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    folder, spec = write(tmp_path, [episode(seed) for seed in range(3)])
    for side, expected in ((None, [32, 32]), (16, None)):
        convert(folder, tmp_path / str(side) / "toy", spec, image_size=side)
        data = VLADataModule(tiny_processor, {"toy": 1.0}, str(tmp_path / str(side)), batch_size=2, seed=0)
        assert data.surroundings["toy"].get("picture") == expected
