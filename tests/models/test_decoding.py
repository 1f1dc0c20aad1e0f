"""Batched greedy decoding gives each row what it would get alone."""

import pytest
import torch
from torch import Tensor

from vlakit.models.decoding import Choice, generate, left_padded
from vlakit.models.vla import OpenVLA

PROMPTS = [[1, 40, 41, 42, 3], [1, 50, 3], [1, *range(60, 75), 3]]
ACTIONS = (1216, 1472)


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 6, 64, 64, generator=torch.Generator().manual_seed(0))


def generate_actions(
    model: OpenVLA, pixels: Tensor, prompts: list[list[int]], n: int, allowed: tuple[int, int] | None
) -> Tensor:
    return generate(model, pixels, prompts, n, Choice(allowed)).ids


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
    sequence, mask = left_padded(tiny_vla, pixels, PROMPTS)
    assert mask.sum(dim=1).tolist() == [16 + len(prompt) for prompt in PROMPTS]
    assert (mask[:, -1] == 1).all()
    assert (sequence[mask == 0] == 0).all()


def test_the_image_decides(tiny_vla: OpenVLA, pixels: Tensor) -> None:
    same_prompt = [PROMPTS[0]] * 3
    with torch.no_grad():
        first = [left_padded(tiny_vla, pixels, same_prompt)[0][i] for i in range(3)]
    assert not torch.equal(first[0], first[1])
    ids = generate_actions(tiny_vla, pixels * 20, same_prompt, 7, None)
    assert len({tuple(row) for row in ids.tolist()}) > 1
