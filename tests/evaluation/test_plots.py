"""Pictures are written where they were asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlakit.evaluation.open_loop import MEAN, POLICY, PREVIOUS, EpisodeResult, OpenLoopResult
from vlakit.evaluation.plots import draw_trajectories


def result_of(n_episodes: int, size: int) -> OpenLoopResult:
    recorded = np.random.default_rng(0).normal(size=(5, size)).astype(np.float32)
    answers = {POLICY: recorded + 0.1, MEAN: 0 * recorded, PREVIOUS: np.roll(recorded, 1, axis=0)}
    ids = np.zeros((5, size), np.int64)
    kinds = dict.fromkeys(answers, ids)
    said = "lift the pot"
    episodes = [EpisodeResult(f"episode {i}", said, recorded, ids, answers, kinds) for i in range(n_episodes)]
    return OpenLoopResult("bridge_orig", "val", episodes, {})


@pytest.mark.parametrize(("n_episodes", "size"), [(1, 7), (3, 2)])
def test_a_png_is_written_also_into_a_new_folder(tmp_path: Path, n_episodes: int, size: int) -> None:
    file = tmp_path / "new" / "plot.png"
    assert draw_trajectories(result_of(n_episodes, size), file, 3) == file
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
        assert len(set(picture.convert("L").tobytes())) > 2


def test_no_more_episodes_are_drawn_than_asked_for(tmp_path: Path) -> None:
    widths = []
    for n_episodes in (1, 2):
        with Image.open(draw_trajectories(result_of(4, 2), tmp_path / f"{n_episodes}.png", n_episodes)) as picture:
            widths.append(picture.width)
    assert widths[0] < widths[1] < 2.5 * widths[0]
