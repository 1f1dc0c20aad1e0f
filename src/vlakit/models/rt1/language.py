"""An instruction as one vector: a table that learns with the policy, or a frozen sentence encoder of a local folder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from vlakit.processing.rt1 import SENTENCES, RT1Processor, sentence_folder
from vlakit.schema import TextBatch

VECTORS_KEPT = 100_000  # a bound for endless streams of new instructions


class Table(nn.Module):
    """A vector a word, mixed with its neighbours so that order counts, and the mean over the words."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.words, self.neighbours = nn.Embedding(vocabulary, width), nn.Conv1d(width, width, 3, padding=1)

    def forward(self, text: TextBatch) -> Tensor:
        """(B, D); padding counts for nothing."""
        real = text.mask[..., None].to(self.words.weight.dtype)  # (B, T, 1)
        words = self.words(text.ids) * real
        mixed = words + F.gelu(self.neighbours(words.transpose(1, 2)).transpose(1, 2))
        return (mixed * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


class Sentences(nn.Module):
    """The encoder's last hidden states, averaged over the sentence, of length one: as sentence-transformers has it.

    Its weights stay in their folder: they are no parameters of the policy and in no checkpoint.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder, self.width = folder, int(AutoConfig.from_pretrained(folder, local_files_only=True).hidden_size)
        self._vectors: dict[tuple[int, ...], Tensor] = {}
        self._frozen: list[Any] = []  # in a list, so that it is no submodule

    def forward(self, text: TextBatch) -> Tensor:
        """(B, D) float32, without a graph."""
        rows = [tuple(row) for row in text.prompts()]
        if len(self._vectors) > VECTORS_KEPT:
            self._vectors.clear()
        for row in dict.fromkeys(rows):
            if row not in self._vectors:
                self._vectors[row] = self._encoded(row)
        return torch.stack([self._vectors[row] for row in rows])

    def _encoded(self, ids: tuple[int, ...]) -> Tensor:
        # What is kept here may meet a gradient later; leaving inference mode turns gradients on, hence both.
        with torch.inference_mode(False), torch.no_grad():
            if not self._frozen:
                loaded: Any = AutoModel.from_pretrained(self.folder, local_files_only=True, dtype=torch.float32)
                self._frozen.append(loaded.eval())
            hidden: Tensor = self._frozen[0](input_ids=torch.tensor([ids])).last_hidden_state
            return F.normalize(hidden[0].mean(dim=0), dim=0)


def text_encoder(processor: RT1Processor, width: int) -> Table | Sentences:
    """What the processor's tokenizer is for. Raises PartMissing for an encoder whose files are not here."""
    if processor.settings.tokenizer == SENTENCES:
        return Sentences(str(sentence_folder(processor.settings.tokenizer_path)))
    return Table(processor.text.vocab_size, width)
