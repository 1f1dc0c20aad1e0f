"""What `_target_` names: modules that cannot be found, classes and keys that they lack; and who may name code.

A configuration from a file of elsewhere names only what conf/ names itself, and modules that the user trusts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from inspect import signature
from typing import Any, cast

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, Node

from vlakit.configs import config_file_with, config_roots
from vlakit.errors import ConfigError, nearest

OPEN = (
    "data.mixture",
    "data.later.mixture",
    "data.sources",
    "data.specs",
    "data.questions",
    "tags",
)  # below these, keys are names that a user gives
# Folders of conf/ that a training's configuration holds nothing of, and Hydra's own
_NOT_TRAINING = {"dataset", "embodiment", "hparams_search", "hydra", "local", "mixture", "table"}


def check_modules(node: Node | None) -> None:
    """Raise ConfigError for a `_target_` whose module cannot be found, before anything is built."""
    if isinstance(node, DictConfig | ListConfig) and not (node._is_none() or node._is_interpolation()):
        for key in node.keys() if isinstance(node, DictConfig) else range(len(node)):
            child = cast(Node | None, node._get_node(cast(Any, key)))
            if key == "_target_" and child is not None and isinstance(child._value(), str):
                _check_module(str(child._value()))
            check_modules(child)


def _check_module(target: str) -> None:
    package = target.partition(".")[0]
    if not package.startswith("${") and package not in sys.modules and find_spec(package) is None:
        raise ConfigError(
            f"no module called {package!r}",
            where=f"_target_: {target} in {config_file_with(target) or 'the configuration'}",
            do="put its folder on PYTHONPATH, or install it",
        )


def unbuilt_part(error: Exception) -> ConfigError:
    """A value that a constructor refused, such as trainer.precision=bf61, a key that it lacks, or no constructor."""
    reason = str(error.__cause__ or error).splitlines()[0][:300]
    part = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else ""
    target = re.search(r"target '([\w.]+)'", str(error))
    key = re.search(r"unexpected keyword argument '(\w+)'", reason)
    if target and key and (where := _given(key.group(1))):
        what = f"{part}.{key.group(1)} is no key of {target.group(1)}"
        return ConfigError(what, where=where, do=nearest(key.group(1), _parameters(target.group(1), reason)))
    if target and "Error locating target" in str(error):
        return ConfigError(
            f"cannot import {target.group(1)}: {_first_cause(error)}",
            where=f"{part}._target_ in {config_file_with(target.group(1)) or 'the configuration'}",
            do="check its spelling; put the folder of a module of your own on PYTHONPATH, or install it",
        )
    do = "mend that value; VLAKIT_DEBUG=1 shows where it was refused"
    absent = (getattr(error.__cause__, "name", None) or "").partition(".")[0]  # of a module that a library wants
    if isinstance(error.__cause__, ModuleNotFoundError) and absent not in ("", "vlakit"):
        do = f"install the package that has {absent}: pip install {absent}, if it is called so"
    return ConfigError(f"cannot be built: {reason}", where=part or "configuration", do=do)


def _given(key: str) -> str:
    """Where a key is written; "" for one that only code passes on."""
    return "command line" if any(f".{key}=" in word for word in sys.argv) else config_file_with(f"{key}:")


def _parameters(target: str, reason: str) -> set[str]:
    """What a class and its bases take, and the dataclass beside it to which it passes its options on."""
    built = get_object(target)
    refusing = getattr(sys.modules.get(built.__module__), reason.partition(".")[0], built)
    names: set[str] = set()
    for kind in (kind for each in (built, refusing) for kind in getattr(each, "__mro__", [each])):
        with suppress(ValueError):  # object, and what is written in C, tell nothing
            parameters = signature(kind).parameters.values()
            names |= {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return names


def _first_cause(error: BaseException) -> str:
    """The exception that a chain began with, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def own_targets(tree: Any, where: str, ours: Mapping[str, str], trusted: Sequence[str] = ()) -> Any:
    """The configuration of a file with our classes, by their names: their modules may have moved since.

    ours: name -> `_target_`. Raises ConfigError for a `_target_` that is none of ours, unless it lies in a `trusted`
    module, for `module:thing`, which registries import, and for an interpolation.
    """
    if isinstance(tree, list):
        return [own_targets(value, where, ours, trusted) for value in tree]
    if isinstance(tree, str):
        _check_text(tree, where, trusted)
    if not isinstance(tree, Mapping):
        return tree
    plain = {key: own_targets(value, where, ours, trusted) for key, value in tree.items()}
    target = plain.get("_target_")
    if target is None or any(str(target).startswith((f"{name}.", f"{name}:")) for name in trusted):
        return plain
    if target not in ours.values() and str(target).startswith("vlakit."):
        target = ours.get(str(target).rpartition(".")[2], target)
    if target not in ours.values():
        raise ConfigError(
            f"the file names code that conf/ does not: _target_ {target}",
            where=where,
            do="where you trust it: trusted=[MODULE], the module that it lies in",
        )
    return {**plain, "_target_": target}


