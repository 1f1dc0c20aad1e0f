"""Sandwich: towers, projector, and the outer slices of the language model; the middle stays frozen (Table 1, row 4)."""

from vlakit.strategies.base import Finetune
from vlakit.strategies.last_layer import LastLayer


class Sandwich(Finetune):
    """914.2 M parameters of the paper's model."""

    name = "sandwich"
    trainable = ("vision_backbone.*", "projector.*", *LastLayer.trainable)
