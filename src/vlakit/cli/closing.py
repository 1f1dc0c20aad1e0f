"""The last lines of a training: what its numbers mean, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vlakit.cli.suites import suite_names

if TYPE_CHECKING:
    from vlakit.data.stream.datamodule import VLADataModule


def last_words(metrics: Mapping[str, float], data: VLADataModule, output: Path, suite: str | None) -> Iterator[str]:
    """A line a dataset with its held-out L1 beside two trivial answers, then what to do next.

    suite: in which the run was evaluated at its end.
    """
    from vlakit.evaluation.baselines import baselines

    settings, shards = data.processor.settings, getattr(data, "shards", {})  # a recipe's own data may be in none
    for name, folder in shards.items():
        l1 = metrics.get(f"val/l1/{name}")
        found = None if l1 is None else baselines(folder, chunk=settings.ahead, by=settings.normalization)
        if l1 is not None and found is not None:
            yield f"held-out frames of {name}: {found.beside(l1)}"
    place = shlex.quote(str(output))
    known = suite_names()  # reads the files of conf/suite
    fitting = [name for name in shards if name in known]
    if suite is not None:
        yield f"next: vlakit passport run={place}"
    elif fitting:
        yield f"next: vlakit evaluate ckpt={place} suite={fitting[0]}"
    elif shards:
        yield f"next: vlakit score ckpt={place}"
    else:  # of rollouts, say: which suite they are of is not in the data
        yield f"next: vlakit evaluate ckpt={place} suite=SUITE"
