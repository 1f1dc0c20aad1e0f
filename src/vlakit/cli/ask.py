"""`vlakit ask ckpt=tiny_grounded image=FILE question="where is the red cube?"`; questions=DIR: how many are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, emit, request_of
from vlakit.cli.policies import load_policy
from vlakit.cli.progress import progress_bar
from vlakit.compare.grids import Grid, aligned
from vlakit.errors import ConfigError, InvalidData

if TYPE_CHECKING:
    from vlakit.policy import TrainedPolicy


def main(overrides: Sequence[str]) -> None:
    """Print an answer, or the share of right ones by kind of question."""
    cfg = verb_config("ask", overrides)
    check_format(cfg["format"])
    one, many = [cfg["question"], cfg["image"]], cfg["questions"]
    if (many is None) == (None in one) or (many is not None and one != [None, None]):
        raise ConfigError(
            f"question={cfg['question']} image={cfg['image']} questions={many}",
            where="command line",
            do='either image=FILE question="...", or questions=DIR',
        )
    check_device(cfg["device"])
    out = None if cfg["out"] is None else check_writable(Path(cfg["out"]).expanduser().parent) / Path(cfg["out"]).name
    policy = load_policy({**cfg, "constrain": True, "strict": None}, acting=False)
    if many is None:
        answer = _answer(policy, cfg)
        told = {"ckpt": str(cfg["ckpt"]), "question": cfg["question"], "answer": answer}
        emit(told, answer or "(no words)", cfg["format"])
    else:
        _count(policy, cfg, out)


def _answer(policy: TrainedPolicy, cfg: Mapping[str, Any]) -> str:
    from vlakit.schema import Observation

    picture, settings = _picture(Path(cfg["image"]).expanduser()), policy.processor.settings
    images: dict[str, Any] = {camera: [picture] * settings.window for camera in settings.cameras}
    return policy.answer([Observation(images, cfg["question"])], longest=cfg["longest"])[0]


def _picture(file: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidData(f"no picture: {error}", where=f"image={file}", do="give a picture's file") from error


def _count(policy: TrainedPolicy, cfg: Mapping[str, Any], out: Path | None) -> None:
    from vlakit.data.questions import QuestionFolder
    from vlakit.evaluation.asking import AskRequest, ask_all, counted, save
    from vlakit.stats.intervals import wilson

    request = request_of(AskRequest, cfg, "ask")
    folder = QuestionFolder.open(cfg["questions"], "questions", val_fraction=request.val_fraction)
    with progress_bar("questions") as progress:
        asked = ask_all(policy, folder, request, progress=progress)
    kinds = counted(asked)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        save(asked, out)
    rows = []
    for kind, marks in kinds.items():
        low, high = wilson(int(marks["right"]), int(marks["questions"]))
        limits = f"[{low:.3f}, {high:.3f}]"
        rows.append([kind, f"{marks['questions']:,}", f"{marks['accuracy']:.3f}", limits, f"{marks['loss']:.3f}"])
    header = ["kind", "questions", "right", "95 %", "loss"]
    report = {"ckpt": str(cfg["ckpt"]), "questions": str(folder.file), "sha256": folder.content_hash, "kinds": kinds}
    emit(report, "\n".join(aligned(Grid("", header, rows))), cfg["format"])
