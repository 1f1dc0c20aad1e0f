"""The registered parts are the ones their names say."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from torch.overrides import TorchFunctionMode

from vlakit.models.openvla.backbones import LANGUAGE, VISION
from vlakit.models.openvla.vla import VLASettings, build_vla
from vlakit.processing.text import words


def tensors(name: str) -> int:
    with torch.device("meta"):
        return len(VISION.build(name).state_dict())


def test_towers_hold_as_many_tensors_as_the_released_ones() -> None:
    assert tensors("siglip_so400m") == 342
    assert tensors("dinosiglip_so400m") == 343 + 342


def test_whole_models_hold_as_many_tensors_as_the_released_ones() -> None:
    for vision, count in (("dinosiglip_so400m", 982), ("siglip_so400m", 637)):
        assert len(build_vla(VLASettings(vision, "llama2_7b"), device="meta").state_dict()) == count


def test_llama_is_that_of_the_released_checkpoint() -> None:
    with torch.device("meta"):
        config = LANGUAGE.build("llama2_7b").config
    assert config.vocab_size == 32000 + 64
    assert config.rms_norm_eps == 1e-6
    assert not config.tie_word_embeddings


def test_small_llama_fits_the_shipped_words() -> None:
    config = LANGUAGE.build("tiny_llama").config
    assert (config.vocab_size, config.pad_token_id) == (words().vocab_size, words().padding_id)


def test_small_towers_agree_on_their_patches() -> None:
    assert {tower.patch_embed.num_patches for tower in VISION.build("tiny_dinosiglip").towers} == {16}
    assert len(VISION.build("tiny_siglip").towers) == 1


class Calls(TorchFunctionMode):
    """Names of the torch functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("place", "drawn"),
    [(nullcontext, True), (lambda: torch.device("meta"), False), (lambda: init_empty_weights(False), False)],
    ids=["memory", "meta", "empty"],
)
def test_weights_are_drawn_where_they_are_held_and_nowhere_else(
    place: Callable[[], AbstractContextManager[Any]], drawn: bool
) -> None:
    with place(), Calls() as calls:
        VISION.build("tiny_dinosiglip")
        VISION.build("timm", towers=["test_vit"], image_sizes=[64], act_layers=[None])
    assert ("normal_" in calls.names) == drawn
