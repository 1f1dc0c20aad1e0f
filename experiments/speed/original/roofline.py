"""Where an action's time goes, and how far each part is from what these cores could do: roofline.py --fixture DIR.

Claim: the matrix products are near the machine's own speed, and what is left is small operators. A part's bound is the
larger of its multiplications at the rate of a large product and its weights at the rate of reading memory, both
measured here. Writes roofline.csv; the shape is that of bench.py, float32, two threads.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from seeded_model import loaded
from shape import PROMPT, inputs, write_config
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlakit.models.cpu import use_onednn
from vlakit.models.openvla.decoding import Choice, generate

HERE, REPEATS = Path(__file__).parent, 30
SIDE, READ = 2048, 2**29
Calls = dict[str, list[float]]


def least(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Seconds of the fastest call, after one that is not counted."""
    work()
    times: list[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def large_product() -> float:
    """Seconds of a product of SIDE through the layer that the model runs on."""
    layer = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False))
    use_onednn(layer)
    x = torch.randn(SIDE, SIDE)
    with torch.inference_mode():
        return least(lambda: layer(x))


def memory_read() -> float:
    """Seconds of a sum over READ bytes, which no cache holds."""
    return least(torch.ones(READ // 4).sum)


def name_of_call(part: str, rows: int) -> str:
    """A language model's call is the prefill where it has many rows, else a decoding step."""
    if part != "language model":
        return part
    return "prefill" if rows > 1 else "decoding step"


class Watch:
    """Seconds and operations of each call of some modules."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        self.seconds: Calls = defaultdict(list)
        self.operations: Calls = defaultdict(list)
        self.counter: FlopCounterMode | None = None
        for name, module in parts.items():
            module.register_forward_pre_hook(self._begin, with_kwargs=True)
            module.register_forward_hook(self._end(name), with_kwargs=True)

    def _total(self) -> float:
        return float(self.counter.get_total_flops()) if self.counter else 0.0

    def _begin(self, *_: Any) -> None:
        self.before, self.begun = self._total(), time.perf_counter()

    def _end(self, part: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any], answer: Any) -> None:
            seconds = time.perf_counter() - self.begun
            first: Tensor = args[0] if args else given["inputs_embeds"]
            name = name_of_call(part, first.shape[1])
            self.seconds[name].append(seconds)
            self.operations[name].append(self._total() - self.before)

        return hook


def watched(parts: dict[str, nn.Module], act: Callable[[], None]) -> tuple[float, Calls, Calls]:
    """Seconds of the fastest of REPEATS actions and of each call of the parts in it; operations of each call."""
    watch = Watch(parts)
    plain = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)  # others' products go uncounted
    with plain[0], plain[1], FlopCounterMode(display=False) as watch.counter:
        act()
    watch.counter = None
    actions: list[tuple[float, Calls]] = []
    for _ in range(REPEATS):
        watch.seconds.clear()
        begin = time.perf_counter()
        act()
        actions.append((time.perf_counter() - begin, {name: list(calls) for name, calls in watch.seconds.items()}))
    return *min(actions, key=lambda one: one[0]), watch.operations


def weights_read(parts: dict[str, nn.Module]) -> dict[str, int]:
    """Bytes of the weights that one call multiplies by; of the words' table it reads a few rows."""
    size = {name: 4 * sum(p.numel() for p in module.parameters()) for name, module in parts.items()}
    language = parts["language model"].get_submodule("layers")
    layers = 4 * sum(p.numel() for p in language.parameters())
    return {"towers": size["towers"], "projector": size["projector"], "prefill": layers, "decoding step": layers}


def row(part: str, calls: int, seconds: float, operations: float, read: int, bound: float) -> dict[str, Any]:
    """One line of roofline.csv; seconds and bound of one call."""
    return {
        "part": part,
        "calls": calls,
        "ms": round(1e3 * seconds, 2),
        "gflop": round(operations / 1e9, 3),
        "weights_mb": round(read / 1e6, 1),
        "bound_ms": round(1e3 * bound, 2),
        "share_of_bound": round(bound / seconds, 2) if bound else "",
    }


def main() -> None:
    """Measure, write roofline.csv, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixture", type=Path, required=True, help="config.json and seeded_weights.py")
    fixture = parser.parse_args().fixture.resolve()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        write_config(fixture, Path(folder))
        model, processor = loaded(fixture, Path(folder))
    model.eval()
    given = inputs()
    pixels, prompts = given["pixel_values"][:1], given["input_ids"][:1, :PROMPT].tolist()
    choice = Choice((processor.actions.begin, processor.actions.padding_id))

    def act() -> None:
        generate(model, model.encode_image(pixels), prompts, 7, choice)

    parts: dict[str, nn.Module] = {"towers": model.vision_backbone, "projector": model.projector}
    parts["language model"] = model.language_model.model
    product, memory, read = large_product(), memory_read(), weights_read(parts)
    whole, spent, operations = watched(parts, act)
    rows = [row("large product", 1, product, 2 * SIDE**3, 0, 0.0), row("memory read", 1, memory, 0.0, READ, 0.0)]
    for name, seconds in spent.items():
        bound = max(operations[name][0] / (2 * SIDE**3) * product, read[name] / READ * memory)
        rows.append(row(name, len(seconds), sum(seconds) / len(seconds), operations[name][0], read[name], bound))
    told, bounds = (sum(one["calls"] * one[key] for one in rows[2:]) / 1e3 for key in ("ms", "bound_ms"))
    rows += [row("the rest", 1, whole - told, 0.0, 0, 0.0), row("an action", 1, whole, 0.0, 0, bounds)]
    with (HERE / "roofline.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print((HERE / "roofline.csv").read_text(), end="")


if __name__ == "__main__":
    main()
