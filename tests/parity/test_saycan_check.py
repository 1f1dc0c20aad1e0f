"""check_saycan.py: the fixture passes, so does any other folder of its kind, and what is off is seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.check_saycan import CALL, WORDS, check, seeded_model

FIXTURE = Path(__file__).parent.parent / "fixtures" / "saycan"


def test_the_originals_outputs_are_reproduced() -> None:
    lines, passed = check(FIXTURE)
    assert passed, lines


def alone(model: Any, prompt: list[int], option: list[int]) -> float:
    """log p, id by id: as slow as it is plain."""
    total = 0.0
    for i, one in enumerate(option):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *option[:i]]])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[one])
    return total


def called(thing: str) -> str:
    """A thing, as the detector names it."""
    return thing.replace("block", "box").replace("bowl", "circle")


def other_plan(rng: np.random.Generator, case: dict[str, Any], seen: list[str], steps: int) -> dict[str, Any]:
    """A plan made by loops over numbers, and its arrays under their last names."""
    options, done = case["options"], case["options"].index(case["end"])
    values = np.zeros(len(options))
    for i, option in enumerate(options):
        match = CALL.fullmatch(option)
        if match is None:
            values[i] = case["affordance_of_done"]
            continue
        left = list(seen)
        if match[1] in left:
            left.remove(match[1])
            values[i] = float(match[2] in left or match[2].endswith(("corner", "middle")))
    said = -rng.gamma(4, 2, (steps, len(options)))
    joined = np.exp(said) * values
    chosen = list[int]()
    for row in joined:
        chosen.append(int(row.argmax()))
        if chosen[-1] == done:
            break
    n = len(chosen)
    first = options[int(said[0].argmax())]
    plan = {
        "instruction": "tidy up.",
        "found_objects": [called(one) for one in seen],
        "first_without_affordance": first,
    }
    arrays = {"log_likelihood": said[:n], "affordance": values, "combined": joined[:n] / joined[:n].max(1)[:, None]}
    return {"plan": plan | {"steps": [options[i] for i in chosen]}, "arrays": arrays}


def write_other(folder: Path, seed: int, *, heads: int, end: str, done: float, most: int) -> None:
    """Another folder: other seed, heads, vocabulary order, options, terminator, prompts and plans."""
    case = json.loads((FIXTURE / "case.json").read_text())
    rng = np.random.default_rng(seed)
    words = WORDS.findall(end)
    case["vocabulary"] += [word for word in dict.fromkeys(words) if word not in case["vocabulary"]]
    case |= {"seed": seed, "max_steps": most, "affordance_of_done": done, "end": end}
    calls = [option for option in case["options"] if CALL.fullmatch(option)]
    case["options"] = [end, *(str(one) for one in rng.choice(calls, 11, replace=False))]
    n = len(case["vocabulary"])
    case["config"] |= {"vocab_size": n, "num_key_value_heads": heads}
    for name, shape in case["tensors"].items():
        shape[0] = n if "embed" in name or "lm_head" in name else shape[0]
        shape[0] = 16 * heads if "k_proj" in name or "v_proj" in name else shape[0]
    folder.mkdir()
    shutil.copyfile(FIXTURE / "seeded_weights.py", folder / "seeded_weights.py")
    model = seeded_model(FIXTURE, case)
    number = {word: i for i, word in enumerate(case["vocabulary"])}
    options = [[number[word] for word in WORDS.findall(option)] for option in case["options"]]
    arrays: dict[str, Any] = {}
    for i, length in enumerate((1, 2, 9, 30)):
        prompt = [case["bos"], *rng.integers(1, n, length - 1).tolist()]
        arrays[f"llama/{i}/tokens"] = np.array(prompt)
        arrays[f"llama/{i}/log_likelihood"] = np.array([alone(model, prompt, one) for one in options])
        ended = [alone(model, prompt, [*one, number["\n"]]) for one in options]
        arrays[f"llama/{i}/log_likelihood_with_end"] = np.array(ended)
    seen = [["red block", "blue bowl"], ["red block", "green block", "blue block", "blue block"]]
    made = [other_plan(rng, case, one, most) for one in seen]
    case["plans"] = [one["plan"] for one in made]
    for i, one in enumerate(made):
        arrays |= {f"plan/{i}/{name}": value for name, value in one["arrays"].items()}
    (folder / "case.json").write_text(json.dumps(case))
    np.savez(folder / "expected.npz", **arrays)


@pytest.mark.parametrize(
    "settings",
    [{"heads": 4, "end": "stop()", "done": 0.9, "most": 3}, {"heads": 1, "end": "done()", "done": 0.01, "most": 8}],
    ids=["other end", "longer"],
)
def test_other_sizes_seeds_and_settings_pass_too(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_other(tmp_path / "case", 5, **settings)
    lines, passed = check(tmp_path / "case")
    assert passed, lines


def test_what_is_off_or_not_computed_is_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    shutil.copytree(FIXTURE, folder)
    arrays, case = dict(np.load(FIXTURE / "expected.npz")), json.loads((FIXTURE / "case.json").read_text())
    arrays["llama/1/log_likelihood"] = arrays["llama/1/log_likelihood"] + 2e-4
    arrays["plan/0/combined"] = np.roll(arrays["plan/0/combined"], 1)
    arrays["an_array_of_tomorrow"] = np.zeros(2)
    case["plans"][1]["steps"].reverse()
    np.savez(folder / "expected.npz", **arrays)  # pyright: ignore
    (folder / "case.json").write_text(json.dumps(case))
    lines, passed = check(folder)
    failed = {line.split()[0] + line.split()[1] * (" steps " in line) for line in lines if line.endswith("FAIL")}
    assert not passed
    assert failed == {"llama/1/log_likelihood", "plan/0/combined", "plan/1steps", "an_array_of_tomorrow"}
