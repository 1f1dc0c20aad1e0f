"""Peak memory of a conversion against the number of episodes: the Bridge sample, and the same repeated 100 times.

Each conversion runs in a process of its own, whose peak resident size the kernel reports. About 20 s on two cores.
"""

from __future__ import annotations

import argparse
import csv
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

LIMIT_MB = 50
COLUMNS = ("copies", "episodes", "frames", "seconds", "frames_per_second", "peak_mb")


def repeat_sample(folder: Path, copies: int) -> Path:
    """Lay out `copies` of the sample's train file as one RLDS folder; its val, the same episodes, is left out."""
    package = find_spec("vlakit")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("install vlakit first")
    sample = Path(package.submodule_search_locations[0]) / "assets/bridge_dataset/1.0.0"
    out = folder / f"bridge_{copies}" / "1.0.0"
    out.mkdir(parents=True)
    shutil.copy(sample / "features.json", out)
    (train,) = sample.glob("*-train.tfrecord-*")
    for number in range(copies):
        shutil.copy(train, out / f"bridge-train.tfrecord-{number:05d}-of-{copies:05d}")
    return out


def convert_and_report(source: Path, out: Path) -> None:
    """The measured process: convert, print one row."""
    from vlakit.data.shards.convert import convert
    from vlakit.data.specs.spec import load_spec

    start = time.perf_counter()
    counts = convert(source, out, load_spec("bridge_orig")).counts()
    seconds = time.perf_counter() - start
    episodes, frames = (sum(split[unit] for split in counts.values()) for unit in ("episodes", "frames"))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(episodes, frames, f"{seconds:.2f}", f"{frames / seconds:.0f}", f"{peak_mb:.1f}")


def main() -> None:
    """Measure 1 and 100 copies, write results.csv, fail where the difference is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        convert_and_report(*chosen.child)
        return
    rows = []
    for copies in chosen.copies:
        with tempfile.TemporaryDirectory() as temporary:
            source = repeat_sample(Path(temporary), copies)
            command = [sys.executable, __file__, "--child", str(source), str(Path(temporary) / "shards")]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append((str(copies), *printed.split()))
        print(dict(zip(COLUMNS, rows[-1], strict=True)))
    with Path(__file__).with_name("results.csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    growth = float(rows[-1][-1]) - float(rows[0][-1])
    print(f"{rows[-1][0]} copies need {growth:.1f} MB more than {rows[0][0]} (limit {LIMIT_MB})")
    raise SystemExit(growth > LIMIT_MB)


if __name__ == "__main__":
    main()
