"""Tokenizers: the shipped word list, and Llama-2's from a local folder."""

import string
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from vlakit.errors import PartMissing, UnknownName
from vlakit.processing.text import build_tokenizer

WORDS = build_tokenizer("words")
UNKNOWN = 0


def test_words_have_their_own_place_below_the_actions() -> None:
    vocabulary = WORDS.tokenizer.get_vocab()
    assert max(vocabulary.values()) < WORDS.padding_id - 256
    assert WORDS.vocab_size - WORDS.padding_id == 64
    assert [vocabulary[name] for name in ("<unk>", "<s>", "</s>")] == [0, WORDS.bos_id, WORDS.eos_id]


def test_no_word_is_listed_twice() -> None:
    assert len(set(WORDS.tokenizer.get_vocab().values())) == WORDS.tokenizer.get_vocab_size()


def test_a_known_word_is_one_id() -> None:
    assert len(WORDS.encode("robot")) == 1


@pytest.mark.parametrize("text", ["zygomatic", "qxjvw", "0123456789", "antidisestablishmentarianism", "café"])
def test_an_unknown_word_is_spelt_not_lost(text: str) -> None:
    assert UNKNOWN not in WORDS.encode(text)


@pytest.mark.parametrize("letter", string.ascii_letters + string.digits)
def test_every_letter_has_an_id_alone_and_inside_a_word(letter: str) -> None:
    assert UNKNOWN not in WORDS.encode(f"{letter} a{letter}")


def test_spelt_words_differ() -> None:
    assert WORDS.encode("zygomatic") != WORDS.encode("zygomatik")


def test_case_and_accents_do_not_matter() -> None:
    assert WORDS.encode("Put the CARROT") == WORDS.encode("put the carrot")
    assert WORDS.encode("café") == WORDS.encode("cafe")


def test_decoding_gives_the_words_back() -> None:
    assert WORDS.decode(WORDS.encode("put the zygomatic carrot")) == "put the zygomatic carrot"


def test_no_bos_or_eos_is_added() -> None:
    assert not {WORDS.bos_id, WORDS.eos_id} & set(WORDS.encode("put the carrot on the plate"))


def llama_folder(folder: Path) -> Path:
    """A stand-in with Llama's habit of putting BOS in front of what it encodes."""
    tokenizer = Tokenizer(
        WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "lift": 3, "the": 4, "pot": 5}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_llama2_loads_from_a_folder_and_adds_nothing(tmp_path: Path, golden: dict[str, Any]) -> None:
    text = build_tokenizer("llama2", str(llama_folder(tmp_path)))
    assert text.encode("lift the pot") == [3, 4, 5]
    sizes = golden["vocabulary"]
    assert (text.padding_id, text.vocab_size, text.empty_id) == tuple(
        sizes[name] for name in ("padding_id", "vocab_size", "empty_id")
    )
    assert (text.bos_id, text.eos_id) == (1, 2)


def test_llama2_without_a_folder_says_what_to_pass() -> None:
    with pytest.raises(PartMissing) as caught:
        build_tokenizer("llama2").encode("lift")
    assert "tokenizer_path" in caught.value.where
    assert "tokenizer_path=DIR" in caught.value.do


def test_llama2_in_an_empty_folder_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(PartMissing) as caught:
        build_tokenizer("llama2", str(tmp_path)).encode("lift")
    assert str(tmp_path / "tokenizer.json") in caught.value.where


def test_an_unknown_tokenizer_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        build_tokenizer("lama2")
    assert "llama2" in caught.value.do
