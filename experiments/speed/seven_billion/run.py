"""A 7B model with random weights in the released layout: what loading, answering and training take, beside the plan.

PYTHONPATH=src python experiments/speed/seven_billion/run.py DIR                    on a CPU: 15 GB of disk in DIR
PYTHONPATH=src python experiments/speed/seven_billion/run.py DIR --device cuda      on a GPU
PYTHONPATH=src python experiments/speed/seven_billion/run.py DIR --layers 2         tried in small

Each step is a process of its own, so that its peak is its own; steps.csv grows by a line a step. The weights are made
where DIR holds none, and removed in the end unless --keep.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CPU = ("load", "act", "score", "lora", "int8", "int4", "serve")
GPU = ("load", "act", "graph", "compile", "int8", "int4", "int4_graph", "oft", "score", "lora", "serve")
COLUMNS = (
    *("step", "device", "layers", "torch", "cores", "seconds", "load_s", "first_s", "act_s", "actions_per_s"),
    *("before_bytes", "peak_own_bytes", "peak_bytes", "plan_bytes", "peak_over_plan", "load_average", "loss"),
    *("towers_s", "prompt_s", "same_as_eager", "error"),
)
BYTES_A_SHARD = 1_000_000_000


def main() -> None:
    """Write the folder, run the steps, remove the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32, help="of the language model")
    parser.add_argument("--vision", default="siglip_so400m", help="or dinosiglip_so400m, the released model's towers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", default="", help="names between commas; default: all of the device")
    parser.add_argument("--out", type=Path, default=HERE / "steps.csv")
    parser.add_argument("--timeout", type=float, default=7200, help="seconds of a step")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--step", help="run this one here and print what it found (what a process of its own does)")
    given = parser.parse_args()
    if given.step:
        one(given)
        return
    if not (given.folder / "config.json").is_file():
        write_folder(given)
    default = GPU if given.device.startswith("cuda") else CPU
    for name in given.steps.split(",") if given.steps else default:
        append(given.out, apart(given, name))
    if not given.keep:
        shutil.rmtree(given.folder)


def one(given: argparse.Namespace) -> None:
    """A step in this process; its facts are the last line of the output."""
    from steps import STEPS

    print(json.dumps(STEPS[given.step](given)))


def apart(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """A step in a process of its own, as a row; what went wrong is the row's error."""
    import torch

    words = [str(given.folder), "--layers", str(given.layers), "--device", given.device, "--step", name]
    command = [sys.executable, str(Path(__file__).resolve()), *words]

    row: dict[str, Any] = {"step": name, "device": device_name(given.device), "layers": given.layers}
    row |= {"torch": torch.__version__, "cores": torch.get_num_threads()}
    row["load_average"] = round(os.getloadavg()[0], 1)
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=given.timeout, check=False)
    except subprocess.TimeoutExpired:
        return {**row, "error": f"not done after {given.timeout:.0f} s"}
    row["seconds"] = round(time.perf_counter() - began, 2)
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        return {**row, "error": f"exit {done.returncode}: {last[:200]}"}
    return {**row, **json.loads(done.stdout.strip().splitlines()[-1])}


def device_name(device: str) -> str:
    """What the numbers are of."""
    import torch

    return torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"


def append(file: Path, row: dict[str, Any]) -> None:
    """One more line of the table, and on the screen."""
    if row.get("plan_bytes") and row.get("peak_bytes"):
        row["peak_over_plan"] = round(row["peak_bytes"] / row["plan_bytes"], 3)
    new = not file.is_file()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({key: f"{v:.4g}" if isinstance(v := row.get(key, ""), float) else v for key in COLUMNS})
    print(", ".join(f"{key} {row[key]}" for key in COLUMNS if row.get(key) not in (None, "")), flush=True)


def write_folder(given: argparse.Namespace) -> None:
    """config.json, statistics of the shipped model and bfloat16 noise; one shard is in memory at a time."""
    import torch

    from vlakit.checkpoints.export import STATISTICS_FILE
    from vlakit.checkpoints.formats import load
    from vlakit.checkpoints.hf_config import write_config
    from vlakit.checkpoints.weights import save_weights
    from vlakit.data.shards.statistics import statistics_to_json
    from vlakit.models.openvla.backbones import llama2_7b
    from vlakit.models.openvla.vla import VLASettings, build_vla
    from vlakit.processing.settings import TokenSettings

    towers = ("imagenet", "half") if given.vision.startswith("dino") else ("half",)
    processor = TokenSettings(image_size=224, channel_statistics=towers, tokenizer="words")
    with torch.device("meta"):
        numbers = llama2_7b().config
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings")
    sizes = {key: getattr(numbers, key) for key in (*keys, "rms_norm_eps", "pad_token_id")}
    settings = VLASettings(given.vision, "llama", llm_options={**sizes, "num_hidden_layers": given.layers})
    network = build_vla(settings, device="meta")
    given.folder.mkdir(parents=True, exist_ok=True)
    statistics = statistics_to_json(load("tiny").processor.statistics)
    made = torch.Generator().manual_seed(0)
    noise = torch.randn(1 << 20, generator=made)  # drawn once: 7 billion draws would take longer than all else

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in network.state_dict().items():
            scale = max(tensor.shape[-1] if tensor.ndim > 1 else 1, 1) ** -0.5
            copies = -(-tensor.numel() // len(noise))
            values = noise.repeat(copies)[: tensor.numel()].view(tensor.shape) * scale
            # A norm's weight is near one, as in a trained model: else every answer is noise without a size.
            values = 1 + 0.02 * values if tensor.ndim == 1 and "norm" in name and name.endswith("weight") else values
            yield name, values.to(torch.bfloat16)

    save_weights(given.folder, tensors(), shard_bytes=BYTES_A_SHARD)
    write_config(given.folder, settings, processor, network.language_model.config.to_dict(), statistics)
    (given.folder / STATISTICS_FILE).write_text(json.dumps(statistics, indent=1) + "\n")


if __name__ == "__main__":
    main()
