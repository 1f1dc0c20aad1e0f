"""Which evaluations a command line means: read each, and file the trainings of one strategy together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlakit.compare.episodes import Arm, Episodes
from vlakit.compare.readers import read_all
from vlakit.errors import ConfigError


def gather(runs: Sequence[str] | Mapping[str, str | Sequence[str]]) -> list[Arm]:
    """Read evaluations and file those of one training under its name, one a seed; a mapping names them itself.

    Raises ConfigError for a path given twice, a repeated seed and a copied run, and what the readers raise.
    """
    given = list(runs.items()) if isinstance(runs, Mapping) else [(path, path) for path in runs]
    named = [(name, path) for name, paths in given for path in ([paths] if isinstance(paths, str) else paths)]
    places = [Path(path).resolve() for _, path in named]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ConfigError("a run is compared with itself", where=str(named[i][1]), do="name each run once")
    groups = _groups(named, named_by_user=isinstance(runs, Mapping))
    if not isinstance(runs, Mapping):
        _check_seeds(groups)
    twins = [m for g in groups.values() for m in g if sum(m.digest == other.digest for other in g) > 1]
    if twins:
        raise ConfigError(
            "two trainings of one name hold the very same bytes",
            where=" and ".join(str(twin.source) for twin in twins[:3]),
            do="leave the copy out: it is no further training",
        )
    if len(groups) < 2:
        raise ConfigError(
            f"all of them are trainings of {next(iter(groups))}", where="runs", do="runs={A: [PATH,...], B: [PATH,...]}"
        )
    return [Arm(name, evaluations) for name, evaluations in groups.items()]


def _groups(named: Sequence[tuple[str, str]], *, named_by_user: bool) -> dict[str, list[Episodes]]:
    groups: dict[str, list[Episodes]] = {}
    for name, path in named:
        for evaluation in read_all(path):
            groups.setdefault(name if named_by_user else kind(evaluation.run), []).append(evaluation)
    if sum(map(len, groups.values())) < 2:
        raise ConfigError("one run makes no pair", where="runs", do="runs=[A,B,...], at least two")
    return groups


def kind(run_name: str) -> str:
    """A run's name without its seed.

    >>> kind("lora_r32[seed=0]"), kind("lora_r32[strategy.rank=8,seed=1]")
    ('lora_r32', 'lora_r32[strategy.rank=8]')
    """
    name = re.sub(r"(?<=[\[,])seed=\d+,?|,seed=\d+(?=\])", "", run_name)
    return name.replace(",]", "]").removesuffix("[]")


def _check_seeds(groups: Mapping[str, list[Episodes]]) -> None:
    for name, members in groups.items():
        seeds = [member.seed for member in members]
        if len(members) > 1 and (None in seeds or len(set(seeds)) < len(seeds)):
            raise ConfigError(
                f"{len(members)} evaluations are called {name}, and their training seeds do not tell them apart",
                where=" and ".join(str(member.source) for member in members[:3]),
                do="name them: runs={first: PATH, second: PATH}, or runs={A: [PATH,PATH], ...} for seeds of one",
            )
