"""Compare vlakit's preference losses with TRL's and the DPO paper's: python tests/parity/check_preferences.py DIR

DIR holds cases.json and expected.npz; lm_keys.json and seeded_weights.py where a language model was scored too. Prints
one line a loss, and one for each array of the language model: `name deviation ok|FAIL`. Exits with 1 beyond 1e-9
(losses and gradients by token, float64) or 1e-4 (language model). A number that nothing computes is a failure.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from vlakit.models.openvla.backbones import VISION
from vlakit.models.openvla.decoding import answer_log_probs
from vlakit.models.openvla.vla import OpenVLA
from vlakit.preferences.losses import SMOOTHED, UNPAIRED, Judged, LossSettings, Scored, judge
from vlakit.schema import NO_LOSS

EXACT, LANGUAGE = 1e-9, 1e-4
SUFFIX = "_sft"  # dpo_sft is dpo with an sft term, and so on
NUMBERS = ("beta", "label_smoothing", "sft_weight", "desirable_weight", "undesirable_weight")
LOGGED = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)
Arrays = dict[str, np.ndarray]


def settings_of(case: dict[str, Any]) -> LossSettings:
    loss = case["loss"].removesuffix(SUFFIX)
    ignored = set() if loss in SMOOTHED else {"label_smoothing"}  # by TRL, without a word
    return LossSettings(loss, **{key: case[key] for key in NUMBERS if key in case and key not in ignored})


def scored_of(case: dict[str, Any], given: Arrays) -> Scored:
    """The batch of a case, a leaf where its gradient is wanted."""
    unpaired = case["loss"].removesuffix(SUFFIX) in UNPAIRED
    place = f"{'kto' if unpaired else 'pair'}/{case['batch']}"
    logp, reference = (torch.from_numpy(given[f"{place}/{name}"]).double() for name in ("logp", "ref_logp"))
    mask = torch.from_numpy(given[f"{place}/mask"]).bool()
    logp.requires_grad_(True)
    if not unpaired:
        return Scored.pairs(logp, reference, mask)
    label = torch.from_numpy(given[f"{place}/label"]).bool()
    policy_kl, reference_kl = (torch.from_numpy(given[f"{place}/{name}"]) for name in ("kl_logp", "kl_ref_logp"))
    return Scored(logp, reference, mask, label, (policy_kl, reference_kl))


def computed(case: dict[str, Any], given: Arrays) -> Iterator[tuple[str, Any]]:
    """All that the fixture may hold of a case."""
    scored = scored_of(case, given)
    judged: Judged = judge(scored, settings_of(case))
    judged.loss.backward()
    assert scored.logp.grad is not None
    scalars = judged.scalars(scored)
    yield "loss", judged.loss.detach()
    yield "grad", scored.logp.grad
    yield "per_pair", judged.rows.detach()
    yield "rewards", judged.rewards.reshape(2, -1) if len(judged.rewards) % 2 == 0 else judged.rewards
    yield "z0", judged.z0
    yield "logged", [float(scalars.get(name, torch.nan)) for name in LOGGED]


def deviation(actual: Any, expected: np.ndarray, *, relative: bool) -> float:
    """Largest difference; of a value over itself where it is larger than 1. NaN and another shape count as infinite."""
    value = np.asarray(actual, np.float64)
    if value.shape != expected.shape:
        return float("inf")
    scale = np.maximum(1, np.abs(expected)) if relative else 1.0
    worst = float(np.max(np.abs(value - expected) / scale, initial=0.0))
    return worst if worst == worst else float("inf")


def losses(folder: Path, given: Arrays, done: set[str]) -> Iterator[tuple[str, float, float]]:
    """(loss, worst deviation, tolerance), value and gradient together."""
    worst: dict[str, float] = defaultdict(float)
    for case in json.loads((folder / "cases.json").read_text()):
        name = f"{case['source']}/{case['loss']}"
        for part, value in computed(case, given):
            key = f"{case['key']}/{part}"
            if key in given:
                error = deviation(value, given[key], relative=part != "grad")
                worst[name], _ = max(worst[name], error), done.add(key)
    yield from ((name, error, EXACT) for name, error in worst.items())


class Language:
    """The small Llama inside OpenVLA's own scoring, behind no picture."""

    def __init__(self, folder: Path, keys: dict[str, Any], seed: int) -> None:
        spec = importlib.util.spec_from_file_location("seeded_weights", folder / "seeded_weights.py")
        assert spec is not None
        assert spec.loader is not None
        seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(seeded)
        weights = {
            name: torch.from_numpy(seeded.seeded_tensor(seed, name, tuple(shape)))
            for name, shape in keys["tensors"].items()
        }
        llama = LlamaForCausalLM(LlamaConfig(**keys["config"]))
        missing, unexpected = llama.load_state_dict(weights, strict=False)
        assert not unexpected
        assert set(missing) <= {"lm_head.weight"}, missing  # tied to the embedding
        self.vla = OpenVLA(VISION.build("tiny_dinosiglip"), llama.double()).eval()

    def scored(self, ids: np.ndarray, labels: np.ndarray, real: np.ndarray) -> tuple[Tensor, Tensor]:
        """Log-probability (n,) of every id after the first, and whether it counts (n,); one row, without padding."""
        ids, labels = ids[real > 0], labels[real > 0]
        nothing = torch.zeros(1, 0, self.vla.hidden_size, dtype=torch.float64)
        answer = torch.from_numpy(ids[None, 1:])
        logp = answer_log_probs(self.vla, nothing, [[int(ids[0])]], answer, None)[0]
        return logp, torch.from_numpy(labels[1:] != NO_LOSS)

    def batch(self, given: Arrays) -> tuple[Tensor, Tensor]:
        """Chosen rows, then rejected ones: (R, T) log-probabilities and mask."""
        names = ("input_ids", "labels", "attention_mask")
        rows = [
            self.scored(*row)
            for side in ("chosen", "rejected")
            for row in zip(*(given[f"lm/{side}_{name}"] for name in names), strict=True)
        ]
        logp, mask = ([row[part] for row in rows] for part in (0, 1))
        padded = torch.nn.utils.rnn.pad_sequence
        return padded(logp, batch_first=True).double(), padded(mask, batch_first=True)


