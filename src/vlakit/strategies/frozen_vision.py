"""Frozen vision: projector and language model learn, the towers do not (OpenVLA, Table 1, row 3)."""

from vlakit.strategies.base import Finetune


class FrozenVision(Finetune):
    """6,760.4 M parameters of the paper's model."""

    name = "frozen_vision"
    trainable = ("projector.*", "language_model.*")
