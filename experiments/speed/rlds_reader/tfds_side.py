"""The TFDS half of bench.py, run by the interpreter of another environment: one line in, one timed pass out.

Run by bench.py as: python tfds_side.py RLDS_DIR VARIANT PASSES.
"""

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

tfds: Any = import_module("tensorflow_datasets")  # of the other environment; the project itself has none


def skipping_images(feature: Any) -> Any:
    """SkipDecoding for every image below `feature`, in the nesting that tfds wants."""
    if isinstance(feature, tfds.features.Image):
        return tfds.decode.SkipDecoding()
    if not hasattr(feature, "items"):
        return None
    below = {name: skipping_images(child) for name, child in feature.items()}
    return {name: child for name, child in below.items() if child}


def datasets(folder: str, variant: str) -> list[Any]:
    """One tf.data pipeline a split; `tensors` leaves the steps of an episode undecoded and whole, as dlimp does."""
    builder = tfds.builder_from_directory(folder)
    whole = variant == "tensors"
    steps = tfds.decode.SkipDecoding() if whole else skipping_images(builder.info.features["steps"].feature)
    return [builder.as_dataset(split=split, decoders={"steps": steps}) for split in builder.info.splits]


def count_steps(episode: dict[str, Any], variant: str) -> int:
    """Bring every value of an episode to NumPy."""
    if variant == "tensors":
        return len(episode["steps"]["is_first"])
    return sum(1 for _ in episode["steps"])


def main(folder: str, variant: str, passes: str) -> None:
    """Answer each line of standard input with the steps read, their CPU seconds and their wall seconds."""
    splits = datasets(folder, variant)
    for _ in sys.stdin:
        cpu, wall, n_steps = time.process_time(), time.perf_counter(), 0
        for _ in range(int(passes)):
            for split in splits:
                n_steps += sum(count_steps(episode, variant) for episode in tfds.as_numpy(split))
        print(json.dumps([n_steps, time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
