"""Composing Hydra configurations: errors name the nearest key, and keys that an experiment invents are caught.

Files of the user's own folders (cli.words) are found beside vlakit's, and are checked as those are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, Node, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vlakit.cli.overrides import parse_overrides, single_runs
from vlakit.cli.targets import OPEN, check_modules
from vlakit.configs import conf_root, config_file, config_names, config_roots, shown, shown_folders
from vlakit.errors import ConfigError, nearest

LAYERED = ("experiment", "debug", "hparams_search", "scale")  # groups whose files write into the whole configuration
PROVIDER = "vlakit"  # of the user's folders, in Hydra's record of where a configuration came from

OmegaConf.register_new_resolver("min", min, replace=True)


class UserFolders(SearchPathPlugin):
    """The user's folders behind conf/ on Hydra's search path: a sweep's jobs get it too, whatever starts them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in config_roots()[1:]:
            search_path.append(PROVIDER, f"file://{folder}")


def hydra_root() -> str:
    """conf/, for Hydra to start from; from here on it finds the user's folders too."""
    Plugins.instance().register(UserFolders)
    return str(conf_root().absolute())


@contextmanager
def _composing() -> Iterator[None]:
    """Hydra on conf/, also inside a job of train.py, whose own Hydra is put back afterwards."""
    outer = GlobalHydra.instance()
    running, outer.hydra = outer.hydra, None
    try:
        with initialize_config_dir(hydra_root(), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def compose_config(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration `conf/<name>.yaml` with overrides; ConfigError names the nearest key or option."""
    return compose_chosen(name, overrides)[0]


def compose_chosen(name: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The same, and group -> the file chosen in it, for every group with one."""
    verb = name.partition("/")[0]
    from vlakit.cli.typed import as_text, check_keys, refuse_commas

    overrides = as_text(verb, overrides)
    refuse_commas(verb, overrides)
    try:
        with _composing():
            cfg = compose(name, whole(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise explained(name, overrides, error) from error
    with open_dict(cfg):
        choices = cfg.pop("hydra").runtime.choices
    check_modules(cfg)
    check_keys(verb, cfg, overrides)
    return cfg, {group: str(choice) for group, choice in choices.items() if str(choice) not in {"None", "null"}}


def whole(overrides: Sequence[str]) -> list[str]:
    """Overrides in which `data.mixture={my_robot: 1}` is the whole mixture: Hydra alone would add it to a file's own.

    >>> whole(["data=bridge", "data.mixture={my_robot: 1}"])
    ['data=bridge', 'data.mixture=null', 'data.mixture={my_robot: 1}']
    """
    lines: list[str] = []
    for line in overrides:
        key, _, value = line.lstrip("+").partition("=")
        lines += [f"{key}=null", line] if key in OPEN and value.startswith("{") else [line]
    return lines


def verb_config(verb: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain values of `conf/<verb>.yaml` with overrides, for verbs that choose from no group.

    Hydra is not asked: `dataset=bridge_orig` would mean the folder conf/dataset to it.
    """
    cfg = cast(DictConfig, OmegaConf.load(conf_root() / f"{verb}.yaml"))
    known = set(leaves(cfg))
    typed = _typed()
    if typed is not None:
        overrides = typed.as_text(verb, overrides)
        typed.refuse_commas(verb, overrides)
    for override in parse_overrides(overrides):
        key = override.key_or_group
        if key not in known:
            raise ConfigError(f"{key!r} is no key of vlakit {verb}", where="command line", do=_nearest_key(key, known))
        OmegaConf.update(cfg, key, override.value(), merge=False)
    if typed is not None:
        typed.check_keys(verb, cfg, overrides)
    return to_plain(cfg)


def _typed() -> ModuleType | None:
    """The checks of keys; None without pydantic, as `compare` needs NumPy, SciPy, Hydra and rich alone."""
    try:
        return import_module("vlakit.cli.typed")
    except ModuleNotFoundError as error:
        if error.name != "pydantic":
            raise
        return None


def to_plain(node: Any) -> Any:
    """Dicts, lists and scalars; every interpolation resolved. ConfigError names a value that must be given (`???`)."""
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", "") or str(error)
        raise ConfigError(f"no value for {key!r}", do=f"add {key}=... to the command line") from error


def leaves(node: Node | None, prefix: str = "") -> Iterator[str]:
    """Dotted names of all leaf keys; nothing is resolved."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
        for key in node:
            child = cast(Node | None, node._get_node(cast(str, key)))
            yield from leaves(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix


def check_run(name: str, overrides: Sequence[str]) -> None:
    """Compose every run that the overrides ask for; ConfigError for a key that does not exist, wherever it stands."""
    words = [word for word in whole(overrides) if not word.lstrip("+~").startswith("hydra")]
    for single in single_runs([*_searched(name, words), *words]):
        cfg, chosen = compose_chosen(name, single)
        plain, invented = _by_group(name, chosen, single)
        check_mappings(plain, single)
        for file, key in invented:
            known = set(leaves(cfg)) - {key for _, key in invented}
            where = shown(config_file(*file.split("/")))
            raise ConfigError(f"{key!r} is no key of the configuration", where=where, do=_nearest_key(key, known))


def _searched(name: str, overrides: Sequence[str]) -> list[str]:
    """What a chosen search file sweeps besides: keys of the command line may be those of its experiment alone."""
    search = [line for line in overrides if line.startswith("hparams_search=")]
    if not search:
        return []
    try:
        with _composing():
            swept = compose(name, search, return_hydra_config=True).hydra.sweeper.params or {}
    except HydraException:
        return []  # a file that does not exist is named when the runs are composed
    given = {override.key_or_group for override in parse_overrides(overrides)}
    return [f"{key}={value}" for key, value in swept.items() if key not in given]


def check_mappings(plain: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError for a single value given to a key that holds several in `plain`, such as lr=1e-3."""
    for override in parse_overrides(overrides):
        node = None  # also where the value hangs on Hydra's run, as that of paths.output does
        if not override.is_delete():
            node = OmegaConf.select(plain, override.key_or_group, throw_on_resolution_failure=False)
        key = override.key_or_group
        several = isinstance(node, DictConfig) and key not in OPEN and not config_names(key)
        if several and not isinstance(override.value(), dict):
            keys = [f"{key}.{name}" for name in cast(DictConfig, node)]
            raise ConfigError(
                f"{key!r} holds several values",
                where="command line",
                do=f"set one of {', '.join(keys)}",
            )


def _by_group(
    name: str, chosen: Mapping[str, str], overrides: Sequence[str]
) -> tuple[DictConfig, list[tuple[str, str]]]:
    """The configuration of these choices without layered files and values, and what each layered file adds to it.

    Hydra merges such a file without a word, so a misspelt key in it would silently change nothing. Of the overrides
    only Hydra's own are kept, which say where files are.
    """
    layers = {group: choice for group, choice in chosen.items() if group in LAYERED}
    groups = [o for o in overrides if o.startswith("hydra.")]
    groups += [f"{g}={c}" for g, c in chosen.items() if _own_group(g)]
    found: list[tuple[str, str]] = []
    with _composing():
        scale = ["scale=laptop"] if "scale" in layers else []
        plain = compose(name, [*groups, *scale])
        base = set(leaves(plain))
        for group, choice in layers.items():
            if f"{group}={choice}" not in scale:
                keys = set(leaves(compose(name, [*groups, f"{group}={choice}"]))) - base
                found += [(f"{group}/{choice}", key) for key in sorted(keys)]
    free = tuple(f"{key}." for key in ("hydra", *OPEN))
    return plain, [(file, key) for file, key in found if not key.startswith(free)]


def _own_group(group: str) -> bool:
    return "/" not in group and "@" not in group and group not in {*LAYERED, "hydra", "local"}


def explained(name: str, overrides: Sequence[str], error: Exception) -> ConfigError:
    """Hydra's complaint as an error that names what was probably meant."""
    message = f"{error}\n{error.__cause__ or ''}"
    option = re.search(r"Could not find '([\w-]+)/([^']+)'", message)
    if option:
        group, choice = option.groups()
        where, do = shown_folders(group), nearest(choice, config_names(group))
        return ConfigError(f"{group}={choice} does not exist", where=where, do=do)
    inside = re.search(r"In '([\w/.-]+)': Could not override '(\w+)@[\w.]+'.\s+Did you mean to override", message)
    if inside:
        file, group = inside.groups()
        where, folder = shown(config_file(*file.split("/"))), file.partition("/")[0]
        todo = f"write: override /{group}@_global_.{group}: NAME"
        if folder in LAYERED:
            todo = "begin the file with: # @package _global_"
        return ConfigError(f"'override /{group}' means one below {folder} here", where=where, do=todo)
    taken = re.search(r"An item is already at '([^']+)'", message)
    if taken:
        return ConfigError(
            f"{taken.group(1)!r} is there already", where="command line", do=f"leave the + out: {taken.group(1)}=VALUE"
        )
    if "Config group override must be" in message:
        return ConfigError(
            "the choice of a group is a name", where=" ".join(overrides), do="leave the word GROUP=null out"
        )
    key = re.search(r"Could not (?:override|append to|delete from config.|load) '?([\w.@/-]+)'?", message)
    if key:
        parent = next((name for name in OPEN if key.group(1).startswith(f"{name}.")), None)
        if parent is not None:
            do = f"add it: +{key.group(1)}=VALUE, or give the whole: {parent}={{NAME: VALUE}}"
            return ConfigError(f"{key.group(1)!r} is not there yet", where="command line", do=do)
        base = _defaults(name, overrides)
        keys = {*leaves(base), *(str(group) for group in base), *(LAYERED if name == "train" else ())}
        elsewhere = re.search(r"Did you mean to override (\S+)\?", message)
        return ConfigError(
            f"{key.group(1)!r} is no key of the configuration",
            where="command line",
            do=f"did you mean {elsewhere.group(1)}?" if elsewhere else _nearest_key(key.group(1), keys),
        )
    where = " ".join(overrides) or f"conf/{name}.yaml"
    return ConfigError(" ".join(message.split())[:300], where=where, do=f"vlakit {name} --help lists the keys")


def _defaults(name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration with the group choices of `overrides` that exist, and nothing else."""
    pairs = [(line, *line.partition("=")[::2]) for line in overrides]
    choices = [line for line, group, choice in pairs if group and choice in config_names(group)]
    with _composing():
        known = {*compose(name), *LAYERED}  # conf/optimizer is a group too, but not of the top
        with suppress(HydraException):  # one of the chosen files is what is wrong
            return compose(name, [line for line in choices if line.split("=")[0] in known])
        return compose(name)


def _nearest_key(key: str, keys: Iterable[str]) -> str:
    """The nearest full key; failing that, the keys whose last component is near."""
    keys = sorted(keys)
    close = nearest(key, keys)
    if close.startswith("did you mean"):
        return close
    last = key.rpartition(".")[2]
    by_last = nearest(last, {k.rpartition(".")[2] for k in keys})
    if by_last.startswith("did you mean"):
        words = re.findall(r"[\w-]+", by_last.removeprefix("did you mean"))
        return f"did you mean {', '.join(k for k in keys if k.rpartition('.')[2] in words)}?"
    return "top-level keys: " + ", ".join(sorted({k.split(".")[0] for k in keys}))
