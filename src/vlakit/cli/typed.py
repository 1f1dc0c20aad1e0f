"""Words against the table of keys: a wrong value is one error with the key as it was typed and what it may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from vlakit.cli.keys import keys
from vlakit.cli.overrides import parse_overrides
from vlakit.errors import ConfigError, nearest

OURS = ("vlakit.", "torch.", "lightning.")  # classes whose keys the table knows
BUILT = ("suite", "data", "strategy", "strategy.optimizer", "strategy.scheduler", "trainer", "logger")
_SIGNS = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "of at most", "exclusiveMaximum": "below"}
_TYPES = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"}


def check_keys(verb: str, cfg: DictConfig | Mapping[str, Any], words: Sequence[str], where: str = "") -> None:
    """Raise ConfigError for a value of another type or range than the table says; where: its file, if no word."""
    node = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    for key, value in _values(node, keys(verb)):
        try:
            _adapter(verb, key).validate_python(value)
        except ValidationError as error:
            word = _word(key, words)
            raise _refused(
                verb, key, value, error, word or where or f"conf/{verb}.yaml, and what it chooses"
            ) from error


def refuse_commas(verb: str, words: Sequence[str]) -> None:
    """Raise ConfigError for a word that Hydra takes for several values, with what to write instead."""
    for override in parse_overrides(words):
        if not override.is_sweep_override():
            continue
        word, key = str(override.input_line), override.key_or_group
        value = word.partition("=")[2]
        kinds = _kinds(_schema(verb, key)) if key in keys(verb) else {"array", "string"}
        ways = [f"a list: {key}=[{value}]"] if "array" in kinds else []
        ways += [f"one text: \"{key}='{value}'\""] if "string" in kinds else []
        ways += ["a run each: add -m"] if verb == "train" else []
        ways = ways or [f"one value: {key}={value.partition(',')[0]}"]
        raise ConfigError(
            f"{key} is given several values", where=f"command line: {override.input_line}", do=", or ".join(ways)
        )


def as_text(verb: str, words: Sequence[str]) -> list[str]:
    """The words with quotes where a key holds text and Hydra would read a number or a flag, or a sentence.

    >>> as_text("export", ["out=123", "strict=true", "ckpt=1e3"])
    ["out='123'", 'strict=true', "ckpt='1e3'"]
    >>> as_text("ask", ["question=what, where's it?", "question=où est-il?"])
    ["question='what, where\\\\'s it?'", "question='où est-il?'"]
    """
    return [_as_text(verb, word) for word in words]


def expected(verb: str, key: str) -> str:
    """What a key may hold, in words."""
    return _either(_schema(verb, key))


def _as_text(verb: str, word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if not equals or word.startswith("-") or name not in keys(verb):
        return word
    kinds = _kinds(_schema(verb, name))
    if "string" not in kinds or kinds & {"integer", "number", "boolean"}:
        return word
    sentence = " " in value and kinds <= {"string", "null"}
    return f"{key}={in_quotes(value)}" if _misread(verb, word, sentence=sentence) else word


def _misread(verb: str, word: str, *, sentence: bool) -> bool:
    """Whether Hydra reads no text where one is meant; sentence: it has spaces, and nothing but a text can be meant."""
    try:
        override: Override = parse_overrides([word])[0]
    except ConfigError:
        if sentence:
            return True
        raise
    if override.is_sweep_override():
        return sentence and verb != "train" and ", " in word
    return isinstance(override.value(), bool | int | float)


def in_quotes(value: str) -> str:
    """A text as Hydra reads it back, whatever it holds.

    >>> parse_overrides(["a=" + in_quotes("it's a \\\\' [1, {2")])[0].value()
    "it's a \\\\' [1, {2"
    """
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), value) + "'"


def _values(node: DictConfig, known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, plain value) of each key that is there, resolvable and not of a user's own class."""
    foreign = _foreign(node)
    for key in known:
        if key.startswith(foreign):
            continue
        try:
            parent, _, last = key.rpartition(".")
            holder = OmegaConf.select(node, parent) if parent else node
            if not isinstance(holder, DictConfig) or last not in holder or OmegaConf.is_missing(holder, last):
                continue
            value = holder[last]
        except OmegaConfBaseException:  # hangs on Hydra's run, or on what is missing: said where it is read
            continue
        yield key, _plain(value)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value