def _check_text(text: str, where: str, trusted: Sequence[str]) -> None:
    if "${" in text:  # resolving one can make a `_target_` out of a text
        raise ConfigError(f"an unresolved value: {text[:60]}", where=where, do="such a file holds plain values only")
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text) and not any(
        text.startswith((f"{name}.", f"{name}:")) for name in trusted
    ):
        do = "where you trust it: trusted=[MODULE], the module that it lies in"
        raise ConfigError(f"the file names code: {text}", where=where, do=do)


def check_keys(tree: Any, where: str) -> None:
    """Raise ConfigError for a key of a training's configuration that no file of conf/ has at such a place."""
    known = _known_keys()

    def walk(node: Any, parent: str, path: str) -> None:
        for key, value in node.items() if isinstance(node, Mapping) and path not in OPEN else ():
            if (parent, str(key)) not in known:
                beside = [name for above, name in known if above == parent]
                do = f"{nearest(str(key), beside)} One of your own: --config-dir=DIR, a folder whose files have it"
                raise ConfigError(f"{f'{path}.{key}'.lstrip('.')!r} is no key of conf/", where=where, do=do)
            walk(value, str(key), f"{path}.{key}".lstrip("."))
        for value in node if isinstance(node, list) else ():
            walk(value, parent, path)

    walk(tree, "", "")


def _known_keys() -> set[tuple[str, str]]:
    """(key above, key) of all files of conf/ that say how to train; "" is above the first."""
    known: set[tuple[str, str]] = set()

    def gather(node: Any, parent: str) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else ():
            known.add((parent, str(key)))
            gather(value, str(key))
        for value in node if isinstance(node, list) else ():
            gather(value, parent)

    for root in config_roots():
        groups = {folder.name for folder in root.iterdir() if folder.is_dir()} - _NOT_TRAINING
        known |= {("", group) for group in groups}
        for file in (
            root / "train.yaml",
            root / "evaluate.yaml",
            *(f for g in groups for f in (root / g).glob("*.yaml")),
        ):
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
            content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
            parent = {"train.yaml": "", "evaluate.yaml": "evaluate"}.get(file.name, file.parent.name)
            parts = content.pop("defaults", [])
            gather(content, "" if "@package _global_" in text else parent)
            known |= {
                _place(parent, p.rpartition("@")[2])
                for part in parts
                if isinstance(part, dict)
                for p in part
                if "@" in p
            }
    return known


def _place(parent: str, path: str) -> tuple[str, str]:
    """(key above, key) of a path below a file's own key.

    >>> _place("strategy", "optimizer"), _place("callbacks", "choice.suite")
    (('strategy', 'optimizer'), ('choice', 'suite'))
    """
    above, _, last = path.rpartition(".")
    return above.rpartition(".")[2] or parent, last


def known_targets() -> dict[str, str]:
    """Name of a class -> `_target_`, of all files of conf/."""
    text = "\n".join(
        file.read_text(encoding="utf-8")
        for file in (file for root in config_roots() for file in sorted(root.rglob("*.yaml")))
    )
    targets = re.findall(r"^[ -]*_target_: *([\w.]+)", text, re.MULTILINE)
    return {target.rpartition(".")[2]: target for target in targets}
