"""A folder of synthetic scenes: coloured squares and discs on noise, their centres known, and a cross for a gripper."""

import json
from pathlib import Path

import numpy as np
import torch
from places import ROOT
from tiny_recipe.scenes import SceneBatch

RECIPE = ROOT / "experiments" / "tiny_pretraining"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
SHAPES = ("cube", "ball")


def write_scenes(folder: Path, n: int, *, size: int = 64, seed: int = 0) -> Path:
    """n scenes of two or three objects of different colours; the second shape is round."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 160, (n, size, size, 3), dtype=np.uint8)
    objects = np.full((n, 3, 4), -1, np.float32)
    gripper = np.zeros((n, 3), np.float32)
    y, x = np.mgrid[:size, :size] + 0.5
    for i in range(n):
        for k, colour in enumerate(rng.permutation(len(COLOURS))[: rng.integers(2, 4)]):
            shape, (u, v) = rng.integers(2), rng.uniform(0.1, 0.9, 2)
            across, down = np.abs(x - u * size), np.abs(y - v * size)
            inside = np.hypot(across, down) < 6 if shape else np.maximum(across, down) < 5
            images[i][inside] = list(COLOURS.values())[colour]
            objects[i, k] = colour, shape, u, v
        u, v, wide = *rng.uniform(0.1, 0.9, 2), rng.integers(2)
        images[i][(np.abs(x - u * size) < (4 if wide else 2)) & (np.abs(y - v * size) < 2)] = 0
        gripper[i] = u, v, wide
    folder.mkdir(parents=True)
    for name, array in {"images": images, "objects": objects, "gripper": gripper}.items():
        np.save(folder / f"{name}.npy", array)
    names = {"colours": list(COLOURS), "shapes": list(SHAPES), "version": 1}
    (folder / "names.json").write_text(json.dumps(names))
    return folder


def scene_batch(objects: list[list[float]], gripper: list[float], n: int = 1, position: int = 0) -> SceneBatch:
    """A batch of this scene n times, without its pictures."""
    nothing = torch.zeros(n, 1, 0)
    return SceneBatch(
        pixels={},
        window_mask=torch.ones(n, 1, dtype=torch.bool),
        datasets=["scenes"] * n,
        action_shape=(1, 0),
        actions=nothing,
        normalized=nothing,
        chunk_mask=torch.zeros(n, 1, dtype=torch.bool),
        keys=["a scene"] * n,
        position=position,
        objects=torch.tensor([objects] * n, dtype=torch.float32),
        gripper=torch.tensor([gripper] * n),
    )
