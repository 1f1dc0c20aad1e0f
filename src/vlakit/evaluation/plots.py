"""Pictures of open-loop evaluation: predicted against recorded, one panel a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, so that a machine without a screen can draw
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from vlakit.evaluation.open_loop import POLICY, PREVIOUS, EpisodeResult, OpenLoopResult

END_EFFECTOR = ("x [m]", "y [m]", "z [m]", "roll [rad]", "pitch [rad]", "yaw [rad]", "gripper (1 open)")


def draw_trajectories(result: OpenLoopResult, file: Path, n_episodes: int) -> Path:
    """One column an episode, one row a dimension: recorded, predicted, and the previous action again."""
    episodes = result.episodes[:n_episodes]
    size = episodes[0].recorded.shape[1]
    names = END_EFFECTOR if size == len(END_EFFECTOR) else tuple(f"dimension {i}" for i in range(size))
    figure, axes = plt.subplots(
        size, len(episodes), figsize=(4.2 * len(episodes) + 0.6, 1.35 * size + 0.8), sharex="col", squeeze=False
    )
    for column, episode in enumerate(episodes):
        _draw_episode(list(axes[:, column]), episode, names, leftmost=column == 0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file


def _draw_episode(axes: Sequence[Axes], episode: EpisodeResult, names: tuple[str, ...], *, leftmost: bool) -> None:
    steps = range(len(episode.recorded))
    for dimension, axis in enumerate(axes):
        axis.plot(steps, episode.recorded[:, dimension], color="black", marker=".", label="recorded")
        axis.plot(steps, episode.answers[POLICY][:, dimension], color="tab:orange", marker=".", label="predicted")
        axis.plot(
            steps, episode.answers[PREVIOUS][:, dimension], color="tab:gray", lw=0.8, ls=":", label="previous again"
        )
        axis.grid(alpha=0.3)
        if leftmost:
            axis.set_ylabel(names[dimension], fontsize=8)
        if dimension == 0:
            axis.set_title(f"{episode.episode}\n{episode.instruction}", fontsize=8)
        if dimension == len(names) - 1:
            axis.set_xlabel("step")
