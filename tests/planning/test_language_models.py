"""Language models from local folders: tokenised as one text, scored with their end, refused where a part is lacking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planning.language_model_cases import bloom, folder, llama, tokenizer
from planning.oracle import Oracle

from vlakit.errors import InvalidData, PartMissing
from vlakit.planning.choosing import Choosing
from vlakit.planning.language_models import CausalScorer, Uniform
from vlakit.planning.likelihoods import naive

PROMPT = "Human: lift it.\nRobot: 1. "
OPTIONS = ["lift red cube", "lift red", "done", "put red cube on white plate", "push blue ball left"]


def test_a_folder_scores_as_its_model_does(tmp_path: Path) -> None:
    scorer = CausalScorer.from_folder(folder(tmp_path))
    said = scorer.score(PROMPT, OPTIONS)
    assert scorer.uses_trie
    assert np.allclose(said.log_probs, naive(scorer.model, scorer.rows(PROMPT, OPTIONS)).numpy(), atol=1e-4)


def test_prompt_and_option_are_one_text_and_the_end_is_the_options() -> None:
    words = tokenizer()
    scorer = CausalScorer(llama(len(words)), words)
    rows = scorer.rows(PROMPT, OPTIONS)
    for row, begin, option in zip(rows.ids, rows.begins, OPTIONS, strict=True):
        assert list(row) == words(f"{PROMPT}{option}\n")["input_ids"]
        assert words.decode(row[begin:]).strip(" ") == f"{option}\n"  # its first token holds the prompt's last blank
    apart = words(PROMPT)["input_ids"] + words("lift red cube\n")["input_ids"]
    assert list(rows.ids[0]) != apart


def test_without_an_end_a_beginning_of_another_is_never_less_likely() -> None:
    words = tokenizer()
    model = llama(len(words))
    bare = CausalScorer(model, words, end="").score(PROMPT, OPTIONS).log_probs
    ended = CausalScorer(model, words).score(PROMPT, OPTIONS).log_probs
    assert bare[1] >= bare[0]
    assert (ended < bare).all()


def test_a_model_that_takes_no_tree_is_scored_in_batches() -> None:
    words = tokenizer()
    scorer = CausalScorer(bloom(len(words)), words)
    said = scorer.score(PROMPT, OPTIONS)
    assert scorer.uses_trie is False
    assert np.allclose(said.log_probs, naive(scorer.model, scorer.rows(PROMPT, OPTIONS)).numpy(), atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_on_which_a_tokenizer_pads_changes_nothing(side: str) -> None:
    words, whole = tokenizer(), tokenizer()
    words.padding_side = side
    for make in (llama, bloom):
        one, other = (CausalScorer(make(len(words)), each) for each in (words, whole))
        said, alone = one.score(PROMPT, OPTIONS).log_probs, other.score(PROMPT, OPTIONS[:1]).log_probs
        assert np.allclose(said[:1], alone, atol=1e-4)


@pytest.mark.parametrize("how", ["sum", "mean", "pmi"])
def test_length_norms_are_their_formulas(how: str) -> None:
    words = tokenizer()
    scorer = CausalScorer(llama(len(words)), words)
    said, empty = scorer.score(PROMPT, OPTIONS), scorer.score("", OPTIONS).log_probs
    expected = {"sum": said.log_probs, "mean": said.log_probs / said.lengths, "pmi": said.log_probs - empty}[how]
    assert np.allclose(Choosing(length_norm=how).normalized(scorer, PROMPT, OPTIONS), expected, atol=1e-4)  # pyright: ignore


def test_a_folder_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PartMissing, match="without a tokenizer"):
        CausalScorer.from_folder(folder(tmp_path / "mute", tokenized=False))
    with pytest.raises(PartMissing, match=r"no config\.json"):
        CausalScorer.from_folder(tmp_path)
    with pytest.raises(PartMissing, match=r"no file model\.gguf"):
        CausalScorer.from_folder(tmp_path, gguf="model.gguf")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PartMissing, match="no causal language model can be read"):
        CausalScorer.from_folder(tmp_path)


def test_no_option_is_refused_by_all() -> None:
    words = tokenizer()
    for scorer in (CausalScorer(llama(len(words)), words), Uniform()):
        with pytest.raises(InvalidData, match="no option"):
            scorer.score(PROMPT, [])


def test_uniform_and_oracle_are_distributions() -> None:
    for scorer in (Uniform(), Oracle(lambda prompt: ["done"])):
        assert np.exp(scorer.score(PROMPT, OPTIONS).log_probs).sum() == pytest.approx(1)
