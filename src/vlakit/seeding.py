"""One seed for a run; the order of the data and its augmentation have their own, by sample number (data.mixture)."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's old global generator (libraries still use it) and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
