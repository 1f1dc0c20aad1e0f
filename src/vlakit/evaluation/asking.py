"""Questions to a policy: how many of a folder it answers right, by kind; what it forgot shows as two such numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch

from vlakit.checked import Fraction, Rows, Some
from vlakit.compare.grids import csv_lines
from vlakit.data.questions import Question, QuestionFolder
from vlakit.data.stream.mixture import SequentialOrder, mixture_entry
from vlakit.errors import PartMissing
from vlakit.files import write_atomically
from vlakit.models.network import Answering, capability
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import token_processor

COLUMNS = ("image", "kind", "question", "answer", "right", "loss")


@dataclass(frozen=True)
class Asked:
    """A question and what became of it. right: every id of the answer is the likeliest, so that decoding gives it.

    loss: mean cross-entropy of the answer's ids.
    """

    question: Question
    right: bool
    loss: float


@dataclass(frozen=True)
class AskRequest:
    """Which questions: those of a split's pictures, at most max_questions of them (None: all), in their order."""

    split: Literal["val", "train"] = "val"
    val_fraction: Fraction = 0.05
    batch_size: Rows = 64
    max_questions: Some | None = None


@torch.inference_mode()
def ask_all(
    policy: TrainedPolicy,
    folder: QuestionFolder,
    request: AskRequest,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Asked]:
    """Every question with its verdict. Raises PartMissing for a network without words, InvalidData for unknown ones."""
    capability(policy.network, Answering, purpose="a question")
    processor = token_processor(policy.processor.for_validation(), purpose="a question")
    processor.check_answers((one.answer for one in folder.texts()), where=str(folder.file))
    entry = mixture_entry(folder, split=request.split)
    total = min(entry.n_frames, request.max_questions or entry.n_frames)
    settings, asked = processor.settings, list[Asked]()
    for refs in SequentialOrder([entry], batch_size=request.batch_size):
        refs = list(islice(refs, total - len(asked)))  # noqa: PLW2901
        if not refs:
            break
        shape = {"window": settings.window, "chunk": settings.chunk, "cameras": settings.cameras}
        examples = [processor.encode(folder.read_sample(ref, **shape)) for ref in refs]
        output = policy.network(processor.collate(examples).to(policy.device))
        if output.answered is None:
            raise PartMissing(
                f"the network {policy.network.kind} does not say which answers are right",
                where="Output.answered",
                do="let its forward say so of rows without an action",
            )
        marks = zip(refs, output.answered.tolist(), output.row_losses.tolist(), strict=True)
        asked += [Asked(folder.question(ref), right == 1, loss) for ref, right, loss in marks]
        if progress:
            progress(len(asked), total)
    return asked


def by_kind(asked: Iterable[Asked]) -> dict[str, list[Asked]]:
    """Kind -> its questions, sorted; "" those of no kind, "all" every one."""
    kinds: dict[str, list[Asked]] = {}
    for one in asked:
        kinds.setdefault(one.question.kind, []).append(one)
        kinds.setdefault("all", []).append(one)
    return dict(sorted(kinds.items(), key=lambda pair: (pair[0] == "all", pair[0])))


def counted(asked: Iterable[Asked]) -> Mapping[str, Mapping[str, float]]:
    """Kind -> questions, right, accuracy (right over questions) and mean loss."""
    return {
        kind: {
            "questions": len(some),
            "right": sum(one.right for one in some),
            "accuracy": sum(one.right for one in some) / len(some),
            "loss": sum(one.loss for one in some) / len(some),
        }
        for kind, some in by_kind(asked).items()
    }


def save(asked: Iterable[Asked], file: Path) -> None:
    """A row a question, so that two policies can be compared on the same ones."""
    told = ((one.question, int(one.right), round(one.loss, 5)) for one in asked)
    rows = [[what.image, what.kind, what.question, what.answer, right, loss] for what, right, loss in told]
    write_atomically(file, csv_lines([COLUMNS, *rows]) + "\n")
