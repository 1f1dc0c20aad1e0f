"""LoRA on every linear layer, the head and the patch embedding, with alpha = min(rank, 16) (Table 1, rows 5 and 6)."""

from collections.abc import Sequence
from typing import Any

from vlakit.models.adapters import OPENVLA_TARGETS, LoraNumbers, inject_lora
from vlakit.models.vla import OpenVLA
from vlakit.strategies.base import PolicyModule


class Lora(PolicyModule):
    """97.6 M parameters of the paper's model at rank 32."""

    name = "lora"

    def __init__(
        self,
        *args: Any,
        rank: int,
        alpha: int | None = None,
        dropout: float = 0.0,
        targets: Sequence[str] = OPENVLA_TARGETS,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.numbers = LoraNumbers(rank, min(rank, 16) if alpha is None else alpha, dropout, tuple(targets))

    @property
    def adapter(self) -> dict[str, Any] | None:
        return self.numbers.to_dict()

    def prepare(self, model: OpenVLA) -> None:
        inject_lora(model, self.numbers)
