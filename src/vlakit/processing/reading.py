"""What every processor does that reads instructions: it names the words, and the instructions, it cannot tell apart."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property
from typing import Any, cast

from vlakit.errors import InvalidData
from vlakit.processing.processor import Processor
from vlakit.processing.settings import ReadingSettings
from vlakit.processing.text import TextTokenizer, build_tokenizer

log = logging.getLogger(__name__)
WORDS_SHOWN = 20  # of those that a warning names
PROMPTS_KEPT = 100_000  # a bound for endless streams of new instructions


class ReadingProcessor(Processor):
    """A processor whose settings name a tokenizer."""

    def __init__(self, *settings: Any, **options: Any) -> None:
        """As any processor."""
        super().__init__(*settings, **options)
        self._asked: set[str] = set()
        self._named: set[str] = set()  # unknown words that a warning has named

    @property
    def reads_with(self) -> str:
        """What a warning or an error says of the tokenizer."""
        return f"tokenizer {cast(ReadingSettings, self.settings).tokenizer}"

    def prompt_ids(self, instruction: str) -> list[int]:
        """What the network reads of an instruction."""
        raise NotImplementedError

    @cached_property
    def text(self) -> TextTokenizer:
        """The text tokenizer; its files are looked for on first use, so that counting needs none."""
        settings = cast(ReadingSettings, self.settings)
        return build_tokenizer(settings.tokenizer, settings.tokenizer_path)

    def check_files(self) -> None:
        """The tokenizer's."""
        self.text.encode("")

    def shortened(self, instruction: str) -> bool:
        """Whether the network reads the beginning of an instruction alone."""
        return False

    def check_instructions(self, instructions: Iterable[str]) -> None:
        """Warn of words that the tokenizer lacks; InvalidData where two instructions become the same ids."""
        doubtful = {text for text in set(instructions) if self.text.unknown(text) or self.shortened(text)}
        self._name_unknown(doubtful)
        alike: dict[tuple[int, ...], str] = {}
        for text in sorted(doubtful):
            other = alike.setdefault(tuple(self.prompt_ids(text)), text)
            if other.lower().split() != text.lower().split():
                raise InvalidData(
                    f"the instructions {other!r} and {text!r} become the same ids: the policy cannot tell them apart",
                    where=self.reads_with,
                    do="write the instructions in words it knows, or train a model whose tokenizer knows these",
                )

    def _name_unknown(self, instructions: Iterable[str]) -> None:
        words = {word for text in instructions for word in self.text.unknown(text)} - self._named
        self._named |= words
        if words:
            shown = ", ".join(sorted(words)[:WORDS_SHOWN]) + (", ..." if len(words) > WORDS_SHOWN else "")
            log.warning("words that the %s does not know: %s", self.reads_with, shown)

    def _check_asked(self, instruction: object) -> None:
        """Once for each instruction that the policy is asked about."""
        if not isinstance(instruction, str) or not instruction.strip():
            what = f"the instruction is {instruction!r}"
            raise InvalidData(what, where="observation", do="say in words what to do, as text (bytes: decode them)")
        if instruction not in self._asked:
            if len(self._asked) > PROMPTS_KEPT:
                self._asked.clear()
            self._asked.add(instruction)
            self._name_unknown([instruction])
