"""The page of a shard folder: what a model will see of it, through the processor of that model; it loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlakit import __version__
from vlakit.compare.grids import Grid
from vlakit.data.shards.reader import EpisodeRow, SampleRef, ShardFolder
from vlakit.data.shards.summary import ALIKE, MOST_COMPARED, Alike, Summary, near_duplicates, summarize
from vlakit.errors import one_line, printable
from vlakit.files import write_atomically
from vlakit.processing.augment import ImageAugmentation
from vlakit.processing.normalizer import bounds_of, mask_of
from vlakit.processing.processor import Processor
from vlakit.reports.page.html_page import Scale, jpeg_base64, render, scale_of
from vlakit.reports.page.html_table import Chart, Line, drawn, slot
from vlakit.schema import Float32, Sample

QUALITY = 90
LONGEST = 400  # frames of the episode whose actions are drawn
MOST_PAIRS = 50  # of near-duplicates
LINES = ("action", "as it comes back")


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: place and width in per cent, height as a share of the highest; out: beyond bounds."""

    x: float
    width: float
    height: float
    says: str
    out: bool = False


@dataclass(frozen=True)
class Histogram:
    """marks: (place in per cent, word) of lines across it."""

    title: str
    says: str
    x: Scale
    bars: Sequence[Bar]
    marks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Frame:
    """A moment: pictures as (what it is, base64 JPEG), its action, the ids it is learnt as, how these come back."""

    key: str
    instruction: str
    pictures: Sequence[tuple[str, str]]
    action: Float32
    ids: str
    decoded: Float32


@dataclass(frozen=True)
class DataPage:
    """What is on the page: for programs."""

    summary: Summary
    frames: Sequence[Frame]
    duplicates: Sequence[Alike]


def write_data_page(
    file: Path,
    folder: ShardFolder,
    processor: Processor,
    augmentation: ImageAugmentation | None = None,
    *,
    model: str,
    n_frames: int = 12,
) -> DataPage:
    """Write the page of all frames of `folder`, `n_frames` of them in pictures. Raises what reading and encoding do."""
    mine = processor.for_training({folder.dataset: folder.statistics}, augmentation)
    statistics, kind = folder.statistics, mine.settings.normalization
    low, high = bounds_of(statistics, kind)
    mask = mask_of(statistics, kind)
    summary = summarize(folder, (low, high), mask, lambda action: mine.round_trip(action, folder.dataset))
    frames = [_frame(folder, mine, ref) for ref in _spread(folder, n_frames)]
    duplicates = near_duplicates(list(summary.instructions))
    row = _drawn_episode(folder)
    text = render(
        "data.html.j2",
        dataset=folder.dataset,
        facts=_facts(folder, mine, model, summary),
        frames=frames,
        about_frames=_about_frames(mine),
        tokens=_tokens(frames),
        charts=_charts(folder, mine, row, summary),
        slots={name: slot(place) for place, name in enumerate(LINES)},
        about_episode=f"{row.episode}, {min(row.n_frames, LONGEST)} frames, in physical units.",
        histograms=[_of_column(i, summary, (low[i], high[i]), bool(mask[i])) for i in range(len(low))],
        about_histograms="Of all frames, in physical units. Dashed lines are what becomes -1 and +1; what lies beyond"
        " them, orange, is clipped. A column without lines is taken as it is.",
        clipping=_clipping(summary, low, high, mask),
        lengths=_of_lengths(summary),
        instructions=_instructions(summary),
        duplicates=_duplicates(duplicates),
        about_duplicates=f"Pairs of the {MOST_COMPARED} most frequent instructions with {ALIKE:.0%} of their letters"
        " alike; only a person knows whether two are one task.",
        notes=[one_line(note) for note in folder.index.notes],
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text)
    return DataPage(summary, frames, duplicates)


def _spread(folder: ShardFolder, n_frames: int) -> list[SampleRef]:
    """Frames evenly over all, in order."""
    rows, total = folder.first_rows, folder.first_rows[-1]
    wanted = np.unique(np.linspace(0, total - 1, min(n_frames, total)).astype(np.int64))
    shards = np.searchsorted(rows, wanted, "right") - 1
    return [
        SampleRef(folder.dataset, int(shard), int(row) - rows[int(shard)])
        for shard, row in zip(shards, wanted, strict=True)
    ]


