"""What the processes of a training say to each other beside Lightning's own."""

from typing import Any

import torch


def of_all_ranks(value: Any) -> list[Any]:
    """The value of each process, in order of their ranks; of this one alone where there is no other."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