def _foreign(node: DictConfig) -> tuple[str, ...]:
    """Sections, with a dot behind, that are built from a class of somebody else."""
    targets = {place: OmegaConf.select(node, f"{place}._target_", throw_on_resolution_failure=False) for place in BUILT}
    return tuple(f"{place}." for place, target in targets.items() if target and not str(target).startswith(OURS))


def _word(key: str, words: Sequence[str]) -> str:
    """The word that set a key, or what holds it."""
    typed = [word for word in words if "=" in word and not word.startswith("-")]
    heads = [(word, word.lstrip("+~").partition("=")[0]) for word in typed]
    word = next((word for word, head in reversed(heads) if head == key or key.startswith(f"{head}.")), "")
    below = next((word for word, head in reversed(heads) if head.startswith(f"{key}.")), "")
    return f"command line: {word or below}" if word or below else ""


def _refused(verb: str, key: str, value: Any, error: ValidationError, where: str) -> ConfigError:
    problem = error.errors()[0]
    for step in problem["loc"]:  # into what holds several values, to the one that is wrong
        if isinstance(value, dict) and step in value:
            key, value = f"{key}.{step}", value[step]
    shown = f"{key}={_short(value)}"
    if problem["type"] == "vlakit":  # of a check of ours
        context = problem.get("ctx", {})
        return ConfigError(f"{shown}: {context['what']}", where=where, do=context["do"])
    do = _instead(verb, key, value)
    return ConfigError(f"{shown} {'is unknown' if 'one of' in do else 'cannot be used'}", where=where, do=do)


def _instead(verb: str, key: str, value: Any) -> str:
    """The nearest value, what the key may hold, the same number as a whole one."""
    top = next(name for name in keys(verb) if key == name or key.startswith(f"{name}."))
    near = nearest(str(value), [str(c).lower() for part in _parts(_schema(verb, top)) for c in _choices(part)])
    do = f"{f'{near} ' if near.startswith('did') else ''}give {expected(verb, top)}"
    if isinstance(value, float) and value.is_integer() and _fits(_adapter(verb, top), int(value)):
        do += f": {key}={int(value)}"
    return do


def _fits(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def _adapter(verb: str, key: str) -> TypeAdapter[Any]:
    return TypeAdapter(keys(verb)[key])


@cache
def _schema(verb: str, key: str) -> dict[str, Any]:
    return _adapter(verb, key).json_schema()


def _parts(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part for one in schema["anyOf"] for part in _parts(one)] if "anyOf" in schema else [schema]


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """JSON's names of the types that a key may have."""
    kinds = {str(part.get("type", "")) for part in _parts(schema)}
    return kinds | {"boolean" for part in _parts(schema) for c in _choices(part) if isinstance(c, bool)}


def _choices(part: Mapping[str, Any]) -> list[Any]:
    return part["enum"] if "enum" in part else [part["const"]] if "const" in part else []


def _said(part: Mapping[str, Any]) -> str:
    if choices := _choices(part):
        return f"{'one of ' if len(choices) > 1 else ''}{', '.join(str(c).lower() for c in choices)}"
    kind = part.get("type")
    if kind == "array":
        of = part.get("items") or (part.get("prefixItems") or [{}])[0]
        return f"a list [A, B] of {_either(of)}"
    if kind == "object":
        of = part.get("additionalProperties")
        return f"pairs {{NAME: {_either(of) if isinstance(of, dict) else 'value'}}}"
    return f"{_TYPES.get(str(kind), 'text')}{_limits(part)}"


def _either(schema: Mapping[str, Any]) -> str:
    """The ways that there are; a whole number goes without saying where any number within the same limits may be."""
    parts = _parts(schema)
    numbers = [_limits(part) for part in parts if part.get("type") == "number"]
    said = [_said(part) for part in parts if part.get("type") != "integer" or _limits(part) not in numbers]
    return " or ".join(dict.fromkeys(said))


def _limits(part: Mapping[str, Any]) -> str:
    if "minimum" in part and "maximum" in part:
        return f" from {part['minimum']:,} to {part['maximum']:,}"
    if part.get("exclusiveMinimum") == 0 and part.get("exclusiveMaximum") == 1:
        return ", a fraction between 0 and 1"
    limits = [f"{sign} {part[name]:,}" for name, sign in _SIGNS.items() if name in part]
    return f" {' and '.join(limits)}" if limits else ""
