"""Small folders of questions in LLaVA's layout, and trainings with them, for the tests of several packages."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.questions import QUESTIONS_FILE
from vlakit.processing.images import encode_jpeg

TALK = [("is the gripper open?", "yes"), ("where is the red cube?", "x03 y12"), ("what is on the table?", "a red cube")]


def question_folder(folder: Path, n: int = 12, talk: list[tuple[str, str]] | None = None) -> Path:
    """n pictures of noise, and about each the three questions of TALK, or others."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    items: list[dict[str, Any]] = []
    for i in range(n):
        (folder / f"{i}.jpg").write_bytes(encode_jpeg(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)))
        turns = [
            {"from": who, "value": f"<image>\n{words}" if who == "human" else words}
            for pair in talk or TALK
            for who, words in zip(("human", "gpt"), pair, strict=True)
        ]
        items.append({"id": str(i), "image": f"{i}.jpg", "conversations": turns})
    (folder / QUESTIONS_FILE).write_text(json.dumps(items))
    return folder
