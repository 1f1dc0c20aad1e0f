"""Videos and contact sheets of recorded episodes: the recorded actions are replayed, so no picture is ever stored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlakit.errors import InvalidData, PartMissing
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.suite import InitialState, Suite
from vlakit.files import atomic_writer
from vlakit.schema import UInt8

log = logging.getLogger(__name__)
CAPTION, GAP = 18, 4  # pixels
GREEN, RED, GREY = (20, 110, 40), (170, 30, 30), (90, 90, 90)


@dataclass(frozen=True)
class Film:
    """The pictures of one episode: T + 1 of (S, S, 3), the first before the first action."""

    record: EpisodeRecord
    pictures: list[UInt8]

    @property
    def caption(self) -> str:
        """What was asked, and how it ended."""
        record = self.record
        end = "failed: " + record.error if record.error else _ending(record)
        return f"{record.instruction}  [{end}, {record.steps} steps]"


def chosen(records: Sequence[EpisodeRecord], n: int) -> list[EpisodeRecord]:
    """n episodes to look at: all tasks in turn, of each its first starts, however they ended."""
    by_task: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    return [one for row in zip_longest(*by_task.values()) for one in row if one][:n]


def headline(records: Sequence[EpisodeRecord]) -> str:
    """What a sheet of `chosen` says above its rows: how they were chosen, and how often all of them succeed."""
    rate = sum(record.success for record in records) / len(records)
    return f"first starts of each task, however they ended; success of all {len(records)} episodes: {100 * rate:.1f} %"


def films(
    suite: Suite, records: Sequence[EpisodeRecord], states: Mapping[str, InitialState], size: int = 128
) -> list[Film]:
    """Replay each record from its initial state and watch. A replay that ends otherwise than its record is logged."""
    unknown = [record.initial_state for record in records if record.initial_state not in states]
    if unknown:
        raise InvalidData(
            f"no initial state {unknown[0]!r}", where=f"suite {suite.name}", do="use the suite that the records are of"
        )
    watched: list[Film] = []
    with closing(suite.environment()) as environment:
        for record in records:
            environment.reset(states[record.initial_state])
            pictures, credit = [_picture(environment, size)], 0.0
            for action in record.trace:
                step = environment.step(action)
                credit = max(credit, step.credit)
                pictures.append(_picture(environment, size))
            if credit != record.credit and record.error is None:
                log.warning("%s: credit %s on replay, %s recorded", record.initial_state, credit, record.credit)
            watched.append(Film(record, pictures))
    return watched


def contact_sheet(shown: Sequence[Film], file: Path, columns: int = 6, title: str = "") -> Path:
    """One PNG: a row an episode, under its caption `columns` moments from the first to the last."""
    size, head = shown[0].pictures[0].shape[0], CAPTION if title else 0
    width, height = columns * (size + GAP) + GAP, head + len(shown) * (size + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((GAP, GAP + 1), _fitted(title, width - 2 * GAP, font), fill="black", font=font)
    for row, film in enumerate(shown):
        top = head + GAP + row * (size + CAPTION + GAP)
        draw.text((GAP, top + 1), _fitted(film.caption, width - 2 * GAP, font), fill=_colour(film.record), font=font)
        for column, moment in enumerate(np.linspace(0, len(film.pictures) - 1, columns).round().astype(int)):
            sheet.paste(Image.fromarray(film.pictures[moment]), (GAP + column * (size + GAP), top + CAPTION))
    with atomic_writer(file) as stream:
        sheet.save(stream, "PNG")
    return file


def video(film: Film, file: Path, fps: float) -> Path:
    """One mp4 (H.264) at `fps` pictures a second, the last held for a second. Raises PartMissing without PyAV."""
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise PartMissing("videos need PyAV", where=str(file), do="pip install 'vlakit[sim]', or videos=0") from error
    size = film.pictures[0].shape[0] // 2 * 2  # H.264 halves the colours' size
    with atomic_writer(file) as target, av.open(target, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=max(round(fps), 1), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for picture in [*film.pictures, *[film.pictures[-1]] * max(round(fps), 1)]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:size, :size]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def gallery(shown: Sequence[Film], folder: Path, fps: float, title: str = "") -> list[Path]:
    """Contact sheet, with a title above, and videos in `folder`; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(shown, folder / "contact_sheet.png", title=title)
    names = [f"{film.record.number:04d}_{_safe(film.record.task)}_{_outcome(film.record)}.mp4" for film in shown]
    return [sheet, *(video(film, folder / name, fps) for film, name in zip(shown, names, strict=True))]


def _picture(environment: Any, size: int) -> UInt8:
    return np.asarray(environment.picture(size), np.uint8)


def _outcome(record: EpisodeRecord) -> str:
    return "success" if record.success else "error" if record.error else "failure"


def _ending(record: EpisodeRecord) -> str:
    return "success" if record.success else f"failure, credit {record.credit:g}" if record.credit else "failure"


def _colour(record: EpisodeRecord) -> tuple[int, int, int]:
    return GREEN if record.success else GREY if record.error else RED


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _fitted(text: str, width: int, font: Any) -> str:
    """As much of a text as fits into `width` pixels."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
