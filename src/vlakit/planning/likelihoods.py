"""log p(option | prompt) of many options under one causal language model: each alone, or all in one masked forward.

Both read token ids only. The trie's nodes are the options' tokens, each once where options begin alike; a node sees the
prompt and its own ancestors. Sums are in float64 over float32 log-softmaxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vlakit.errors import InvalidData

Ids: TypeAlias = Sequence[int]


@dataclass(frozen=True)
class Rows:
    """The ids of a prompt with each of N options, and in each where the option's own ids begin.

    Raises InvalidData for no option, for one without ids, and where nothing comes before it.
    """

    ids: Sequence[Ids]
    begins: Sequence[int]

    def __post_init__(self) -> None:
        if not self.ids:
            raise InvalidData("there is no option to score", where="options", do="give one skill or more")
        for row, begin in zip(self.ids, self.begins, strict=True):
            if not 0 < begin < len(row):
                what = "an option without a token" if begin else "no token comes before an option"
                raise InvalidData(what, where=f"{len(row)} ids", do="give options, and a prompt, that are not empty")

    @classmethod
    def of(cls, prompt: Ids, options: Sequence[Ids]) -> Rows:
        """Options that were tokenised apart from the prompt."""
        return cls([[*prompt, *option] for option in options], [len(prompt)] * len(options))

    @property
    def lengths(self) -> list[int]:
        """How many ids each option has."""
        return [len(row) - begin for row, begin in zip(self.ids, self.begins, strict=True)]

    @property
    def n_shared(self) -> int:
        """How many ids all rows begin with, of those before any option."""
        most = min(self.begins)
        return next((i for i in range(most) if len({row[i] for row in self.ids}) > 1), most)


@torch.inference_mode()
def naive(model: Any, rows: Rows, *, batch_size: int = 1) -> Tensor:
    """(N,) float64: a whole forward for each row, `batch_size` at a time, padded on the right."""
    sums: list[Tensor] = []
    device = next(model.parameters()).device
    for first in range(0, len(rows.ids), batch_size):
        ids, begins = rows.ids[first : first + batch_size], rows.begins[first : first + batch_size]
        tensors = [torch.as_tensor(list(row), device=device) for row in ids]
        padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True)
        logits = model(input_ids=padded, attention_mask=mask, use_cache=False).logits
        for row, begin, one in zip(tensors, begins, logits, strict=True):
            log_probs = _log_softmax(one[begin - 1 : len(row) - 1])
            sums.append(log_probs.gather(1, row[begin:, None]).double().sum())
    return torch.stack(sums).cpu()


@dataclass(frozen=True)
class Trie:
    """Nodes in an order in which parents come first; node 0 is the last id that all rows share.

    paths: of each row, the nodes of its ids behind node 0.
    """

    ids: list[int]
    parents: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, rows: Rows) -> Trie:
        """The tree of what follows the shared ids."""
        shared = rows.n_shared
        ids, parents, paths = [rows.ids[0][shared - 1]], [-1], list[list[int]]()
        children: dict[tuple[int, int], int] = {}
        for row in rows.ids:
            node, path = 0, list[int]()
            for one in row[shared:]:
                if (node, one) not in children:
                    children[node, one] = len(ids)
                    ids.append(one)
                    parents.append(node)
                node = children[node, one]
                path.append(node)
            paths.append(path)
        return cls(ids, parents, paths)

    def seen(self) -> Tensor:
        """(n, n) bool: which nodes a node sees, itself and its ancestors; depths are the sums of rows, less 1."""
        seen = torch.eye(len(self.ids), dtype=torch.bool)
        for node, parent in enumerate(self.parents[1:], start=1):
            seen[node] |= seen[parent]
        return seen


class TrieScorer:
    """One masked forward for all options; what a prompt shares with the last one is not computed again."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._prompt: list[int] = []
        self._cache: Any = None

    @torch.inference_mode()
    def __call__(self, rows: Rows) -> Tensor:
        """(N,) float64. Raises InvalidData where rows differ from their first id on."""
        if rows.n_shared == 0:
            raise InvalidData("prompts of the options have nothing in common", where="options", do="score them apart")
        trie = Trie.of(rows)
        before = list(rows.ids[0][: rows.n_shared - 1])  # node 0, whose logits are needed, is not cached
        log_probs = self._log_probs(before, trie)
        sums = []
        for path, begin in zip(trie.paths, rows.begins, strict=True):
            own = [*pairwise([0, *path])][begin - rows.n_shared :]
            at = torch.tensor(own)
            sums.append(log_probs[at[:, 0], torch.tensor(trie.ids)[at[:, 1]]].double().sum())
        return torch.stack(sums)

    def _log_probs(self, before: list[int], trie: Trie) -> Tensor:
        """(n, V) float32 of what may follow each node."""
        device, dtype = next(self.model.parameters()).device, next(self.model.parameters()).dtype
        cache, seen = self._remembered(before), trie.seen()
        everything = torch.cat([torch.ones(len(seen), len(before), dtype=torch.bool), seen], dim=1)
        mask = torch.zeros(everything.shape, dtype=dtype).masked_fill(~everything, torch.finfo(dtype).min)
        logits = self.model(
            input_ids=torch.tensor([trie.ids], device=device),
            attention_mask=mask[None, None].to(device),  # (1, 1, n, P + n)
            position_ids=(len(before) + seen.sum(1) - 1)[None].to(device),
            past_key_values=cache,
            use_cache=True,
        ).logits[0]
        if cache is not None:
            cache.crop(-len(trie.ids))  # negative: how many to drop
            self._cache, self._prompt = cache, before
        return _log_softmax(logits).cpu()

    def _remembered(self, before: list[int]) -> Any:
        """Keys and values of these ids, those kept from the last prompt first."""
        kept = next((i for i, (a, b) in enumerate(zip(self._prompt, before, strict=False)) if a != b), None)
        kept = min(len(self._prompt), len(before)) if kept is None else kept
        dropped = len(self._prompt) - kept
        cache, self._cache, self._prompt = self._cache, None, []  # nothing half done is kept if a forward fails
        if not kept:
            cache = None  # the model makes one of its kind
        elif dropped:
            cache.crop(-dropped)
        if before[kept:]:
            device = next(self.model.parameters()).device
            cache = self.model(
                input_ids=torch.tensor([before[kept:]], device=device),
                position_ids=torch.arange(kept, len(before), device=device)[None],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).past_key_values
        return cache


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(dim=-1)