def language(folder: Path, given: Arrays) -> Iterator[tuple[str, Any]]:
    """Sums, means, the loss of each pair and the gradients of its mean."""
    keys = json.loads((folder / "lm_keys.json").read_text())
    policy, reference = (Language(folder, keys, keys[f"{name}_seed"]) for name in ("policy", "reference"))
    logp, mask = policy.batch(given)
    with torch.no_grad():
        reference_logp, _ = reference.batch(given)
    scored = Scored.pairs(logp, reference_logp, mask)
    loss = keys["loss"]
    case = {"loss": loss["name"], **{key: loss[key] for key in NUMBERS if key in loss}}
    judged = judge(scored, settings_of(case))
    judged.loss.backward()
    yield "policy_sum", scored.policy.detach()
    yield "policy_mean", (scored.policy / scored.n_tokens).detach()
    yield "reference_sum", scored.summed(reference_logp)
    yield f"{loss['name']}_per_pair", judged.rows.detach()
    yield "rewards", judged.rewards.reshape(2, -1)
    gradients = {n: p.grad for n, p in policy.vla.language_model.named_parameters() if p.grad is not None}
    yield from ((f"grad/{name}", gradient) for name, gradient in gradients.items())
    yield "grad_norm", torch.stack([gradient.norm() for gradient in gradients.values()]).norm()


def check(folder: Path) -> tuple[list[str], bool]:
    """One line a loss and an array, and whether all are within tolerance and none is left over."""
    given: Arrays = dict(np.load(folder / "expected.npz"))
    done: set[str] = set()
    found = list(losses(folder, given, done))
    if (folder / "lm_keys.json").is_file():
        for name, value in language(folder, given):
            if f"lm/{name}" in given:
                done.add(f"lm/{name}")
                found.append((f"lm/{name}", deviation(value, given[f"lm/{name}"], relative=True), LANGUAGE))
    inputs = ("pair/", "kto/", "lm/chosen_", "lm/rejected_")
    rest = sorted(name for name in given if name not in done and not name.startswith(inputs))
    lines = [f"{name} {error:.2e} {'ok' if error <= most else 'FAIL'}" for name, error, most in found]
    passed = bool(found) and not rest and all(error <= most for _, error, most in found)
    return [*lines, *(f"{name} nan FAIL" for name in rest)], passed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    printed, agreed = check(Path(sys.argv[1]))
    print("\n".join(printed))
    sys.exit(0 if agreed else 1)
