"""check_diffusion_policy.py on the original's outputs, whole and in the part that is quick; it sees what is off."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from parity.check_diffusion_policy import check

FIXTURE = Path(__file__).parent.parent / "fixtures" / "diffusion_policy"
SLOW = ("unet_image", "unet_global", "unet_inpaint", "transformer_cond", "transformer_encoder")


def part(folder: Path) -> Path:
    """Without pictures, and without the runs of a hundred steps."""
    place = Path(shutil.copytree(FIXTURE, folder / "part"))
    arrays = {
        name: x
        for name, x in np.load(FIXTURE / "expected.npz").items()
        if "_ddpm_" not in name and not name.startswith(SLOW)
    }
    np.savez(place / "expected.npz", **arrays)  # pyright: ignore
    return place


def test_it_agrees_with_the_original_and_sees_what_is_off(tmp_path: Path) -> None:
    folder = part(tmp_path)
    lines, passed = check(folder)
    assert passed, lines
    assert {line.split()[0] for line in lines} >= {
        "droid_unet_noise_pred",
        "unet_local_ddim_action",
        "transformer_loss",
    }
    arrays = dict(np.load(folder / "expected.npz"))
    arrays |= {"transformer_loss": arrays["transformer_loss"] * 1.01, "an_array_of_tomorrow": arrays["sched_x0"]}
    np.savez(folder / "expected.npz", **arrays)  # pyright: ignore
    again, passed = check(folder)
    assert not passed
    assert {line.split()[0] for line in again if line.endswith("FAIL")} == {"transformer_loss", "an_array_of_tomorrow"}


def test_a_folder_may_lack_whatever_its_keys_do_not_promise(tmp_path: Path) -> None:
    folder = part(tmp_path)
    kept = ("transformer_ddim", "transformer_mask", "loss_t", "lowdim_")
    arrays = {name: x for name, x in np.load(folder / "expected.npz").items() if name.startswith(kept)}
    np.savez(folder / "expected.npz", **arrays)  # pyright: ignore
    lines, passed = check(folder)
    assert passed, lines
    assert {"transformer_ddim_action", "transformer_mask"} <= {line.split()[0] for line in lines}


@pytest.mark.slow
def test_every_array_of_the_original_is_met() -> None:
    lines, passed = check(FIXTURE)
    assert passed, [line for line in lines if line.endswith("FAIL")]
    assert len(lines) > 140
