"""Small datasets as robomimic, LIBERO, ALOHA, Diffusion Policy and people without a format write them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import h5py
import numpy as np
import zarr
from PIL import Image

SPEC = "images: {primary: %s}\nlanguage: language_instruction\naction: [{take: action}]\nproprio: [%s]\n"
LENGTHS = (6, 5, 7)


def pictures(n: int, seed: int = 0, side: int = 32) -> np.ndarray:
    """(n, side, side, 3) uint8, smooth enough for a JPEG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (n, 4, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side))) for one in pixels])


def actions(n: int, seed: int = 0) -> np.ndarray:
    """(n, 7): small motions and a gripper of 0 or 1."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 0.02, (n, 6)), rng.integers(0, 2, (n, 1))], axis=1).astype(np.float32)


def encoded(picture: np.ndarray, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


def robomimic(folder: Path, told: str | None = "lift the cube", masks: bool = False) -> Path:
    """demo_0, demo_1, demo_10 in one file; LIBERO's way of saying the instruction."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "low_dim.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        if told:
            data.attrs["problem_info"] = json.dumps({"language_instruction": told})
        for seed, (name, n) in enumerate(zip(("demo_0", "demo_1", "demo_10"), LENGTHS, strict=True)):
            demo = data.create_group(name)
            demo["actions"] = actions(n, seed).astype(np.float64)
            demo["obs/agentview_image"] = pictures(n, seed)
            demo["obs/robot0_eef_pos"] = np.arange(3.0 * n).reshape(n, 3)
            demo.attrs["num_samples"] = n
        if masks:
            file["mask/train"] = np.array([b"demo_0", b"demo_10"])
            file["mask/valid"] = np.array([b"demo_1"])
    return folder


def aloha(folder: Path, compressed: bool = True) -> Path:
    """One file an episode; JPEGs padded with zeros to the longest, or raw pixels."""
    folder.mkdir(parents=True)
    for seed, n in enumerate(LENGTHS):
        with h5py.File(folder / f"episode_{seed}.hdf5", "w") as file:
            file.attrs["sim"] = False
            file["action"] = actions(n, seed)
            file["observations/qpos"] = actions(n, seed + 9)
            images = pictures(n, seed)
            if compressed:
                file.attrs["compress"] = True
                jpegs = [encoded(one) for one in images]
                longest = max(map(len, jpegs))
                padded = np.stack([np.frombuffer(one.ljust(longest, b"\0"), np.uint8) for one in jpegs])
                file["observations/images/cam_high"] = padded
                file["compress_len"] = np.array([[len(one) for one in jpegs]], np.float32)
            else:
                file["observations/images/cam_high"] = images
    (folder / "instruction.txt").write_text("open the jar\n", encoding="utf-8")
    return folder


def replay_buffer(folder: Path, levels: type = np.float32) -> Path:
    """Diffusion Policy's: pictures as levels of 0 to 255 in float32, zarr v2."""
    folder.mkdir(parents=True)
    root = zarr.open_group(str(folder / "pusht.zarr"), mode="w", zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    parts = {
        "img": np.concatenate([pictures(n, seed) for seed, n in enumerate(LENGTHS)]).astype(levels),
        "action": np.concatenate([actions(n, seed) for seed, n in enumerate(LENGTHS)]),
        "state": np.concatenate([actions(n, seed + 9) for seed, n in enumerate(LENGTHS)]),
    }
    for name, values in parts.items():
        data.create_array(name, data=values, chunks=(8, *values.shape[1:]))
    meta.create_array("episode_ends", data=np.cumsum(LENGTHS))
    (folder / "instruction.txt").write_text("push the T\n", encoding="utf-8")
    return folder


def numbered(folder: Path, table: str = "csv") -> Path:
    """A folder an episode: pictures of one camera, and a table."""
    for seed, n in enumerate(LENGTHS):
        episode = folder / f"take_{seed}"
        (episode / "front").mkdir(parents=True)
        for step, one in enumerate(pictures(n, seed)):
            (episode / "front" / f"{step}.jpg").write_bytes(encoded(one))
        values, state = actions(n, seed), actions(n, seed + 9)
        if table == "csv":
            with (episode / "steps.csv").open("w", newline="") as stream:
                rows = csv.writer(stream)
                rows.writerow([*(f"action_{k}" for k in range(7)), *(f"state_{k}" for k in range(7)), "instruction"])
                rows.writerows(
                    [*act.tolist(), *now.tolist(), "fold it"] for act, now in zip(values, state, strict=True)
                )
        else:
            steps = [{"action": a.tolist(), "state": s.tolist()} for a, s in zip(values, state, strict=True)]
            content = {"fps": 12, "instruction": "fold it", "steps": steps}
            (episode / "steps.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
