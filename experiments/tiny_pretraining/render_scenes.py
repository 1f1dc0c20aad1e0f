"""Render labelled scenes for the first two stages: python experiments/tiny_pretraining/render_scenes.py [n] [folder].

40,000 pictures take about six CPU-minutes; they do not depend on the number of processes.
"""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import track
from tiny_recipe.labelled import COLOUR_NAMES, SHAPE_NAMES, labelled_scenes
from tiny_recipe.scenes import VERSION

CHUNK = 500


def chunk(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, objects and grippers of one seed."""
    made = list(labelled_scenes(CHUNK, seed))
    return (
        np.stack([scene.image for scene in made]),
        np.stack([scene.objects for scene in made]),
        np.stack([scene.gripper for scene in made]),
    )


def main(n: int = 40_000, folder: str | None = None) -> None:
    """Render and write the four files of a scene folder (tiny_recipe.scenes)."""
    out = Path(folder or Path(os.environ.get("VLAKIT_DATA", "data")) / "tabletop_scenes")
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        parts = list(track(pool.map(chunk, range(n // CHUNK)), "scenes", n // CHUNK))
    for name, arrays in zip(("images", "objects", "gripper"), zip(*parts, strict=True), strict=True):
        np.save(out / f"{name}.npy", np.concatenate(arrays))
    names = {"colours": COLOUR_NAMES, "shapes": SHAPE_NAMES, "version": VERSION}
    (out / "names.json").write_text(json.dumps(names) + "\n", encoding="utf-8")
    print(f"{n // CHUNK * CHUNK:,} scenes in {out}")


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:]))
