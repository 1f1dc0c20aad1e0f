"""One seed for a run; the order of the data and its augmentation have their own, by sample number (data.mixture)."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's old global generator (libraries still use it) and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of all generators that a training may draw from in this process, as a checkpoint can hold them."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    numbers = [name, np.asarray(keys).tolist(), *rest]  # a checkpoint holds no arrays of NumPy's
    states = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": numbers}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random(states: Mapping[str, Any], device: torch.device) -> None:
    """Draw from here on what was drawn after `random_states`."""
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
