"""Language models that score skills: any causal one of Hugging Face in a local folder, and two that know nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlakit.errors import InvalidData, PartMissing
from vlakit.files import ASSETS
from vlakit.models.network import tensors_hash
from vlakit.planning.choosing import Likelihoods
from vlakit.planning.likelihoods import Rows, TrieScorer, naive

log = logging.getLogger(__name__)
AGREES = 1e-3  # nats between the trie and plain forwards; rounding is a hundredth of it
SHIPPED = {"tiny": ASSETS / "tiny_lm"}  # name -> folder; about a million parameters, no world knowledge: its README.md
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")


class CausalScorer:
    """A causal language model and its tokenizer. end: what closes an option and is scored with it; "" for nothing.

    All options go through one masked forward. The first time, the longest is also scored alone: a model that does not
    heed such a mask (a recurrent one, one with its own positions) is scored in padded batches from then on.
    """

    def __init__(self, model: Any, tokenizer: Any, *, end: str = "\n", name: str = "", batch_size: int = 8) -> None:
        self.model, self.tokenizer, self.end, self.batch_size = model.eval(), tokenizer, end, batch_size
        self.name = name or type(model).__name__
        self._trie = TrieScorer(self.model)
        self.uses_trie: bool | None = None  # not known before the first prompt

    @classmethod
    def from_folder(cls, folder: str | Path, *, gguf: str | None = None, end: str = "\n") -> CausalScorer:
        """The model of a local folder, or "tiny", in float32; gguf: the name of a GGUF file in it, for that package.

        Nothing is downloaded. Raises PartMissing for a folder without a model or a tokenizer, or where gguf is lacking.
        """
        place = SHIPPED.get(str(folder)) or Path(folder).expanduser()
        _check_files(place, gguf)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options: dict[str, Any] = {"local_files_only": True, **({"gguf_file": gguf} if gguf else {})}
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
        except ImportError as error:
            raise PartMissing(
                str(error).strip().splitlines()[0], where=str(place), do="pip install 'vlakit[llm]'"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            what = f"no causal language model can be read: {str(error).strip().splitlines()[0]}"
            raise PartMissing(what, where=str(place), do="give the folder that save_pretrained wrote") from error
        if not tokenizer.is_fast:
            raise PartMissing("its tokenizer says no offsets", where=str(place), do="save it as tokenizer.json")
        size = sum(parameter.numel() for parameter in model.parameters())
        return cls(model, tokenizer, end=end, name=f"{place.name} ({size:,} parameters)")

    @cached_property
    def content_hash(self) -> str:
        """sha256 (hex) of the weights and of what closes an option."""
        return tensors_hash(self.model, repr(self.end).encode())

    def score(self, prompt: str, options: Sequence[str]) -> Likelihoods:
        """log p of each option with its end, as what follows the prompt. Raises InvalidData for no option."""
        rows = self.rows(prompt, options)
        return Likelihoods(self._scored(rows), np.array(rows.lengths))

    def rows(self, prompt: str, options: Sequence[str]) -> Rows:
        """Prompt and option are tokenised as one text: apart, their tokens could not join as in what the model read.

        A token that is partly of the prompt is the option's. Where nothing is before an option, the id that begins or
        ends texts.
        """
        if not options:
            raise InvalidData("there is no option to score", where="options", do="give one skill or more")
        ids, begins = list[list[int]](), list[int]()
        for option in options:
            encoded = self.tokenizer(prompt + option + self.end, return_offsets_mapping=True, add_special_tokens=False)
            before = sum(stop <= len(prompt) for _, stop in encoded["offset_mapping"])
            ids.append([*self._first, *encoded["input_ids"]])
            begins.append(len(self._first) + before)
        if min(begins) > 0:
            return Rows(ids, begins)
        known = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, 0]
        begin = next(one for one in known if one is not None)
        return Rows([[begin, *row] for row in ids], [one + 1 for one in begins])

    @cached_property
    def _first(self) -> list[int]:
        """What the tokenizer puts before every text."""
        encoded = self.tokenizer("a", return_special_tokens_mask=True)
        return encoded["input_ids"][: encoded["special_tokens_mask"].index(0)]

    def _scored(self, rows: Rows) -> np.ndarray:
        if self.uses_trie is None:
            self.uses_trie = self._trie_agrees(rows)
        scores = self._trie(rows) if self.uses_trie else naive(self.model, rows, batch_size=self.batch_size)
        return scores.numpy()

    def _trie_agrees(self, rows: Rows) -> bool:
        longest = int(np.argmax(rows.lengths))
        alone = Rows([rows.ids[longest]], [rows.begins[longest]])
        plain = float(naive(self.model, alone)[0])
        try:
            differing = abs(float(self._trie(rows)[longest]) - plain)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            log.warning("%s takes no tree of options (%s): scored in batches", self.name, error)
            return False
        if differing > AGREES:
            log.warning("%s heeds no tree of options (%.1e nats off): scored in batches", self.name, differing)
        return differing <= AGREES


def _check_files(place: Path, gguf: str | None) -> None:
    if gguf is not None:
        if not (place / gguf).is_file():
            raise PartMissing(
                f"no file {gguf}", where=str(place), do="give the folder and the name of a GGUF file in it"
            )
        return
    if not (place / "config.json").is_file():
        raise PartMissing("no language model: no config.json", where=str(place), do="give a local Hugging Face folder")
    if not any((place / name).is_file() for name in TOKENIZER_FILES):
        raise PartMissing(
            "a language model without a tokenizer", where=str(place), do=f"put its {TOKENIZER_FILES[0]} beside it"
        )


class Uniform:
    """Every option is as likely as any other: what is chosen is the values' doing."""

    name = "uniform"

    def score(self, prompt: str, options: Sequence[str]) -> Likelihoods:
        """See Scorer."""
        if not options:
            raise InvalidData("there is no option to score", where="options", do="give one skill or more")
        return Likelihoods(np.full(len(options), -np.log(len(options))), np.ones(len(options), int))
