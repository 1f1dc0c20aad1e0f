"""`RT1Processor`: instructions to ids that a text encoder reads, actions to ids of a vocabulary of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from tokenizers import Tokenizer

from vlakit.errors import PartMissing
from vlakit.processing.action_tokenizer import ActionTokenizer
from vlakit.processing.parted_actions import Part, PartedTokenizer
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ProcessorSettings, TokenSettings
from vlakit.processing.text import TOKENIZERS, TextTokenizer, lacking_files
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Example, Sample, TextBatch

SENTENCES = "sentences"  # the tokenizer of a sentence encoder in a local folder, tokenizer_path


@dataclass(frozen=True, kw_only=True)
class RT1Settings(TokenSettings):
    """tokenizer: `words`, whose ids a learned table embeds, or `sentences`: those of the encoder in tokenizer_path.

    parts: rows [name, size, kind, low, high] make the action tokens those of RT-1's own code (PartedTokenizer);
    None: vlakit's bins.
    """

    parts: tuple[tuple[Any, ...], ...] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """As of any policy; the rows of `parts` are lists there."""
        rows = values.get("parts")
        return super().from_dict({**values, "parts": None if rows is None else tuple(tuple(row) for row in rows)})

    def to_dict(self) -> dict[str, Any]:
        """The opposite."""
        values = {**super().to_dict(), "parts": None if self.parts is None else [list(row) for row in self.parts]}
        return {key: value for key, value in values.items() if key != "prompt"}  # there is none


class RT1Processor(TokenProcessor):
    """As any reader of text, but an answer is no text: action ids are 0 to n_bins - 1 and stand in no prompt."""

    kind: ClassVar[str] = "rt1"
    settings_type: ClassVar[type[ProcessorSettings]] = RT1Settings
    settings: RT1Settings  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, settings: RT1Settings, *further: Any, **options: Any) -> None:
        """As any processor; the words of an instruction stand alone, for an encoder of sentences."""
        super().__init__(settings, *further, **options)
        self.build_prompt = str.lower

    @cached_property
    def actions(self) -> ActionTokenizer:
        """vlakit's bins, or the tokens of RT-1's own code."""
        n_bins, rows = self.settings.n_bins, self.settings.parts
        return ActionTokenizer(n_bins, n_bins) if rows is None else PartedTokenizer([Part.of(r) for r in rows], n_bins)

    def encode(self, sample: Sample) -> Example:
        """As any processor does, with the instruction's ids."""
        prompt = np.array(self.prompt_ids(sample.instruction), np.int64)
        return replace(Processor.encode(self, sample), prompt=prompt, answer=np.zeros(0, np.int64))

    def blank_text(self, rows: int, action_ids: int, prompt_tokens: int, answer_tokens: int | None) -> TextBatch:
        """An instruction alone."""
        text = super().blank_text(rows, action_ids, prompt_tokens, answer_tokens)
        return TextBatch(*(tensor[:, :prompt_tokens] for tensor in (text.ids, text.mask, text.labels)))


def sentence_folder(path: str | None) -> Path:
    """The folder of a sentence encoder. Raises PartMissing where its files are not here."""
    folder = Path(path or "").expanduser()
    lacking = lacking_files(folder)
    if path is None or lacking:
        raise PartMissing(
            f"the sentence encoder is not here: no {', '.join(lacking)}",
            where=str(folder) if path else "model.processor.tokenizer_path is not set",
            do="pass model.processor.tokenizer_path=DIR, a local folder of one such as all-MiniLM-L6-v2,"
            " or model.processor.tokenizer=words for a table that learns",
        )
    return folder


@TOKENIZERS.register(SENTENCES)
def sentences(path: str | None = None) -> TextTokenizer:
    """The tokenizer of a local sentence encoder, whose first and last id enclose an instruction."""
    tokenizer = Tokenizer.from_file(str(sentence_folder(path) / "tokenizer.json"))
    tokenizer.no_padding()  # such folders pad every sentence to the same length
    enclosing = tokenizer.encode("").ids
    return TextTokenizer(
        lambda: tokenizer,
        padding_id=0,  # any: the mask says what is padding
        vocab_size=tokenizer.get_vocab_size(),
        empty_id=enclosing[-1],
        bos_id=enclosing[0],
    )
