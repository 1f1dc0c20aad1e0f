"""Hydra's reading of the words of a command line, and the runs that a sweep of them means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vlakit.configs import config_names
from vlakit.errors import ConfigError


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of `key=value` words; ConfigError for what is not one."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            f"cannot read an override: {str(error).splitlines()[0]}",
            where="command line",
            do="write key=value; quotes in quotes for spaces, commas, =, brackets, letters like é: \"key='a[b]'\"",
        ) from error


def single_runs(overrides: Sequence[str]) -> list[list[str]]:
    """The override lists in which every value of every sweep occurs once, the other sweeps at their first value."""
    choices = [
        [f"{o.get_key_element()}={value}" for value in _swept(o)] if o.is_sweep_override() else [line]
        for o, line in zip(parse_overrides(overrides), overrides, strict=True)
    ]
    first = [values[0] for values in choices]
    others = [[*first[:i], value, *first[i + 1 :]] for i, values in enumerate(choices) for value in values[1:]]
    return [first, *others]


def _swept(override: Override) -> Iterable[Any]:
    value = override.value()
    if isinstance(value, IntervalSweep):  # some sweepers draw from it; its ends stand for what lies between
        return [value.start, value.end]
    if isinstance(value, Glob):
        return value.filter(config_names(override.key_or_group))
    return override.sweep_string_iterator()