def _frame(folder: ShardFolder, processor: Processor, ref: SampleRef) -> Frame:
    settings = processor.settings
    sample = folder.read_sample(ref, window=settings.window, chunk=settings.ahead, cameras=settings.cameras)
    action = sample.actions[:1]
    spelled = processor.spelled(processor.normalized_actions(action, folder.dataset))
    ids = " ".join(map(str, spelled.get("ids", ())))
    pictures = _pictures(processor.for_validation(), sample, "seen")
    if processor.augmentation is not None:
        pictures += _pictures(processor, sample, "in training")
    decoded = processor.round_trip(action, folder.dataset)[0]
    return Frame(one_line(sample.key), printable(sample.instruction), pictures, action[0], ids, decoded)


def _pictures(processor: Processor, sample: Sample, what: str) -> list[tuple[str, str]]:
    """The latest picture of each camera, as it enters the first tower."""
    pixels = processor.encode(sample).pixels
    return [(f"{camera}, {what}", jpeg_base64(processor.shown(one[-1]), QUALITY)) for camera, one in pixels.items()]


def _about_frames(processor: Processor) -> str:
    side, cameras = processor.settings.image_size, ", ".join(processor.settings.cameras)
    trained = " Beside it, as training augments it." if processor.augmentation is not None else ""
    return f"Each as the first tower gets it, {side} x {side}, normalisation undone ({cameras}).{trained}"


def _facts(folder: ShardFolder, processor: Processor, model: str, summary: Summary) -> list[tuple[str, str]]:
    index = folder.index
    counts = (
        f"{split}: {c['episodes']:,} episodes, {c['frames']:,} frames, {c['shards']:,} shards"
        for split, c in index.counts().items()
        if c["frames"]
    )
    skipped = ", ".join(f"{count:,} ({why})" for why, count in index.skipped.items())
    facts = [
        ("splits", "; ".join(counts)),
        ("cameras", ", ".join(index.cameras)),
        ("proprio", ", ".join("a column of zeros" if key is None else key for key in index.proprio)),
        ("left out", skipped),
        ("instructions", f"{len(summary.instructions):,}"),
        ("model", f"{model}: {processor.kind}, {processor.settings.resize}, {processor.settings.normalization}"),
        ("sha256", folder.content_hash[:16]),
        ("made with", f"vlakit {__version__}"),
    ]
    return [(term, one_line(word)) for term, word in facts if word]


def _tokens(frames: Sequence[Frame]) -> Grid:
    """A row a number of a pictured frame."""
    rows = [
        [one.key, f"{i}", f"{value:.5g}", id_, f"{back:.5g}", f"{back - value:+.2g}"]
        for one in frames
        for i, (value, back, id_) in enumerate(zip(one.action, one.decoded, _ids(one), strict=True))
    ]
    header = ["what", "column", "action", "id", "comes back as", "difference"]
    return Grid("Their actions, and what the form they are learnt in comes back as", header, rows)


def _ids(frame: Frame) -> list[str]:
    """One id a number, or "-" where the policy spells otherwise."""
    ids = frame.ids.split()
    return ids if len(ids) == len(frame.action) else ["-"] * len(frame.action)


def _drawn_episode(folder: ShardFolder) -> EpisodeRow:
    """The longest of the first split."""
    return max(folder.episodes(folder.splits[0]), key=lambda row: row.n_frames)


def _charts(folder: ShardFolder, processor: Processor, row: EpisodeRow, summary: Summary) -> list[Chart]:
    """A chart a column, each over the range that it has in the whole dataset."""
    first, n = SampleRef(folder.dataset, row.shard, row.first_frame), min(row.n_frames, LONGEST)
    action = folder.read_sample(first, chunk=n, cameras=()).actions
    decoded = processor.round_trip(action, folder.dataset)
    x = scale_of([0.0, float(n)], whole=True)
    charts: list[Chart] = []
    for i in range(action.shape[1]):
        y = scale_of([float(summary.low[i]), float(summary.high[i]), *map(float, decoded[:, i])])
        lines: list[Line] = [
            drawn(name, f"{name}, column {i}", list(enumerate(values[:, i].tolist())), x, y)
            for name, values in zip(LINES, (action, decoded), strict=True)
        ]
        lines[0] = replace(lines[0], mean=True)  # thick, so that it is seen under the other
        charts.append(Chart(f"column {i}", x, y, lines))
    return charts


