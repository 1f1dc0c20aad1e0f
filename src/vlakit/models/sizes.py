"""Sizes of a network that a configuration gives, and whether they are the data's."""

from collections.abc import Mapping

from vlakit.errors import ConfigError, InvalidData
from vlakit.schema import Batch


def check_sizes(sizes: Mapping[str, int], *, where: str) -> None:
    """Raise ConfigError for one that is no number above 0: such a network is not built, or sees nothing."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name} is {size!r}", where=f"{where}.{name}", do="give a whole number above 0")


def check_action_size(batch: Batch, size: int) -> None:
    """Raise InvalidData for actions of another width than the network's, which would be broadcast or multiplied."""
    given = batch.actions.shape[-1]
    if given != size:
        what = f"actions of {given} numbers, the network answers with {size}"
        raise InvalidData(what, where=f"dataset {batch.datasets[0]}", do=f"set model.network.action_size={given}")
