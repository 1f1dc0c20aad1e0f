"""The registered parts are the ones their names say."""

import torch

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
