"""LoRA on every linear and convolutional layer, head included, with alpha = min(rank, 16) (Table 1, rows 5 and 6)."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vlakit.checkpoints.card import CARD, Card
from vlakit.errors import ConfigError
from vlakit.models.adapters import LoraNumbers, bare_layers, every_layer, inject_lora, is_added, named_briefly
from vlakit.models.network import Network
from vlakit.strategies.base import PolicyModule

log = logging.getLogger(__name__)


class Lora(PolicyModule):
    """97.6 M parameters of the paper's model at rank 32.

    targets: last name components of the layers to adapt; None: all that a full fine-tuning would move, which for the
    released models is the original's list. Norms, positions and the embedding of words stay as they are, as there.
    adapter_only: checkpoints hold the adapters and name their base (`weights`) instead of copying it: MBs, not GBs.
    """

    name = "lora"

    def __init__(
        self,
        *args: Any,
        rank: int,
        alpha: int | None = None,
        dropout: float = 0.0,
        targets: Sequence[str] | None = None,
        adapter_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.numbers = LoraNumbers(rank, min(rank, 16) if alpha is None else alpha, dropout, tuple(targets or ()))
        self.adapter_only = adapter_only
        if adapter_only and self.weights is None:
            raise ConfigError(
                "adapter_only=true needs a base that can be found again, and this run starts from random weights",
                where="strategy",
                do="name the base with model.weights=..., or let checkpoints be whole: strategy.adapter_only=false",
            )

    @property
    def adapter(self) -> dict[str, Any] | None:
        return self.numbers.to_dict()

    def prepare(self, model: Network) -> None:
        if not self.numbers.targets:
            self.numbers = replace(self.numbers, targets=every_layer(model))
        inject_lora(model, self.numbers)

    def check_resumed(self, card: Card, *, where: str) -> None:
        """As every strategy; layers that this run does not name are those that its checkpoint has adapted."""
        if not self.numbers.targets and card.adapter is not None:
            self.numbers = replace(self.numbers, targets=tuple(card.adapter["targets"]))
        super().check_resumed(card, where=where)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if layers := bare_layers(self.model):
            log.warning("no adapter on %s, which strategy=full trains", named_briefly(layers))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.adapter_only:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {
                name: tensor
                for name, tensor in state.items()
                if ".lora_" in name or is_added(name.removeprefix("model."), self.model)
            }
            checkpoint[CARD]["base"] = self.weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Complete the adapters with the base that configure_model has loaded."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint[CARD].get("base") is not None:
            checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}
