"""Any source to WebDataset shards: planned first, then each shard is made alone, by this process or by several.

An episode is never split over two shards, its frames are adjacent and in order, actions keep their physical units. A
killed run continues with the shards that are missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from vlakit import __version__
from vlakit.data.shards.checks import notes
from vlakit.data.shards.columns import Columns, columns_path, keep_digest, open_columns, scan
from vlakit.data.shards.frames import episode_members
from vlakit.data.shards.index import INDEX_NAME, SPLITS, STATISTICS_NAME, ShardEntry, ShardIndex, load_index, save_index
from vlakit.data.shards.journal import Journal, already_finished
from vlakit.data.shards.options import ConversionOptions, OptionKeywords, no_camera
from vlakit.data.shards.plan import BROKEN, SKIPPED, Recipe, ShardPlan, plan_shards
from vlakit.data.shards.pool import Map, mapping
from vlakit.data.shards.splits import SplitPlan, plan_splits
from vlakit.data.shards.statistics import compute_statistics, default_mask, save_statistics
from vlakit.data.shards.writer import ShardWriter
from vlakit.data.source import Header, Source, open_source
from vlakit.data.specs.spec import DatasetSpec, fingerprint
from vlakit.errors import InvalidData
from vlakit.files import atomic_writer, locked
from vlakit.schema import DatasetStatistics, Int64

log = logging.getLogger(__name__)
LAYOUT = 1  # counts changes of what convert writes; a folder begun with another layout is not continued
MEASURED_TOGETHER = 64  # episodes a task
Progress = Callable[[int, int], None]


def ensure(source: Source | Path, out: Path, spec: DatasetSpec, **options: Unpack[OptionKeywords]) -> ShardIndex:
    """The index of `out`, whatever options made it; where there is none, `convert`, or wait for who is at it."""
    if (out / INDEX_NAME).is_file():
        return load_index(out)
    log.info("making shards of %s in %s", spec.name, out)
    return convert(source, out, spec, wait=True, **options)


def convert(
    source: Source | Path,
    out: Path,
    spec: DatasetSpec,
    *,
    workers: int | str = 1,
    progress: Progress | None = None,
    wait: bool = False,
    first: Mapping[str, tuple[int, int]] | None = None,
    **options: Unpack[OptionKeywords],
) -> ShardIndex:
    """Write train and val shards, statistics.json and, last, shardindex.json to `out`; returns that index.

    The same call again continues with what is missing, or does nothing when all is done. workers: processes, or "ray";
    the bytes do not depend on it. progress is called with (episodes done, episodes in all). wait: until another
    conversion of `out` ends. first: as `Recipe` has it, for `append`. Raises ConfigError when `out` holds a conversion
    with other options, spec or source, or is being written; DiskFull; and what reading the source and `mapping` raise.
    """
    executor = mapping(workers)
    recipe = replace(open_recipe(source, spec, **options), first=dict(first or {}))
    chosen = recipe.options
    settings = _settings(recipe)
    with locked(out, wait):
        journal = Journal(out)
        if already_finished(out, settings):
            journal.close()  # a run killed between its last two steps left one
            log.info("%s is already finished: nothing to do", out)
            return load_index(out)
        journal.start(settings)
        conversion = _Conversion(recipe, journal, plan_splits(recipe.source, chosen.val_fraction), progress)
        with executor as run:
            sizes = {split: conversion.measure(split, run) for split in SPLITS}
            shards = conversion.make(sizes, run, watched=workers == 1)
        index = conversion.finish(sizes, shards, settings)
        journal.close()
    return index


def open_recipe(source: Source | Path, spec: DatasetSpec, **options: Unpack[OptionKeywords]) -> Recipe:
    """Source, spec and options together. Raises ConfigError for options that do not fit, and as `open_source`."""
    chosen = ConversionOptions(**{**options, "cameras": tuple(options.get("cameras", ("primary",)))})
    if any(spec.images.values()):
        chosen.check(spec)
    opened = open_source(source) if isinstance(source, Path) else source
    if not any(spec.images.values()):
        raise no_camera(spec, opened.survey().cameras)
    return Recipe(opened, spec, chosen)


def make_shard(
    recipe: Recipe, journal: Journal, plan: ShardPlan, advance: Callable[[int], None] | None = None
) -> ShardEntry:
    """Write one shard under its partial name, and its columns; what is written depends on recipe and plan alone."""
    options = recipe.options
    writer = ShardWriter(journal.partial(plan.name), f"{plan.name}.tar", plan.split)
    try:
        for episode, header in plan.episodes:
            trajectory = recipe.trajectory(header)
            members = episode_members(trajectory, episode, options.cameras, options.image_size, str(header))
            writer.add(episode, len(trajectory), members)
            if advance:
                advance(1)
        entry = writer.finish()
        columns = scan(writer.partial, entry, options.cameras, recipe.spec.proprio)
        with atomic_writer(columns_path(journal.out, entry)) as stream:
            np.save(stream, columns)
        keep_digest(journal.out, entry)
        return entry
    except BaseException:
        writer.abandon()
        raise


@dataclass(slots=True)
class _Conversion:
    """The steps of one conversion."""

    recipe: Recipe
    journal: Journal
    splits: SplitPlan
    progress: Progress | None
    n_done: int = 0
    n_episodes: int = 0
    left_out: list[str] = field(default_factory=list[str])

    def measure(self, split: str, run: Map) -> Int64:
        """Frames and bytes (n, 2) of each episode of a split, as the plan needs them."""
        sizes = self.journal.sizes(split)
        if sizes is None:
            chunks = _chunks(self.splits.headers(self.recipe.source, split))
            measured = run(partial(self.recipe.sizes, split), chunks)
            sizes = np.concatenate([np.zeros((0, 2), np.int64), *measured])
            self.journal.keep_sizes(split, sizes)
        self.n_episodes += int((sizes[:, 0] > 0).sum())
        if (sizes[:, 0] == BROKEN).any():
            self._leave_out(split, sizes)
        return sizes

    def _leave_out(self, split: str, sizes: Int64) -> None:
        """Write down each episode that cannot be used, with its reason; stop where they are too many."""
        headers = zip(self.splits.headers(self.recipe.source, split), sizes[:, 0].tolist(), strict=True)
        broken = [(header, self.recipe.why_not(header)) for header, mark in headers if mark == BROKEN]
        errors = [(header, error) for header, error in broken if error is not None]
        limit = self.recipe.options.max_errors
        if errors and len(errors) > limit * len(sizes):
            first = errors[0][1]
            what = f"{len(errors)} of {len(sizes)} {split} episodes cannot be used, and max_errors is {limit:g}"
            raise type(first)(f"{what}; the first: {first.what}", where=first.where, do=first.do)
        self.left_out += [f"left out: {header}: {error.what} ({error.where})" for header, error in errors]

    def make(self, sizes: Mapping[str, Int64], run: Map, watched: bool) -> list[ShardEntry]:
        """All shards in order; missing ones are made. watched: each episode can be reported, not only shards."""
        finished, names = self.journal.finished(), list[str]()
        if finished:
            log.info("%d finished shards kept", len(finished))

        def missing() -> Iterator[ShardPlan]:
            for split in SPLITS:
                headers = self.splits.headers(self.recipe.source, split)
                for plan in plan_shards(self.recipe, split, headers, sizes[split]):
                    names.append(plan.name)
                    if plan.name in finished:
                        self.advance(len(plan.episodes))
                    else:
                        yield plan

        make_one = partial(make_shard, self.recipe, self.journal, advance=self.advance if watched else None)
        for entry in run(make_one, missing()):
            self.journal.record(entry)
            finished[entry.name] = entry
            if not watched:
                self.advance(len(entry.episodes))
        return [finished[name] for name in names]

    def finish(self, sizes: Mapping[str, Int64], shards: Sequence[ShardEntry], settings: dict[str, Any]) -> ShardIndex:
        """Statistics and index of finished shards; from then on the folder is one."""
        spec, out = self.recipe.spec, self.journal.out
        skipped = _skipped(sizes.values())
        if not any(shard.split == "train" for shard in shards):
            reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
            remedy = f"check the spec's language and frame filter (skipped: {reasons})"
            raise InvalidData("every train episode was skipped", where=str(self.recipe.source.path), do=remedy)
        statistics = statistics_of(out, shards, self.recipe.options.cameras, spec)
        index = ShardIndex(
            dataset=spec.name,
            shards=tuple(shards),
            vlakit_version=__version__,
            cameras=self.recipe.options.cameras,
            action_size=len(statistics.mask),
            absolute_action_mask=tuple(spec.absolute_action_mask or (not bool(value) for value in statistics.mask)),
            split_rule=self.splits.rule,
            proprio=spec.proprio,
            skipped=skipped,
            plan=settings,
            notes=(*notes(statistics), *self.left_out),
        )
        save_statistics(out / STATISTICS_NAME, {spec.name: statistics})
        save_index(out, index)
        return index

    def advance(self, n_episodes: int) -> None:
        """Report episodes that are done."""
        self.n_done += n_episodes
        if self.progress:
            self.progress(self.n_done, self.n_episodes)


def statistics_of(
    out: Path, shards: Sequence[ShardEntry], cameras: Sequence[str], spec: DatasetSpec
) -> DatasetStatistics:
    """Of all actions and all proprio of these shards. Raises InvalidData where their widths differ."""
    columns = [open_columns(out, shard, cameras, spec.proprio) for shard in shards]
    for one, shard in zip(columns, shards, strict=True):
        _check_widths(columns[0], one, shard.url)
    action, proprio = ([one[kind].T for one in columns] for kind in ("action", "proprio"))  # (D, n) each
    mask = np.array(spec.mask) if spec.mask else default_mask(len(action[0]))
    return compute_statistics(action, proprio, sum(len(shard.episodes) for shard in shards), mask)


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {
        **({"first": recipe.first} if recipe.first else {}),
        "layout": LAYOUT,
        "dataset": recipe.spec.name,
        "spec": fingerprint(recipe.spec),
        "source": recipe.source.identity(),
        "options": recipe.options.written(),
    }


def _chunks(headers: Iterator[Header]) -> Iterator[list[Header]]:
    while chunk := list(islice(headers, MEASURED_TOGETHER)):
        yield chunk


def _skipped(sizes: Iterable[Int64]) -> dict[str, int]:
    n_frames = np.concatenate([one[:, 0] for one in sizes])
    counts = {reason: int((n_frames == mark).sum()) for mark, reason in SKIPPED.items()}
    return {reason: count for reason, count in sorted(counts.items()) if count}


def _check_widths(first: Columns, columns: Columns, url: str) -> None:
    for kind in ("action", "proprio"):
        width, expected = columns[kind].shape[1], first[kind].shape[1]
        if width != expected:
            message = f"{kind} of {width} values where the first shard has {expected}"
            raise InvalidData(message, where=url, do="check the dataset's spec")
