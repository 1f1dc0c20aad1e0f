"""Tables 2, 5 and 11 in miniature: checkpoints answer in bfloat16, 8 and 4 bits, and the world waits for them or not.

PYTHONPATH=src python experiments/table2_quantization/fill.py 0=runs/A/last.ckpt 1=runs/B/last.ckpt 2=runs/C/last.ckpt
vlakit table name=table2 from=experiments/table2_quantization/runs

The delays are those of the paper's A5000, not of this machine: 1.2 answers a second in 8 bits, 3 in 4 bits. It prints
none for bfloat16; 5, the rate of control, is assumed. Evaluations go on where they were.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from vlakit.accounting.inference import inference
from vlakit.checkpoints.formats import LoadOptions
from vlakit.cli.suites import suite_settings
from vlakit.evaluation.building import build_suite
from vlakit.evaluation.latency import Control
from vlakit.evaluation.run import Request, evaluate
from vlakit.evaluation.speed import actions_per_second
from vlakit.models.network import build_network
from vlakit.policy import TrainedPolicy
from vlakit.reports.tables.runs import TableRun

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from tables import add, of_folder  # noqa: E402

HZ = {"none": 5.0, "int8": 1.2, "int4": 3.0}
ROWS = {"none": "bf16", "int8": "int8", "int4": "int4"}


def main() -> None:
    """Evaluate what is not there yet, then write runs/; seeds that are there and not named stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="SEED=CKPT")
    parser.add_argument("--suite", default="tabletop_target")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/table2"), help="where the evaluations are kept")
    parser.add_argument("--out", type=Path, default=HERE / "runs")
    given = parser.parse_args()
    runs = [
        run_of(given, seed, ckpt, scheme, blocking=blocking)
        for seed, ckpt in (word.split("=", 1) for word in given.checkpoints)
        for scheme in HZ
        for blocking in (False, True)
    ]
    print(*add("table2", runs, given.out), sep="\n")


def run_of(given: argparse.Namespace, seed: str, ckpt: str, scheme: str, *, blocking: bool) -> TableRun:
    """One checkpoint in one way, evaluated."""
    row = f"{ROWS[scheme]}{'_blocking' if blocking else ''}"
    settings = suite_settings(given.suite)
    options = LoadOptions(dtype=torch.bfloat16, quantize=scheme)
    policy = TrainedPolicy.from_checkpoint(ckpt, options=options, strict=False)  # bfloat16 moves close answers
    request = Request(
        episodes=given.episodes, strict=False, control=Control(latency_ms=1000 / HZ[scheme], blocking=blocking)
    )
    out = given.work / f"{row}_{seed}"
    evaluated = evaluate(policy, build_suite(settings), request, out, name=ckpt, suite_settings=settings)
    print(f"{row} seed {seed}: {evaluated.pooled.success:.3f}", flush=True)
    metrics = {"memory/inference_bytes": float(planned(policy, scheme))}
    metrics["time/actions_per_s"] = actions_per_second(policy) or 0.0
    record = {"checkpoint": Path(ckpt).name, "name": policy.card.strategy or "", "scheme": scheme}
    return of_folder(row, seed, out, record, metrics)


def planned(policy: TrainedPolicy, scheme: str) -> int:
    """Bytes that one answer takes."""
    network = build_network(policy.network.description, policy.processor, device="meta")
    return inference(network, policy.processor, torch.bfloat16, scheme).at(1)


if __name__ == "__main__":
    main()
