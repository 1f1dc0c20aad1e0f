"""Questions about pictures, answered in words: LLaVA's JSON as samples without an action, beside those of shards.

The file is a list of {"image": path beside the file, "conversations": [{"from": "human", "value": question}, {"from":
"gpt", "value": answer}, ...]}; each pair is a question of its own. What vlakit writes adds a "kind" to each answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from vlakit.data.shards.reader import SampleRef
from vlakit.errors import InvalidData
from vlakit.files import content_hash
from vlakit.processing.images import encode_jpeg
from vlakit.schema import Sample

log = logging.getLogger(__name__)
QUESTIONS_FILE = "questions.json"
SPLITS = ("train", "val")  # in the order in which samples number them
PICTURE = "<image>"  # where LLaVA's questions say that the picture stands; here it always stands before the text


class Question(NamedTuple):
    """One question about a picture; kind: of what sort it is, empty where the file does not say."""

    image: str
    question: str
    answer: str
    kind: str = ""


class QuestionFolder:
    """One file of questions under a name; a part of its pictures, with all that is asked about them, is held out."""

    def __init__(self, dataset: str, file: Path, questions: Sequence[Question], val_fraction: float) -> None:
        """Raises InvalidData where a picture is missing, or there are not two to be parted."""
        self.dataset, self.file = dataset, file
        pictures = sorted({one.image for one in questions})
        missing = [name for name in pictures if not (file.parent / name).is_file()]
        if missing or len(pictures) < 2:
            raise InvalidData(
                f"{len(missing)} of {len(pictures)} pictures are missing, e.g. {missing[0]}"
                if missing
                else f"questions about {len(pictures)} picture(s): none can be held out",
                where=str(file),
                do="put pictures where the file says, seen from its own folder; ask about two or more",
            )
        held = set(held_out(pictures, val_fraction))
        self.questions = [[one for one in questions if (one.image in held) == (split == "val")] for split in SPLITS]

    @classmethod
    def open(cls, path: str | Path, dataset: str, *, val_fraction: float = 0.05) -> QuestionFolder:
        """A folder with questions.json, or any such file. Raises InvalidData that names the item at fault."""
        place = Path(path).expanduser()
        file = place if place.suffix == ".json" else place / QUESTIONS_FILE
        if not file.is_file():
            raise InvalidData(
                "no questions here",
                where=str(file),
                do=f"vlakit demonstrate suite=NAME questions=20000 out={place}; or a JSON file in LLaVA's layout",
            )
        try:
            items = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InvalidData(f"no JSON: {error}", where=str(file), do="make or copy the file again") from error
        if not isinstance(items, list):
            raise InvalidData(
                f"a JSON {type(items).__name__}, not a list", where=str(file), do="see vlakit.data.questions"
            )
        without = sum(isinstance(item, dict) and "image" not in item for item in items)
        if without:
            log.warning("%s: %d of %d items have no picture and are left out", file, without, len(items))
        return cls(
            dataset,
            file,
            [one for n, item in enumerate(items) for one in _questions(item, f"{file} item {n}")],
            val_fraction,
        )

    @property
    def splits(self) -> list[str]:
        """Splits that hold at least one question."""
        return [split for split, asked in zip(SPLITS, self.questions, strict=True) if asked]

    @cached_property
    def content_hash(self) -> str:
        """sha256 (hex) over the file, and the names and sizes of its pictures."""
        pictures = sorted({one.image for asked in self.questions for one in asked})
        sizes = [f"{name} {(self.file.parent / name).stat().st_size}" for name in pictures]
        return sha256("\n".join([content_hash(self.file), *sizes]).encode()).hexdigest()

    def shards(self, split: str) -> list[tuple[int, int]]:
        """(number of the split, questions), as a shard folder says it; InvalidData where there are none."""
        number = SPLITS.index(split)
        if not self.questions[number]:
            raise InvalidData(
                f"{self.dataset!r} has no {split} questions", where=str(self.file), do="set data.val_fraction above 0"
            )
        return [(number, len(self.questions[number]))]

    def texts(self) -> Iterator[Question]:
        """All questions of all splits."""
        return (one for asked in self.questions for one in asked)

    def question(self, ref: SampleRef) -> Question:
        """The question that `ref` means."""
        return self.questions[ref.shard][ref.frame]

    def read_sample(
        self, ref: SampleRef, *, window: int = 1, chunk: int = 1, cameras: Sequence[str] | None = None
    ) -> Sample:
        """The question `ref` as a sample without an action; every camera, at every moment, shows its one picture."""
        asked = self.question(ref)
        picture = _jpeg(self.file.parent / asked.image)
        return Sample(
            key=f"{asked.image}: {asked.question}",
            dataset=self.dataset,
            instruction=asked.question,
            images={camera: [picture] * window for camera in cameras or ("primary",)},
            actions=np.zeros((chunk, 0), np.float32),
            window_mask=np.arange(window) == window - 1,
            chunk_mask=np.zeros(chunk, np.bool_),
            position=ref.position,
            answer=asked.answer,
        )


def held_out(pictures: Sequence[str], fraction: float) -> list[str]:
    """The pictures of the smallest sha256, the same in every run: at least one, unless the fraction is 0."""
    count = min(max(1, round(fraction * len(pictures))), len(pictures) - 1) if fraction > 0 else 0
    return sorted(pictures, key=lambda name: sha256(name.encode()).digest())[:count]


def _questions(item: Any, where: str) -> Iterator[Question]:
    """The pairs of one item. Raises InvalidData."""
    try:
        if not isinstance(item, dict):
            raise TypeError(f"an item is no object but {item!r:.60}")
        yield from _pairs(item) if "image" in item else ()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidData(
            f"no questions in LLaVA's layout: {f'{error} is missing' if isinstance(error, KeyError) else error}",
            where=where,
            do='write {"image": FILE, "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", ...}]}',
        ) from error


def _pairs(item: Mapping[str, Any]) -> Iterator[Question]:
    if Path(item["image"]).is_absolute() or ".." in Path(item["image"]).parts:
        raise ValueError("a picture outside the folder of the file")
    turns = item["conversations"] or [{}, {}]  # nobody speaks: no turn says from whom it is
    if len(turns) % 2:
        raise ValueError("a question without an answer")
    for said, reply in zip(turns[::2], turns[1::2], strict=True):
        if (said["from"], reply["from"]) != ("human", "gpt"):
            raise ValueError(f"turns of {said['from']} and {reply['from']}, not of human and gpt")
        words = said["value"].replace(PICTURE, "").strip(), reply["value"].strip()
        if not all(words):
            raise ValueError("an empty question or answer")
        yield Question(str(item["image"]), *words, str(reply.get("kind", "")))


def _jpeg(file: Path) -> bytes:
    """A picture as the JPEG it is, or made one."""
    content = file.read_bytes()
    if content.startswith(b"\xff\xd8"):
        return content
    try:
        with Image.open(BytesIO(content)) as picture:
            return encode_jpeg(np.asarray(picture.convert("RGB")))
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidData(f"no picture: {error}", where=str(file), do="copy the pictures again") from error
