"""Bars on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vlakit.evaluation.records import EpisodeRecord


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is fed with (done, total)."""
    with _bar(what) as show:
        yield lambda done, total: show(done, total, "")


@contextmanager
def success_bar() -> Iterator[Callable[[Sequence[EpisodeRecord], int], None]]:
    """A bar that is fed with the records so far and the episodes in all: running success, its 95 % interval."""
    from vlakit.stats.intervals import wilson

    with _bar("episodes") as show:

        def show_records(records: Sequence[EpisodeRecord], total: int) -> None:
            if not records:
                return show(0, total, "")
            won = sum(record.success for record in records)
            low, high = wilson(won, len(records))
            return show(len(records), total, rf"success {won / len(records):.3f} \[{low:.3f}, {high:.3f}]")

        yield show_records


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(TextColumn(what), *columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None, note="")
        yield lambda done, total, note: progress.update(task, completed=done, total=total, note=note)
