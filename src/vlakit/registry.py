"""Constructors of one kind of thing, by name: what a checkpoint must say to be rebuilt is a name, never a code path."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar

from vlakit.errors import UnknownName, nearest

T = TypeVar("T")
B = TypeVar("B", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Name -> constructor; 'package.module:function' reaches outside code without an edit here."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Callable[..., T]] = {}

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
        return sorted(self._builders)

    def get(self, name: str) -> Callable[..., T]:
        """The constructor of `name`; raises UnknownName with the nearest names."""
        if name in self._builders:
            return self._builders[name]
        if ":" in name:
            module, _, attribute = name.partition(":")
            try:
                return getattr(import_module(module), attribute)
            except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: ".x:f", ":f"
                raise UnknownName(
                    f"cannot import {self.kind} {name!r}: {error}", do="check the spelling of module:function"
                ) from error
        raise UnknownName(f"no {self.kind} called {name!r}", do=nearest(name, self._builders))

    def build(self, name: str, **kwargs: Any) -> T:
        """Call the constructor of `name`."""
        return self.get(name)(**kwargs)
