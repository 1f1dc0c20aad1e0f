"""What an instruction becomes before it is projected: T5's states from local files, or learned vectors of words."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlakit.errors import ConfigError, PartMissing
from vlakit.processing.text import lacking_files
from vlakit.schema import TextBatch

KEPT = 1000  # instructions whose states are remembered


class Words(nn.Module):
    """A learned vector of each id: the encoder where no T5 is at hand. Padding is attended to by nobody."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)

    def forward(self, text: TextBatch) -> tuple[Tensor, Tensor]:
        """(B, L, width), and which are there (B, L)."""
        return self.embedding(text.ids), text.mask.bool()


class FrozenT5:
    """The encoder of a local T5: no part of the network, so that no checkpoint holds it and nothing trains it.

    Its padded states are attended to as in the original, which masks an instruction as a whole or not at all.
    """

    def __init__(self, path: str | None, width: int) -> None:
        self.path, self.width = path, width
        self._states: dict[tuple[int, ...], Tensor] = {}

    @cached_property
    def model(self) -> Any:
        """Raises PartMissing where its files are not here, ConfigError where it is of another width."""
        from transformers import T5EncoderModel

        folder = Path(self.path or "")
        lacking = lacking_files(folder)
        if self.path is None or lacking:
            raise PartMissing(
                f"T5's files are not here: no {', '.join(lacking)}",
                where=str(folder) if self.path else "model.processor.tokenizer_path is not set",
                do="pass model.processor.tokenizer_path=DIR, a local Hugging Face folder of t5-base; without one take"
                " the learned encoder: model.network.text=words model.processor.tokenizer=words",
            )
        model = T5EncoderModel.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)
        if model.config.d_model != self.width:
            raise ConfigError(
                f"T5's states are {model.config.d_model} wide, the network's text_width is {self.width}",
                where=str(folder),
                do=f"set model.network.text_width={model.config.d_model}, or take the T5 that the network was made for",
            )
        return model

    def __call__(self, text: TextBatch, device: torch.device) -> tuple[Tensor, Tensor]:
        """(B, L, width) on a device, and that all are there (B, L)."""
        shape, told = text.ids.shape, torch.ones_like(text.ids, dtype=torch.bool)
        if device.type == "meta":
            return torch.empty(*shape, self.width, device=device), told
        rows = [tuple(row) for row in text.ids.tolist()]
        if len(self._states) > KEPT:
            self._states.clear()
        for row, mask in dict(zip(rows, text.mask.cpu(), strict=True)).items():
            if row not in self._states:
                with torch.no_grad():
                    states = self.model(torch.tensor([row]), attention_mask=mask[None])
                self._states[row] = states.last_hidden_state[0]
        return torch.stack([self._states[row] for row in rows]).to(device), told.to(device)
