"""Settings of suites by name: one file of conf/suite each, and the words `suite.KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from vlakit.cli.configuration import compose_config, parse_overrides, to_plain
from vlakit.cli.targets import own_targets
from vlakit.configs import conf_root
from vlakit.errors import ConfigError, UnknownName, nearest


def suite_names() -> list[str]:
    """Names of all suites, sorted."""
    return sorted(file.stem for file in (conf_root() / "suite").glob("*.yaml"))


def split_words(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words for the verb, and those that change the suite: `suite.KEY=VALUE`."""
    inner = [word for word in overrides if word.lstrip("+~").startswith("suite.")]
    return [word for word in overrides if word not in inner], inner


def suite_settings(name: str, words: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values of conf/suite/NAME.yaml. Raises UnknownName with the nearest names, ConfigError."""
    if name not in suite_names():
        raise UnknownName(f"no suite called {name!r}", where="conf/suite", do=nearest(str(name), suite_names()))
    settings = to_plain(compose_config(f"suite/{name}", words)).get("suite", {})
    if "_target_" not in settings:
        raise ConfigError("the suite's file has no _target_", where=f"conf/suite/{name}.yaml", do="add _target_:")
    return settings


def recorded_settings(name: str, recorded: Mapping[str, Any], words: Sequence[str], where: str) -> dict[str, Any]:
    """The settings of a suite as a file records them, but for those that words set. Raises ConfigError, UnknownName."""
    settings = as_recorded(suite_settings(name), recorded, where)
    chosen = suite_settings(name, words)
    keys = {override.key_or_group.split(".")[1] for override in parse_overrides(words)}
    return {**settings, **{key: chosen[key] for key in keys if key in chosen}}


def as_recorded(settings: Mapping[str, Any], recorded: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of conf/suite with a file's values. Raises ConfigError for code or a key that is not the suite's."""
    from vlakit.evaluation.building import class_of

    target = str(settings["_target_"])
    values = own_targets(recorded, where, {target.rpartition(".")[2]: target})
    known = {*settings, *signature(class_of(target)).parameters}
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no setting of the suite", where=where, do=nearest(unknown[0], known))
    return {**settings, **values}
