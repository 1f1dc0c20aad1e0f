"""Pictures into mp4 files, many episodes one behind the other, as LeRobot writes them: a key frame every two pictures.

Without B-frames: to a file with them LeRobot cannot append an episode of one picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from vlakit.errors import InvalidData, PartMissing
from vlakit.schema import UInt8

CODECS: dict[str, tuple[str, str, dict[str, str]]] = {  # name -> encoder, LeRobot's word for it, its options
    "av1": ("libsvtav1", "av1", {"crf": "30", "g": "2", "preset": "12"}),
    "h264": ("libx264", "h264", {"crf": "18", "g": "2", "bf": "0"}),
}
PIXELS = "yuv420p"


@dataclass(slots=True)
class VideoFile:
    """One mp4 that is being written."""

    path: Path
    codec: str
    fps: int
    n_frames: int = 0
    n_bytes: int = 0  # that the encoder has given by now
    _container: Any = None
    _stream: Any = None

    def add(self, pictures: Iterable[UInt8], where: str) -> tuple[float, float]:
        """Append pictures (H, W, 3); the seconds from and to which they are shown.

        Raises InvalidData for a size that the encoder cannot take, PartMissing where the encoder is not there.
        """
        first = self.n_frames
        try:
            for picture in pictures:
                stream = self._stream or self._open(picture.shape[1], picture.shape[0])
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=PIXELS)
                frame.pts, frame.time_base = self.n_frames, Fraction(1, self.fps)
                self._mux(stream.encode(frame))
                self.n_frames += 1
        except (FFmpegError, ValueError) as error:
            what = f"{self.codec} cannot take these pictures: {error}"
            raise InvalidData(what, where=where, do="codec=jpeg keeps them as they are") from None
        return first / self.fps, self.n_frames / self.fps

    def close(self) -> None:
        """Write what the encoder still holds, and the index of the file."""
        if self._stream is not None:
            self._mux(self._stream.encode())
            self._container.close()
            self._container = self._stream = None

    def _mux(self, packets: Sequence[Any]) -> None:
        self.n_bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)

    def _open(self, width: int, height: int) -> Any:
        if width % 2 or height % 2:
            raise ValueError(f"{height} x {width} is not even")
        encoder, _, options = CODECS[self.codec]
        if encoder not in av.codecs_available:
            raise PartMissing(f"PyAV has no encoder {encoder}", where=str(self.path), do="codec=h264, or codec=jpeg")
        os.environ.setdefault("SVT_LOG", "1")  # errors alone: it greets each file with twenty lines
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self.path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(encoder, rate=self.fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXELS
        self._stream.codec_context.time_base = Fraction(1, self.fps)
        return self._stream
