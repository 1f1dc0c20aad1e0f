"""Globs to `requires_grad`. A glob that matches nothing is an error: it would freeze what it meant to train."""

import fnmatch
from collections.abc import Iterable, Sequence

from torch import nn

from vlakit.errors import PatternUnmatched, nearest
from vlakit.models.network import Network


def select(patterns: Iterable[str], names: Sequence[str]) -> set[str]:
    """The names that match any of the globs; one that matches none raises PatternUnmatched with the nearest names."""
    selected: set[str] = set()
    for pattern in patterns:
        hits = fnmatch.filter(names, pattern)
        if not hits:
            raise PatternUnmatched(
                f"the pattern {pattern!r} matches no parameter", where="strategy.trainable", do=nearest(pattern, names)
            )
        selected.update(hits)
    return selected


def train_only(model: Network, patterns: Iterable[str]) -> None:
    """Let what matches `patterns` train and nothing else; `{last}` and the like are the network's placeholders."""
    names = [name for name, _ in model.named_parameters()]
    patterns = [*patterns, *model.additions]
    for word, value in model.placeholders.items():
        patterns = [pattern.replace(f"{{{word}}}", value) for pattern in patterns]
    set_trainable(model, select(patterns, names) - select(model.frozen, names))


def set_trainable(model: nn.Module, selected: set[str]) -> None:
    """requires_grad = the name is selected."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in selected
