"""The TensorFlow half of bench.py, run by the interpreter of another environment: one line in, one timed epoch out.

The chain of OpenVLA and Octo (dlimp): TFDS with undecoded steps, shuffled frames, JPEG, Lanczos3 to 224 px, batches.
Run by bench.py as: python tf_side.py RLDS_DIR PASSES PICTURES SHUFFLE.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

tf: Any = import_module("tensorflow")  # of the other environment; the project itself has none
tfds: Any = import_module("tensorflow_datasets")
SIZE, BATCH = 224, 64


def pixels(encoded: Any) -> Any:
    """(224, 224, 3) uint8 of a JPEG."""
    image = tf.io.decode_image(encoded, expand_animations=False, dtype=tf.uint8, channels=3)
    image.set_shape([None, None, 3])
    image = tf.image.resize(image, (SIZE, SIZE), method="lanczos3", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def frames(episode: Any) -> Any:
    """The frames of one episode, images encoded, each with its action."""
    steps = episode["steps"]
    return tf.data.Dataset.from_tensor_slices((steps["observation"]["image_0"], steps["action"]))


def chain(folder: str, passes: int, shuffle: int) -> Any:
    """One epoch; one thread each for the pipeline and inside an operator, as one loader on one core would have."""
    builder = tfds.builder_from_directory(folder)
    decoders = {"steps": tfds.decode.SkipDecoding()}
    config = tfds.ReadConfig(interleave_cycle_length=1, skip_prefetch=True, try_autocache=False)
    dataset = builder.as_dataset(split="train", decoders=decoders, read_config=config).repeat(passes).flat_map(frames)
    dataset = dataset.shuffle(shuffle).map(lambda image, action: (pixels(image), action)).batch(BATCH).prefetch(1)
    options = tf.data.Options()
    options.autotune.enabled, options.threading.private_threadpool_size = False, 1
    return dataset.with_options(options)


def resident_mb() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(folder: str, passes: str, pictures: str, shuffle: str) -> None:
    """First all pictures once, into a file; then answer each line of standard input with one epoch."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with Path(pictures).open("wb") as file:
        file.writelines(images.tobytes() for images, _ in chain(folder, 1, 1).as_numpy_iterator())
    print("ready", flush=True)
    dataset = chain(folder, int(passes), int(shuffle))
    for _ in sys.stdin:
        cpu, wall, n_frames = time.process_time(), time.perf_counter(), 0
        for images, _ in dataset.as_numpy_iterator():
            n_frames += len(images)
        print(json.dumps([n_frames, time.process_time() - cpu, time.perf_counter() - wall, resident_mb()]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
