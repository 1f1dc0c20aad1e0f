"""check_active_learning.py: the fixture passes, so does any other folder of its kind, and what is off is seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.check_active_learning import check

FIXTURE = Path(__file__).parent.parent / "fixtures" / "active_learning"


def test_the_originals_outputs_are_reproduced() -> None:
    lines, passed = check(FIXTURE)
    assert passed, lines


def greedy(features: np.ndarray, taken: list[int], sizes: list[int]) -> tuple[list[int], list[float]]:
    """k-center by whole distance matrices: as slow as it is plain. sizes: picks between two looks at the distances."""
    known, picked, far = list(taken), list[int](), list[float]()
    for size in sizes:
        stale = ((features[:, None] - features[known]) ** 2).sum(-1).min(1)
        stale[known] = 0
        for _ in range(size):
            pick = int(stale.argmax())
            stale[pick] = 0
            picked.append(pick)
            far.append(float(((features[pick] - features[known]) ** 2).sum(-1).min()))
            known.append(pick)
    return picked, far


def other_folder(seed: int, n: int, length: int, classes: int, passes: int, updates: int) -> dict[str, np.ndarray]:
    """The arrays of another folder, by other means: torch in float32, plain loops."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy((3 * rng.standard_normal((n, length, classes))).astype(np.float32))
    mc = logits + torch.from_numpy(rng.standard_normal((passes, n, length, classes)).astype(np.float32))
    p, q = logits.softmax(-1), mc.softmax(-1)
    mean, each = q.mean(0), -(q * q.log()).sum(-1).mean(0)
    terms = {"max_prob": p.max(-1)[0], "entropy": -(p * p.log()).sum(-1), "mc_entropy": -(mean * mean.log()).sum(-1)}
    terms["bald"] = terms["mc_entropy"] - each
    ids = rng.permutation(1000)[:n]
    places, n_new = rng.permutation(n)[:4].tolist(), 6
    free = np.setdiff1d(np.arange(n), places)
    arrays = {"logits": logits.numpy(), "mc_logits": mc.numpy(), "ids": ids, "labelled": ids[places]}
    arrays |= {"n_new": np.int64(n_new), "select/baseline": ids[free[:n_new]]}
    arrays |= {f"token/{name}": value.numpy().astype(np.float64) for name, value in terms.items()}
    arrays |= {f"score/{name}": terms[name].sum(-1).numpy() for name in ("entropy", "mc_entropy", "bald")}
    arrays["score/least_conf"] = 1 - terms["max_prob"].prod(-1).numpy()
    first = {"least-conf": 1 - terms["max_prob"], "entropy": terms["entropy"], "mc-entropy": terms["mc_entropy"]}
    for name, value in {**first, "mc-bald": terms["bald"]}.items():
        order = np.argsort(-value[:, 0].numpy()[free])
        arrays[f"select/{name}"] = ids[free[order[:n_new]]]
    features = rng.standard_normal((n, 5))
    picked, far = greedy(features, places, [1] * n_new)
    arrays |= {"feature/vision": features, "select/coreset-vision": ids[picked]}
    arrays["select/coreset-vision#sq_distance"] = np.array(far)
    sizes = [n_new // updates] * (updates - 1) + [n_new // updates + n_new % updates]
    arrays |= {"amortised/pca": np.int64(5), "amortised/updates": np.int64(updates)}
    arrays["select/coreset-vision-amortised"] = ids[greedy(features, places, sizes)[0]]
    arrays["feature/language"] = features[rng.integers(0, 7, n)]
    repeated = greedy(arrays["feature/language"], places, [1] * 3)
    arrays |= {
        "select/coreset-language": ids[repeated[0]],
        "select/coreset-language#sq_distance": np.array(repeated[1]),
    }
    return arrays | mapped(rng, ids, classes, epochs=4)


def mapped(rng: np.random.Generator, ids: np.ndarray, classes: int, epochs: int) -> dict[str, np.ndarray]:
    logits = rng.standard_normal((epochs, len(ids), classes)).astype(np.float32)
    gold = rng.integers(0, classes, len(ids))
    p = torch.from_numpy(logits).softmax(-1).numpy()[:, np.arange(len(ids)), gold].astype(np.float64)
    hits = (logits.argmax(-1) == gold).mean(0)
    names = [("easy", 0.75), ("medium", 0.5), ("hard", 0.25), ("impossible", 0)]
    arrays = {"logits": logits, "gold": gold, "p_gold": p, "confidence": p.mean(0), "variability": p.std(0)}
    arrays |= {"correctness": hits, "bucket": np.array([next(n for n, low in names if hit >= low) for hit in hits])}
    ranked = sorted(range(len(ids)), key=lambda i: (-hits[i], ids[i]))
    return {f"map/{name}": value for name, value in (arrays | {"ids_by_correctness": ids[ranked]}).items()}


@pytest.mark.parametrize(
    "sizes", [(30, 1, 9, 3, 20), (41, 7, 256, 2, 2), (17, 2, 5, 6, 4)], ids=["VQA", "action tokens", "few"]
)
def test_other_sizes_seeds_and_settings_pass_too(tmp_path: Path, sizes: tuple[int, int, int, int, int]) -> None:
    np.savez(tmp_path / "expected.npz", **other_folder(3, *sizes))  # pyright: ignore
    lines, passed = check(tmp_path)
    assert passed, lines


def test_of_copies_either_may_be_taken_and_nothing_else(tmp_path: Path) -> None:
    arrays = other_folder(3, 30, 1, 9, 3, 20)
    places = {int(one): place for place, one in enumerate(arrays["ids"])}
    free = [place for one, place in places.items() if one not in arrays["labelled"]]
    by_entropy = sorted(free, key=lambda place: -arrays["token/entropy"][place, 0])
    last, copy = by_entropy[len(arrays["select/entropy"]) - 1], by_entropy[-1]
    for name, axis in (("logits", 0), ("mc_logits", 1)):
        np.moveaxis(arrays[name], axis, 0)[copy] = np.moveaxis(arrays[name], axis, 0)[last]
    arrays = {name: value for name, value in arrays.items() if not name.startswith(("token/", "score/", "map/"))}
    for bought, verdict in ((last, "ok"), (copy, "ok"), (by_entropy[-2], "FAIL")):
        picks = [*by_entropy[: len(arrays["select/entropy"]) - 1], bought]
        np.savez(tmp_path / "expected.npz", **arrays | {"select/entropy": arrays["ids"][picks]})  # pyright: ignore
        (line,) = (line for line in check(tmp_path)[0] if line.startswith("select/entropy"))
        assert line.endswith(verdict), line


def test_what_is_off_or_not_computed_is_a_failure(tmp_path: Path) -> None:
    shutil.copyfile(FIXTURE / "expected.npz", tmp_path / "expected.npz")
    arrays = dict(np.load(tmp_path / "expected.npz"))
    arrays["token/bald"] = arrays["token/bald"] + 2e-5
    arrays["select/entropy"] = np.sort(arrays["ids"])[: len(arrays["select/entropy"])]
    arrays["select/coreset-fused"] = arrays["select/coreset-fused"][::-1]
    arrays["map/bucket"] = np.roll(arrays["map/bucket"], 1)
    arrays["an_array_of_tomorrow"] = np.zeros(2)
    np.savez(tmp_path / "expected.npz", **arrays)  # pyright: ignore
    lines, passed = check(tmp_path)
    failed = {line.split()[0] for line in lines if line.endswith("FAIL")}
    assert not passed
    assert failed == {"token/bald", "select/entropy", "select/coreset-fused", "map/bucket", "an_array_of_tomorrow"}
