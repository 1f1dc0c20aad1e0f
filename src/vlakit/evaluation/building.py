"""A suite from plain settings. Its class is chosen by conf/suite alone, never by a file that came from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.suite import Suite

TARGET = "_target_"


def build_suite(settings: Mapping[str, Any]) -> Suite:
    """The suite of a file of conf/suite: its class, `_target_`, called with the other settings.

    Raises UnknownName where there is no such class, ConfigError for values that it refuses, and what it raises itself.
    """
    target = str(settings[TARGET])
    values = {key: value for key, value in settings.items() if key != TARGET}
    try:
        return class_of(target)(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the suite cannot be built: {error}", where=target, do="mend that value") from error


def class_of(target: str) -> Callable[..., Suite]:
    """The class that a `_target_` names. Raises UnknownName."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownName(
            f"cannot import the suite {target!r}: {error}", where=f"{TARGET} in conf/suite", do="check its spelling"
        ) from error
