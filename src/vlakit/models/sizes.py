"""Sizes of a network that a configuration gives."""

from collections.abc import Mapping

from vlakit.errors import ConfigError


def check_sizes(sizes: Mapping[str, int], *, where: str) -> None:
    """Raise ConfigError for one that is no number above 0: such a network is not built, or sees nothing."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name} is {size!r}", where=f"{where}.{name}", do="give a whole number above 0")
