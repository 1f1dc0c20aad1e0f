"""Constructors of one kind of thing, by name: what a checkpoint must say to be rebuilt is a name, never a code path."""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from vlakit.errors import CheckpointMismatch, UnknownName, nearest

T = TypeVar("T")
B = TypeVar("B", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Name -> constructor; 'package.module:function' reaches outside code without an edit here."""

    def __init__(self, kind: str, shipped: Mapping[str, str] | None = None) -> None:
        """shipped: name -> 'module:attribute' of what comes with vlakit and is imported when it is first asked for."""
        self.kind = kind
        self._builders: dict[str, Callable[..., T]] = {}
        self._shipped = dict(shipped or {})

    def register(self, name: str) -> Callable[[B], B]:
        """Decorator that files a constructor under `name`; a name taken twice is a programming error."""
        if name in self._builders:
            raise ValueError(f"{self.kind} {name!r} is registered twice; rename one of them")

        def add(builder: B) -> B:
            self._builders[name] = builder
            return builder

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted({*self._builders, *self._shipped})

    def get(self, name: str) -> Callable[..., T]:
        """The constructor of `name`; raises UnknownName with the nearest names."""
        if name in self._builders:
            return self._builders[name]
        place = self._shipped.get(name, name)
        if ":" in place:
            module, _, attribute = place.partition(":")
            try:
                return getattr(import_module(module), attribute)
            except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: ".x:f", ":f"
                raise UnknownName(
                    f"cannot import {self.kind} {name!r}: {error}", do="check the spelling of module:function"
                ) from error
        raise UnknownName(f"no {self.kind} called {name!r}", do=nearest(name, self.names()))

    def build(self, name: str, **kwargs: Any) -> T:
        """Call the constructor of `name`."""
        return self.get(name)(**kwargs)

    def fitted(self, name: str, options: Mapping[str, Any], *parts: Any, where: str) -> T:
        """What `name` makes of parts and of a configuration's options, whose keys are `where` and `where`_options.

        Raises UnknownName, and CheckpointMismatch for options that it does not take.
        """
        try:
            builder = self.get(name)
            inspect.signature(builder).bind(*parts, **options)
        except UnknownName as error:
            raise UnknownName(error.what, where=where, do=error.do) from error
        except TypeError as error:
            raise CheckpointMismatch(
                f"the {self.kind} {name} cannot be built: {error}",
                where=f"{where}_options",
                do=f"leave out what this {self.kind} does not take",
            ) from error
        return builder(*parts, **options)
