"""More episodes into a finished folder: shards of their own behind those that are there, which stay as they are.

They are converted aside, then moved in; statistics are those of all; the index is written last. A killed run goes on
where it stopped, and until then the folder is what it was.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from vlakit.data.shards.checks import notes
from vlakit.data.shards.columns import columns_path
from vlakit.data.shards.convert import convert, statistics_of
from vlakit.data.shards.index import INDEX_NAME, SPLITS, STATISTICS_NAME, ShardIndex, load_index, save_index
from vlakit.data.shards.statistics import save_statistics
from vlakit.data.shards.table import check_size
from vlakit.data.source import Source, open_source
from vlakit.data.specs.spec import DatasetSpec, fingerprint
from vlakit.errors import ConfigError
from vlakit.files import locked

ASIDE = ".append"


def append(
    source: Source | Path,
    out: Path,
    spec: DatasetSpec,
    *,
    workers: int | str = 1,
    progress: Callable[[int, int], None] | None = None,
) -> ShardIndex:
    """Convert `source` with the options that `out` was made with; returns its new index.

    Raises ConfigError for another spec and for a source that `out` holds already, NotAShardFolder, and as `convert`.
    """
    index, aside = load_index(out), out / ASIDE
    _forget(aside, index)
    opened = open_source(source) if isinstance(source, Path) else source
    _check(index, spec, opened, out)
    options: dict[str, Any] = dict(index.plan["options"])
    options["cameras"] = tuple(options["cameras"])
    added = convert(opened, aside, spec, workers=workers, progress=progress, first=_first(index), **options)
    with locked(out):
        if load_index(out).shards != index.shards:
            raise ConfigError("another process changed this folder", where=str(out), do="give the command again")
        for shard in added.shards:
            for file in (aside / shard.url, *aside.glob(f"{columns_path(aside, shard).name}*")):
                if file.is_file():  # else a run that was killed has moved it
                    file.replace(out / file.name)
            check_size(out, shard)
        joined = _joined(index, added)
        statistics = statistics_of(out, joined.shards, joined.cameras, spec)
        kept = [note for note in (*index.notes, *added.notes) if note.startswith("left out")]
        joined = replace(joined, notes=(*notes(statistics), *kept))
        save_statistics(out / STATISTICS_NAME, {spec.name: statistics})
        save_index(out, joined)
    rmtree(aside)
    return joined


def _first(index: ShardIndex) -> dict[str, tuple[int, int]]:
    """Split -> the numbers of the next shard and of the next episode."""
    counts = index.counts()
    return {split: (counts[split]["shards"], counts[split]["episodes"]) for split in SPLITS}


def _joined(index: ShardIndex, added: ShardIndex) -> ShardIndex:
    plan = {**index.plan, "appended": [*index.plan.get("appended", []), added.plan["source"]]}
    skipped = dict(Counter(index.skipped) + Counter(added.skipped))
    return replace(index, shards=(*index.shards, *added.shards), skipped=skipped, plan=plan)


def _forget(aside: Path, index: ShardIndex) -> None:
    """What lies aside is in the index already, where a run was killed between its last two steps."""
    if (aside / INDEX_NAME).is_file() and set(load_index(aside).shards) <= set(index.shards):
        rmtree(aside)


def _check(index: ShardIndex, spec: DatasetSpec, source: Source, out: Path) -> None:
    if (spec.name, fingerprint(spec)) != (index.dataset, index.plan["spec"]):
        what = f"the shards are of {index.dataset!r} by another spec than this one of {spec.name!r}"
        raise ConfigError(
            what, where=str(out), do="give the spec that they were made with, or out=DIR for a new folder"
        )
    held = [index.plan["source"], *index.plan.get("appended", [])]
    if json.loads(json.dumps(source.identity())) in json.loads(json.dumps(held)):
        raise ConfigError("this folder holds that source already", where=str(out), do="give another source")
