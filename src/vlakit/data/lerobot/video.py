"""Pictures of an mp4 by the time at which they are shown; packets come in another order where there are B-frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vlakit.errors import CorruptRecord, InvalidData
from vlakit.schema import UInt8


def pictures_at(file: Path, times: np.ndarray, tolerance: float) -> list[UInt8]:
    """The picture (H, W, 3) shown nearest to each time [s], none further off than `tolerance`.

    Raises InvalidData for a missing file (named), CorruptRecord for a damaged one and for a time without a picture.
    """
    nearest: list[Any] = [None] * len(times)
    distances = np.full(len(times), tolerance)
    try:
        for time, frame in _frames(file, float(times.min()), float(times.max()), tolerance):
            apart = np.abs(times - time)
            better = np.flatnonzero(apart < distances)
            if len(better):
                picture = frame.to_ndarray(format="rgb24")
                for row in better:
                    nearest[row], distances[row] = picture, apart[row]
    except FileNotFoundError:
        raise InvalidData("a video of the dataset is missing", where=str(file), do="fetch it") from None
    except (FFmpegError, IndexError) as error:
        raise CorruptRecord(f"the video cannot be decoded: {error}", where=str(file), do="fetch it again") from None
    missing = [row for row, picture in enumerate(nearest) if picture is None]
    if missing:
        what = f"no picture at {times[missing[0]]:.4f} s ({len(missing)} of {len(times)} are missing)"
        raise CorruptRecord(what, where=str(file), do="fetch the video again: it ends early or has another rate")
    return nearest


def _frames(file: Path, first: float, last: float, tolerance: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time, frame) in order of time, beginning no later than `first`."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        seconds = float(stream.time_base or 1)
        if first > 0:
            container.seek(int(first / seconds), stream=stream)
        for number, frame in enumerate(container.decode(stream)):
            time = (frame.pts or 0) * seconds
            if number == 0 and first > 0 and time > first + tolerance:
                break  # the key frame that the index names is shown after the time: B-frames before it were left out
            if frame.is_corrupt:
                raise CorruptRecord(f"the picture at {time:.3f} s is damaged", where=str(file), do="fetch it again")
            yield time, frame
            if time > last + tolerance:
                return
        else:
            return
    yield from _frames(file, 0.0, last, tolerance)
