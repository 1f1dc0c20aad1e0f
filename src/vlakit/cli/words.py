"""What every verb's command line may hold beside `key=value`: folders of the user's own, and spellings of before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from vlakit.cli.errors import as_vlakit_error
from vlakit.cli.moved import refuse_moved
from vlakit.configs import also_in
from vlakit.errors import ConfigError

OPTION = ("--config-dir", "-cd")
SEARCHPATH = "hydra.searchpath"
SPOKEN = {"data": ("init", "show")}  # of a verb: keys whose value may follow as a word of its own
ABOUT = "--config-dir DIR   files of your own beside vlakit's: DIR/strategy/NAME.yaml, DIR/dataset/NAME.yaml, ..."


@contextmanager
def own_folders(verb: str, words: Sequence[str]) -> Iterator[list[str]]:
    """The words without those that name folders, which are looked through meanwhile. Raises ConfigError."""
    rest, folders = split_folders(words)
    rest = written(verb, rest)
    refuse_moved(verb, rest)
    with also_in(folders):
        try:
            yield rest
        except Exception as error:
            known = as_vlakit_error(error)  # here, as it names the file of whatever could not be built
            if known is None or known is error:
                raise
            raise known from error


def written(verb: str, words: Sequence[str]) -> list[str]:
    """The words with `init DIR` written as init=DIR, where a verb has such words.

    >>> written("data", ["init", "my data", "out=mine.yaml"])
    ['init="my data"', 'out=mine.yaml']
    """
    if len(words) < 2 or words[0] not in SPOKEN.get(verb, ()) or words[1].startswith("-"):
        return list(words)
    value = words[1].replace('"', '\\"')
    return [f'{words[0]}="{value}"', *words[2:]]


def split_folders(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other words, and the folders of `--config-dir DIR`, `-cd DIR` and `hydra.searchpath=[file://DIR]`.

    >>> split_folders(["strategy=mine", "--config-dir", "conf", "hydra.searchpath=[file:///srv/conf]"])
    (['strategy=mine'], ['conf', '/srv/conf'])
    """
    rest: list[str] = []
    folders: list[str] = []
    coming = iter(words)
    for word in coming:
        option, _, value = word.partition("=")
        if option in OPTION:
            folders.append(value or next(coming, ""))
            if not folders[-1] or folders[-1].startswith("-"):
                raise ConfigError(f"{option} names no folder", where="command line", do=f"{option} DIR")
        elif option == SEARCHPATH:
            folders += [_folder(place) for place in _listed(word)]
        else:
            rest.append(word)
    return rest, folders


def _listed(word: str) -> list[str]:
    from vlakit.cli.configuration import parse_overrides

    places = parse_overrides([word])[0].value()
    if not isinstance(places, list):
        raise ConfigError(f"{SEARCHPATH} is a list", where=word, do=f"{SEARCHPATH}=[file://DIR], or --config-dir DIR")
    return [str(place) for place in places]


def _folder(place: str) -> str:
    """The folder that file://DIR or pkg://package.folder means."""
    if not place.startswith("pkg://"):
        return place.removeprefix("file://")
    package = place.removeprefix("pkg://")
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"no package called {package!r}", where=SEARCHPATH, do="put its folder on PYTHONPATH")
    return str(Path(next(iter(spec.submodule_search_locations))))
