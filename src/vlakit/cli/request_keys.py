"""Keys of the verbs whose request is a dataclass of the library: its fields, and what the command line adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from vlakit.checked import Flag, Rows, Seed, Some, Text
from vlakit.cli.key_groups import CHECKPOINT, CLIENT, POLICY, QUANTIZE
from vlakit.cli.kinds import FORMAT, Device, Place, maybe, real


def below(section: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section with its name before each."""
    return {f"{section}.{key}": kind for key, kind in keys.items()}


def keys_of(kind: Any) -> dict[str, Any]:
    """Key -> type of a dataclass; of one in it as a.b."""
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    keys: dict[str, Any] = {}
    for field in fields(kind):
        hint = hints[field.name]
        keys |= below(field.name, keys_of(hint)) if is_dataclass(hint) else {field.name: hint}
    return keys


def evaluate() -> dict[str, Any]:
    """Of `vlakit evaluate`."""
    from vlakit.evaluation.run import Request

    own = {"ckpt": maybe(Place), "suite": Text, "policy": maybe(Text), "out": maybe(Place), "root": Place}
    own |= {"url": maybe(Text), "dialect": Text, **CLIENT, "planner": maybe(Text)}
    own |= dict.fromkeys(("lm", "values"), maybe(Place)) | {"cuda_graphs": Flag}
    return {**own, **CHECKPOINT, **QUANTIZE, "format": FORMAT, "tracking_uri": maybe(Text), **keys_of(Request)}


def score() -> dict[str, Any]:
    """Of `vlakit score`."""
    from vlakit.evaluation.scoring import ScoreRequest

    own = {"ckpt": Place, "out": maybe(Place), "format": FORMAT, "tracking_uri": maybe(Text)}
    return {**own, **CHECKPOINT, **QUANTIZE, **keys_of(ScoreRequest)}


def ask() -> dict[str, Any]:
    """Of `vlakit ask`."""
    from vlakit.evaluation.asking import AskRequest

    own = {"ckpt": Place, **dict.fromkeys(("image", "questions", "out"), maybe(Place)), "question": maybe(Text)}
    return {**own, **POLICY, "device": Device, "longest": Some, "format": FORMAT, **keys_of(AskRequest)}


def collect() -> dict[str, Any]:
    """Of `vlakit collect`."""
    from vlakit.collecting.collector import CollectPlan

    own = {"ckpt": Place, "suite": Text, "out": maybe(Place), "root": Place, "format": FORMAT}
    return {**own, **CHECKPOINT, **keys_of(CollectPlan), "temperature": real(gt=0)}


def pairs() -> dict[str, Any]:
    """Of `vlakit pairs`."""
    from vlakit.preferences.pairs import PairPlan

    own = {"rollouts": Place, **dict.fromkeys(("out", "ckpt"), maybe(Place)), "at_once": Rows, "format": FORMAT}
    own |= {**POLICY, "device": Device, "strict": maybe(Flag)}
    return {**own, **keys_of(PairPlan), "held_out": real(ge=0, lt=1), "seed": Seed}
