"""`train.py dataset=my_robot.yaml source=DIR`: a dataset of one's own in one command, in the words that conf/ knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlakit.errors import ConfigError


def with_own_data(words: Sequence[str]) -> list[str]:
    """The words with `dataset=` and `source=` written as keys of `data`; a choice of `data=` stays the user's.

    Raises ConfigError for a source without a dataset, several datasets, or a file that is not there.

    >>> with_own_data(["experiment=full", "dataset=bridge_orig", "source=sample"])[2:]
    ['data.mixture={bridge_orig: 1}', 'data.sources={bridge_orig: "sample"}']
    """
    values = {key: word.partition("=")[2] for word in words if (key := word.partition("=")[0]) in ("dataset", "source")}
    rest = [word for word in words if word.partition("=")[0] not in values]
    if not values:
        return rest
    dataset = values.get("dataset", "")
    if not dataset or "," in dataset:
        what = "source=DIR names no dataset" if not dataset else f"{dataset} are several datasets"
        do = "dataset=NAME or dataset=FILE.yaml; several at once: data.mixture={A: 1, B: 2}"
        raise ConfigError(what, where="command line", do=do)
    chosen = any(word.startswith("data=") for word in rest)
    return [*rest, *([] if chosen else ["data=own"]), *_keys(dataset, values.get("source"))]


def _keys(dataset: str, source: str | None) -> list[str]:
    name = Path(dataset).stem
    keys = [_mapping("data.mixture", name, 1)]
    if source is not None:
        keys.append(_mapping("data.sources", name, source if source == "sample" else str(Path(source).absolute())))
    if dataset.endswith((".yaml", ".yml")):
        if not Path(dataset).is_file():
            raise ConfigError(
                "no such file", where=f"dataset={dataset}", do="give a dataset's YAML, or a name of conf/dataset"
            )
        keys.append(_mapping("data.specs", name, str(Path(dataset).absolute())))
    return keys


def _mapping(key: str, name: str, value: str | int) -> str:
    """A word that Hydra reads as a mapping; in quotes a path may hold spaces, commas and brackets."""
    quoted = '"' + value.replace('"', '\\"') + '"' if isinstance(value, str) else value
    return f"{key}={{{name}: {quoted}}}"
