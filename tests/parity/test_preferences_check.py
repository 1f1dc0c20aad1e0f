"""check_preferences.py holds on the fixture and for a model of other sizes, and fails where a number is off."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.check_preferences import Language, check
from transformers import LlamaConfig, LlamaForCausalLM

FIXTURE = Path(__file__).parent.parent / "fixtures" / "preferences"


def changed(folder: Path, name: str, value: Any) -> Path:
    """A copy of the fixture in which one array is another."""
    shutil.copytree(FIXTURE, folder)
    arrays = dict(np.load(folder / "expected.npz"))
    arrays[name] = value(arrays[name])
    np.savez(folder / "expected.npz", **arrays)
    return folder


def test_every_loss_and_its_gradient_are_those_of_the_originals() -> None:
    lines, passed = check(FIXTURE)
    assert passed, lines
    assert {line.split()[0].partition("/")[0] for line in lines} == {"trl", "paper", "lm"}


@pytest.mark.parametrize("name", ["trl/kto/0/grad", "paper/cdpo/3/rewards", "lm/policy_mean", "trl/dpo/9/logged"])
def test_a_number_that_is_off_fails(tmp_path: Path, name: str) -> None:
    lines, passed = check(changed(tmp_path / "other", name, lambda array: array + 1e-3))
    assert not passed
    assert any(line.endswith("FAIL") for line in lines)


def test_an_array_that_nothing_computes_fails(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "more")
    arrays = dict(np.load(FIXTURE / "expected.npz"))
    np.savez(tmp_path / "more" / "expected.npz", **arrays, **{"trl/new/0/loss": np.float64(1)})
    lines, passed = check(tmp_path / "more")
    assert (passed, lines[-1]) == (False, "trl/new/0/loss nan FAIL")


def test_another_language_model_with_grouped_heads_and_padding_in_front_is_scored_as_transformers_scores_it(
    tmp_path: Path,
) -> None:
    keys = json.loads((FIXTURE / "lm_keys.json").read_text())
    keys["config"] |= {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 61}
    own = LlamaForCausalLM(LlamaConfig(**keys["config"])).double().eval()
    keys["tensors"] = {name: list(tensor.shape) for name, tensor in own.state_dict().items()}
    shutil.copy(FIXTURE / "seeded_weights.py", tmp_path)
    spec = importlib.util.spec_from_file_location("seeded", FIXTURE / "seeded_weights.py")
    assert spec is not None
    assert spec.loader is not None
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    own.load_state_dict(
        {n: torch.from_numpy(seeded.seeded_tensor(7, n, tuple(shape))) for n, shape in keys["tensors"].items()}
    )
    rng = np.random.default_rng(0)
    ids, real = rng.integers(1, 61, 12), np.array([0] * 3 + [1] * 9)
    labels = np.where(np.arange(12) < 7, -100, ids)
    logp, mask = Language(tmp_path, keys, 7).scored(ids, labels, real)
    kept = torch.from_numpy(ids[real > 0])
    logits = own(kept[None]).logits.log_softmax(dim=-1)[0, :-1]
    expected = logits.gather(1, kept[1:, None])[:, 0]
    assert mask.tolist() == [False] * 3 + [True] * 5
    assert (logp - expected).abs().max() < 1e-5
