"""Options' likelihoods: the trie is what forwards of their own say, however they are laid out."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from planning.language_model_cases import gpt2, llama

from vlakit.errors import InvalidData
from vlakit.planning.likelihoods import Rows, Trie, TrieScorer, naive

PROMPT = [1, 5, 9, 2, 7]
OPTIONS = [[3, 4, 0], [3, 4, 5, 6, 0], [3, 4], [8], [8, 8, 0], [3, 4, 0]]


@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_trie_is_forwards_of_their_own(make) -> None:
    model = make(12)
    rows = Rows.of(PROMPT, OPTIONS)
    assert torch.allclose(TrieScorer(model)(rows), naive(model, rows), atol=1e-4)


@pytest.mark.parametrize("size", [2, 6, 100])
def test_batches_and_order_change_nothing(size: int) -> None:
    model, order = llama(12), [5, 0, 3, 1, 4, 2]
    plain = naive(model, Rows.of(PROMPT, OPTIONS))
    turned = Rows.of(PROMPT, [OPTIONS[i] for i in order])
    assert torch.allclose(naive(model, turned, batch_size=size), plain[order], atol=1e-4)
    assert torch.allclose(TrieScorer(model)(turned), plain[order], atol=1e-4)


def test_what_a_prompt_shares_with_the_last_is_kept_and_changes_nothing() -> None:
    model = llama(12)
    scorer = TrieScorer(model)
    for prompt in ([1, 5, 9], [1, 5, 9, 2, 2], [1, 5, 3], [4], [1], [1, 5, 3], [1, 5, 3]):
        rows = Rows.of(prompt, OPTIONS)
        assert torch.allclose(scorer(rows), naive(model, rows), atol=1e-4), prompt


def test_prompts_whose_last_tokens_differ_by_option_share_what_they_can() -> None:
    model = llama(12)
    rows = Rows([[1, 2, 3, 4], [1, 2, 5, 6, 4], [1, 2, 3, 7]], [3, 4, 2])
    assert rows.n_shared == 2
    assert torch.allclose(TrieScorer(model)(rows), naive(model, rows), atol=1e-4)


def test_options_that_are_all_there_is_have_probabilities_of_sum_1() -> None:
    """Two tokens, each option two long: the tree is enumerated."""
    model = llama(2)
    options = [list(pair) for pair in product((0, 1), repeat=2)]
    assert float(TrieScorer(model)(Rows.of([0, 1, 1], options)).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_a_trie_has_each_beginning_once() -> None:
    trie = Trie.of(Rows.of(PROMPT, OPTIONS))
    assert len(trie.ids) == 1 + len({tuple(one[: i + 1]) for one in OPTIONS for i in range(len(one))})
    depth = trie.seen().sum(1).numpy() - 1
    assert [depth[path[-1]] for path in trie.paths] == [len(one) for one in OPTIONS]


def test_empty_lists_options_and_prompts_are_refused() -> None:
    for prompt, options in ((PROMPT, []), (PROMPT, [[3], []]), ([], [[3]])):
        with pytest.raises(InvalidData):
            Rows.of(prompt, options)
