"""Pretraining on a mixture of robots: everything learns, norms and biases do not decay (OpenVLA, Section 3.4)."""

from typing import Any

from vlakit.strategies.base import Finetune


class Pretrain(Finetune):
    """All parameters, from a vision-language model or from scratch."""

    name = "pretrain"
    trainable = ("*",)

    def __init__(self, *args: Any, decay_norms_and_biases: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, decay_norms_and_biases=decay_norms_and_biases, **kwargs)
