"""Batched greedy decoding gives each row what it would get alone."""

import pytest
import torch
from torch import Tensor

from vlakit.models.adapters import LoraNumbers, inject_lora
from vlakit.models.openvla.decoding import Choice, answer_log_probs, generate, head_rows, left_padded
from vlakit.models.openvla.vla import OpenVLA

PROMPTS = [[1, 40, 41, 42, 3], [1, 50, 3], [1, *range(60, 75), 3]]
ACTIONS = (1216, 1472)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 6, 64, 64, generator=torch.Generator().manual_seed(0))


def generate_actions(
    model: OpenVLA, pixels: Tensor, prompts: list[list[int]], n: int, allowed: tuple[int, int] | None
) -> Tensor:
    return generate(model, model.encode_image(pixels), prompts, n, Choice(allowed)).ids


@torch.no_grad()
def without_a_cache(model: OpenVLA, image: Tensor, prompt: list[int], n: int) -> list[int]:
    """The arg max of a whole forward for every token."""
    ids = torch.tensor([prompt])
    for _ in range(n):
        hidden = model.hidden_states(model.splice(model.encode_image(image[None]), ids))
        ids = torch.cat([ids, model.language_model.lm_head(hidden[:, -1]).argmax(dim=-1)[:, None]], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("allowed", [None, ACTIONS], ids=["free", "constrained"])
def test_mixed_lengths_decode_as_single_calls(
    tiny_vla: OpenVLA, pixels: Tensor, allowed: tuple[int, int] | None
) -> None:
    together = generate_actions(tiny_vla, pixels, PROMPTS, 7, allowed)
    for i, prompt in enumerate(PROMPTS):
        assert torch.equal(generate_actions(tiny_vla, pixels[i : i + 1], [prompt], 7, allowed)[0], together[i])


def test_cached_steps_equal_whole_forwards(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    together = generate_actions(tiny_vla, pixels, PROMPTS, 7, None)
    for i, prompt in enumerate(PROMPTS):
        assert together[i].tolist() == without_a_cache(tiny_vla, pixels[i], prompt, 7)


def test_the_order_of_rows_does_not_matter(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    there = generate_actions(tiny_vla, pixels, PROMPTS, 7, None)
    back = generate_actions(tiny_vla, pixels.flip(0), PROMPTS[::-1], 7, None)
    assert torch.equal(back.flip(0), there)


def test_constrained_ids_are_actions_though_the_model_would_say_others(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    free = generate_actions(tiny_vla, pixels, PROMPTS, 7, None)
    ids = generate_actions(tiny_vla, pixels, PROMPTS, 7, ACTIONS)
    assert ids.shape == (3, 7)
    assert ((ids >= ACTIONS[0]) & (ids < ACTIONS[1])).all()
    assert ((free < ACTIONS[0]) | (free >= ACTIONS[1])).any()


def test_a_constraint_to_one_id_leaves_no_choice(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    assert (generate_actions(tiny_vla, pixels, PROMPTS, 2, (1300, 1301)) == 1300).all()


@torch.no_grad()
def test_shorter_prompts_are_padded_in_front(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    sequence, mask = left_padded(tiny_vla, tiny_vla.encode_image(pixels), PROMPTS)
    assert mask.sum(dim=1).tolist() == [16 + len(prompt) for prompt in PROMPTS]
    assert (mask[:, -1] == 1).all()
    assert (sequence[mask == 0] == 0).all()


def test_the_image_decides(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    same_prompt = [PROMPTS[0]] * 3
    with torch.no_grad():
        first = [left_padded(tiny_vla, tiny_vla.encode_image(pixels), same_prompt)[0][i] for i in range(3)]
    assert not torch.equal(first[0], first[1])
    log_probs = generate(tiny_vla, tiny_vla.encode_image(pixels), same_prompt, 7, Choice()).log_probs
    assert len({tuple(row) for row in log_probs.tolist()}) == 3


def test_at_temperature_zero_sampling_is_the_largest_logit_and_batches_as_single_calls(
    tiny_vla: OpenVLA, pixels: Tensor
) -> None:
    choice = Choice(ACTIONS, 0.0, torch.Generator().manual_seed(1))
    together = generate(tiny_vla, tiny_vla.encode_image(pixels), PROMPTS, 7, choice)
    assert torch.equal(together.ids, generate_actions(tiny_vla, pixels, PROMPTS, 7, ACTIONS))
    for i, prompt in enumerate(PROMPTS):
        alone = generate(tiny_vla, tiny_vla.encode_image(pixels[i : i + 1]), [prompt], 7, choice)
        assert torch.equal(alone.ids[0], together.ids[i])
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("allowed", [None, ACTIONS], ids=["free", "constrained"])
def test_recorded_log_probabilities_are_those_of_one_whole_forward(
    tiny_vla: OpenVLA, pixels: Tensor, allowed: tuple[int, int] | None, temperature: float
) -> None:
    decoded = generate(
        tiny_vla,
        tiny_vla.encode_image(pixels),
        PROMPTS,
        7,
        Choice(allowed, temperature, torch.Generator().manual_seed(2)),
    )
    again = answer_log_probs(tiny_vla, tiny_vla.encode_image(pixels), PROMPTS, decoded.ids, allowed)
    torch.testing.assert_close(again.detach(), decoded.log_probs, atol=1e-5, rtol=0)
    assert (decoded.log_probs < 0).all()


def test_allowed_ids_share_all_the_probability(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    answers = torch.arange(*ACTIONS)[:, None]  # every first id there is
    rows = answer_log_probs(
        tiny_vla, tiny_vla.encode_image(pixels[:1].expand(256, -1, -1, -1)), [PROMPTS[0]] * 256, answers, ACTIONS
    )
    assert float(rows.detach().exp().sum()) == pytest.approx(1, abs=1e-4)


def test_samples_differ_between_seeds_and_not_within_one(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    def drawn(seed: int) -> list[list[int]]:
        choice = Choice(ACTIONS, 1.0, torch.Generator().manual_seed(seed))
        return generate(tiny_vla, tiny_vla.encode_image(pixels), PROMPTS, 7, choice).ids.tolist()

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_gradients_reach_every_part_through_rows_of_mixed_lengths(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    answers = torch.full((3, 7), 1300)
    answer_log_probs(tiny_vla, tiny_vla.encode_image(pixels), PROMPTS, answers, ACTIONS).sum().backward()
    parts = {
        "tower": tiny_vla.vision_backbone.featurizer.patch_embed.proj.weight,
        "projector": tiny_vla.projector.fc1.weight,
        "attention": tiny_vla.get_parameter("language_model.model.layers.0.self_attn.q_proj.weight"),
        "head": tiny_vla.language_model.lm_head.weight,
    }
    for name, parameter in parts.items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", ["plain", "biased", "adapted", "switched off", "merged", "wrapped"])
@torch.no_grad()
def test_rows_of_the_head_are_a_slice_of_the_whole(tiny_vla: OpenVLA, kind: str) -> None:
    hidden = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(3))
    head: torch.nn.Module = tiny_vla.language_model.lm_head
    if kind == "biased":
        head = torch.nn.Linear(128, 1536)
    if kind in ("adapted", "switched off", "merged"):
        inject_lora(tiny_vla, LoraNumbers(4, 8))
        head = tiny_vla.get_submodule("language_model.lm_head")
        torch.nn.init.normal_(head.get_parameter("lora_B.default.weight"))
    if kind == "switched off":
        head.enable_adapters(False)  # pyright: ignore[reportCallIssue]  peft's layer
    if kind == "merged":
        head.merge()  # pyright: ignore[reportCallIssue]  peft's layer
    if kind == "wrapped":
        head = torch.nn.Sequential(head)
    expected = head(hidden)[..., ACTIONS[0] : ACTIONS[1]]
    torch.testing.assert_close(head_rows(head, hidden, *ACTIONS), expected, atol=1e-5, rtol=1e-5)