def _of_column(i: int, summary: Summary, bounds: tuple[float, float], normalised: bool) -> Histogram:
    low, high = float(summary.low[i]), float(summary.high[i])
    limits = [low, high, *(map(float, bounds) if normalised else ())]
    edges = np.linspace(low, high, summary.counts.shape[1] + 1) if low < high else np.array([low - 0.5, low + 0.5])
    counts = summary.counts[i] if low < high else summary.counts[i].sum(keepdims=True)
    x = scale_of([*limits, *edges[[0, -1]].tolist()])
    outside = (edges[1:] <= bounds[0]) | (edges[:-1] >= bounds[1]) if normalised else np.zeros(len(counts), bool)
    marks = [(x.at(float(bound)), f"{name}: {bound:.5g}") for name, bound in zip("-+", bounds, strict=True)]
    share = f", {100 * summary.outside[i]:.2f} % clipped" if normalised else ", not normalised"
    says = f"column {i}: {low:.4g} to {high:.4g}{share}"
    return Histogram(f"column {i}{share}", says, x, _bars(edges, counts, x, outside), marks if normalised else ())


def _of_lengths(summary: Summary) -> Histogram:
    lengths = summary.lengths
    shortest, longest = int(lengths.min()), int(lengths.max())
    n_bins = min(40, longest - shortest + 1)
    counts, edges = np.histogram(lengths, n_bins, (shortest - 0.5, longest + 0.5))
    says = f"{len(lengths):,} episodes of {shortest:,} to {longest:,} frames, half of them up to {np.median(lengths):g}"
    x = scale_of([shortest - 0.5, longest + 0.5], whole=True)
    return Histogram(says, says, x, _bars(edges, counts, x, np.zeros(n_bins, bool)))


def _bars(edges: np.ndarray, counts: np.ndarray, x: Scale, outside: np.ndarray) -> list[Bar]:
    """Bars that hold something; none is too low to be seen."""
    most = max(int(counts.max()), 1)
    return [
        Bar(
            x.at(float(edges[k])),
            round(x.at(float(edges[k + 1])) - x.at(float(edges[k])), 2),
            max(0.015, float(count) / most),
            f"{int(count):,} from {edges[k]:.4g} to {edges[k + 1]:.4g}",
            bool(outside[k]),
        )
        for k, count in enumerate(counts.tolist())
        if count
    ]


def _clipping(summary: Summary, low: Any, high: Any, mask: Any) -> Grid:
    header = ["column", "least", "becomes -1", "becomes +1", "most", "clipped", "furthest lost", "mean error", "worst"]
    rows = [
        [
            f"{i}",
            f"{summary.low[i]:.4g}",
            f"{low[i]:.4g}" if mask[i] else "-",
            f"{high[i]:.4g}" if mask[i] else "-",
            f"{summary.high[i]:.4g}",
            f"{100 * summary.outside[i]:.2f} %" if mask[i] else "-",
            f"{summary.lost[i]:.4g}" if mask[i] else "-",
            f"{summary.error[i]:.2g}",
            f"{summary.worst[i]:.2g}",
        ]
        for i in range(len(summary.low))
    ]
    return Grid("What clipping and tokens lose, in physical units", header, rows)


def _instructions(summary: Summary) -> Grid:
    rows = [[text or "(none)", f"{count:,}"] for text, count in list(summary.instructions.items())[:200]]
    return Grid("Instructions", ["task", "episodes"], rows)


def _duplicates(pairs: Sequence[Alike]) -> Grid:
    rows = [[pair.a, pair.b, pair.differ] for pair in pairs[:MOST_PAIRS]]
    return Grid("Near-duplicate instructions", ["a", "b", "what"], rows)
