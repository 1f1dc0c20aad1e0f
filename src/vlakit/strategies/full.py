"""Full fine-tuning: every parameter of towers, projector and language model (OpenVLA, Table 1, row 1)."""

from vlakit.strategies.base import Finetune


class Full(Finetune):
    """7,188.1 M parameters of the paper's model."""

    name = "full"
    trainable = ("*",)
