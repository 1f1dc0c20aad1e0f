"""From which features can it be told what can begin? The shipped model's patches, or its state once told a skill.

python experiments/planning/affordances.py    (affordances.csv: area under the ROC curve on scenes that were held out)

No rollouts: a try counts as won where the verifier says that its skill can begin, so that what is compared is what the
features show, with as few scenes as `vlakit affordances` has.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vlakit.planning.suite import TabletopPlansSuite
from vlakit.planning.values import Calibration, Fit, Tries
from vlakit.policy import TrainedPolicy
from vlakit.schema import Float32, Observation

SCENES, DRAWS, EACH = 32, 4, 2  # of a family; of a scene; rows of each outcome for the state
READOUTS = {"linear": (0, 0.1), "one hidden layer of 64": (64, 0.3)}  # width, weight decay


def tries(features: Float32, possible: np.ndarray, impossible: int) -> Tries:
    """Skills drawn as the explorer draws them: one that can begin, and so many that cannot."""
    rng = np.random.default_rng(0)
    rows = list[tuple[int, bool, int]]()
    for scene, can in enumerate(possible):
        for _ in range(DRAWS):
            rows.append((int(rng.choice(np.flatnonzero(can))), True, scene))
            rows += [(int(s), False, scene) for s in rng.choice(np.flatnonzero(~can), impossible, replace=False)]
    skill, won, scenes = zip(*rows, strict=True)
    return Tries(features[np.array(scenes)], np.array(skill), np.array(won), np.array(scenes))


@torch.inference_mode()
def told(policy: TrainedPolicy, seen: list[Observation], rows: list[tuple[int, str]]) -> Tensor:
    """(M, D): the last state of the prompt, the instruction being the skill."""
    parts = [
        policy.network.representations(  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            policy.observed([replace(seen[scene], instruction=text) for scene, text in rows[i : i + 64]])
        )["fused"]
        for i in range(0, len(rows), 64)
    ]
    return torch.cat(parts).clone()


def readouts(states: Tensor, won: np.ndarray, scene: np.ndarray) -> Iterator[tuple[str, Calibration]]:
    """Small readouts of states, judged on every fifth scene."""
    held, target = scene % 5 == 0, torch.tensor(won, dtype=torch.float32)
    states = (states - states[~held].mean(0)) / (states[~held].std(0) + 1e-6)
    for name, (width, decay) in READOUTS.items():
        torch.manual_seed(0)
        size = states.shape[1]
        hidden = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, 1))
        network = hidden if width else nn.Linear(size, 1)
        adam = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=decay)
        for _ in range(120):
            logits = network(states[~held])[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target[~held])
            adam.zero_grad()
            loss.backward()
            adam.step()
        values = torch.sigmoid(network(states[held])[:, 0]).detach().double().numpy()
        yield f"state, {name}", Calibration.of(values, won[held])


def compared() -> Iterator[tuple[str, int, Calibration]]:
    """(features and readout, rows in all, what it does on scenes that were held out)."""
    suite, policy = TabletopPlansSuite(), TrainedPolicy.from_checkpoint("tiny")
    policy.pad_to = policy.processor.text_width(suite.skills.options)
    world = suite.environment()
    seen, possible = list[Observation](), list[np.ndarray]()
    for family in suite.tasks:
        for start in suite.training_states(family, SCENES):
            seen.append(world.reset(start))
            possible.append(world.possible()[:-1] > 0)
    patches = np.concatenate([policy.features(seen[i : i + 64]) for i in range(0, len(seen), 64)])
    for impossible, epochs in ((2, 60), (12, 12)):
        rows = tries(patches, np.array(possible), impossible)
        held = Fit(epochs=epochs)(rows, suite.skills).held_out
        yield f"patches, {impossible} that cannot begin beside each, {epochs} epochs", len(rows), held
    rng = np.random.default_rng(3)
    drawn = [
        (scene, won, int(skill))
        for scene, can in enumerate(possible)
        for won in (True, False)
        for skill in rng.choice(np.flatnonzero(can == won), EACH, replace=False)
    ]
    states = told(policy, seen, [(scene, suite.skills.options[skill]) for scene, _, skill in drawn])
    scenes, outcomes = np.array([row[0] for row in drawn]), np.array([row[1] for row in drawn])
    for name, held in readouts(states, outcomes, scenes):
        yield name, len(drawn), held


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # loads triton, which cannot be loaded once a world renders
    with Path(__file__).with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["features", "rows", "held_out", "base_rate", "auroc", "brier", "ece"])
        for name, n, held in compared():
            shown = [held.base_rate, held.auroc or 0.0, held.brier, held.ece]
            writer.writerow([name, n, held.n, *(f"{one:.4f}" for one in shown)])
            file.flush()
