"""What every verb says to bad input: each key of its YAML x the wrong values of its kind, and what lies at each path.

    python experiments/reliability/bad_input.py [--verbs evaluate,score] [--every 1]     # writes bad_input.csv

A case runs in a fork of this process, which has imported vlakit; every 100th runs as a process of its own too and must
end alike. Each command ends in a known error behind the check of its words (`BASE`), so that a word which is accepted
costs no work. What a key must refuse is judged by the kind of its default, not by vlakit's own table of keys.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).parents[2] / "conf"
HERE = Path(__file__).parent
LIMIT_S = 120
FINE = {"refused in words", "accepted rightly"}
BASE = {  # each ends in one error, or at once, after its words were checked
    "evaluate": ["ckpt={no}/last.ckpt", "suite=none"],
    "score": ["ckpt={no}/last.ckpt"],
    "replay": ["suite=none", "ckpt={no}/last.ckpt"],
    "demonstrate": ["suite=none"],
    "select": ["pool={no}", "dataset=bridge_orig"],
    "affordances": ["ckpt={no}/last.ckpt"],
    "collect": ["ckpt={no}/last.ckpt", "suite=none"],
    "pairs": ["rollouts={no}"],
    "compare": ["runs=[{no}/a,{no}/b]"],
    "table": ["name=table1", "from={no}"],
    "passport": ["run={empty}"],
    "reproduce": ["passport={no}"],
    "export": ["ckpt={no}/last.ckpt", "out={work}/exported"],
    "ask": ["ckpt={no}/last.ckpt", "questions={no}"],
    "serve": ["ckpt={no}/last.ckpt"],
    "explain": ["model=tiny"],
    "plan": ["model=tiny"],
    "bench": ["data.root={no}", "data.sources={{}}"],
    "doctor": ["tracking_uri=sqlite:///{no}/mlflow.db"],
    "shards": ["dataset=bridge_orig", "source={no}"],
    "data": ["init={no}"],
    "train": ["data.root={no}", "data.sources={{}}", "logger=none", "paths.runs={work}/runs"],
}
WRONG: dict[str, list[str]] = {  # by kind of key; what a text key takes for text is judged by `refused`
    "flag": ["banana", "yes", "0", "nan", "''", "null", "[true]", "true,false", "1.5"],
    "whole": ["abc", "-1", "nan", "1.5", "true", "1000000000000", "[1]", "{a: 1}", "''", "inf", "1,2", "1e400", "-inf"],
    "number": ["abc", "nan", "inf", "true", "-1e30", "[0.1]", "''", "{a: 1}", "0.1,0.2", "-inf"],
    "share": ["abc", "nan", "-0.5", "1.5", "inf", "true", "[0.1]", "''", "0.1,0.2"],
    "list": ["abc", "1", "nan", "{a: 1}", "a,b", "true", "[1]", "[nan]", "['']"],
    "text": ["[a]", "{a: b}", "a,b", "''", "123", "nan", "true", "1e3"],
    "pairs": ["abc", "1", "[a]", "true", "a,b", "nan"],
}
NULLS = {  # keys without a default, or with one that does not tell the kind
    "whole": ["max_frames", "image_size", "control.execute", "model.processor.image_size", "samples"],
    "number": [
        "tflops",
        "gradient_clip",
        "trainer.gradient_clip_val",
        "control.latency_ms",
        "timeout_s",
        "wait_ms",
        "drain_s",
    ],
    "share": ["margin", "confidence", "val_fraction", "model.processor.center_crop", "noise", "mfu"],
    "flag": ["train"],
    "pairs": ["where", "tags", "data.mixture", "data.sources", "model.network", "counts"],
}
FREE = {
    "runs",
    "dialect",
    "where",
    "parent",
    "data.augment",
    "augment",
    "trainer.devices",
    "trainer.plugins",
    "trainer.profiler",
    "table1",
}
LARGE = {"steps", "validate_every", "frames", "frame_bytes", "shard_bytes", "max_frames_per_shard", "max_frames"}
LARGE |= {"max_bytes_per_shard", "trainer.limit_val_batches", "trainer.overfit_batches", "trainer.val_check_interval"}
PLACES = {  # keys that name a file or folder
    "ckpt", "base", "out", "root", "data", "against", "source", "verify", "dataset", "passport", "from", "save", "svg",
    "init", "show",
    "run", "weights", "demonstrations", "ckpt_path", "model.weights", "data.root", "paths.runs", "paths.data",
    "model.processor.tokenizer_path", "strategy.feature_cache",
}  # fmt: skip


@dataclass
class Case:
    """One command and how it ended."""

    verb: str
    word: str
    must_be_refused: bool
    rc: int = 0
    seconds: float = 0.0
    said: str = ""
    verdict: str = ""


def main() -> None:
    """Make the cases, run them, judge them, write the table; exits with 1 unless every verdict is fine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verbs", default=",".join(BASE))
    parser.add_argument("--every", type=int, default=1, help="of the cases, every n-th")
    parser.add_argument("--out", type=Path, default=HERE / "bad_input.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = run_all(Path(folder), options.verbs.split(","), options)
    counts = {verdict: sum(case.verdict == verdict for case in done) for verdict in {case.verdict for case in done}}
    print(f"{len(done)} cases: {counts}")
    for case in done:
        if case.verdict not in FINE:
            print(f"{case.verdict}: vlakit {case.verb} {case.word}  rc {case.rc}  {case.said}")
    sys.exit(any(case.verdict not in FINE for case in done))


def run_all(work: Path, verbs: list[str], options: argparse.Namespace) -> list[Case]:
    """Every n-th case of these verbs, judged; the table is written after each verb."""
    names = surroundings(work)
    done: list[Case] = []
    for verb in verbs:
        base = [word.format(**names) for word in BASE[verb]]
        warm([verb, *base])
        usual = run_case(Case(verb, "", False), base, work, forked=True)
        for number, case in enumerate(list(cases(verb, names))[:: options.every]):
            run_case(case, base, work, forked=True)
            judge(case, usual)
            if number % 100 == 7:
                twin = run_case(Case(verb, case.word, False), base, work, forked=False)
                if (twin.rc, twin.said) != (case.rc, case.said):
                    case.verdict = f"OTHERWISE AS A PROCESS: rc {twin.rc} {twin.said}"
            done.append(case)
        write(done, options.out)
        print(f"{verb}: {sum(case.verb == verb for case in done)} cases", file=sys.stderr, flush=True)
    return done


def warm(words: list[str]) -> None:
    """Run a command in this very process, so that its forks have all that it imports; train's Hydra is begun once."""
    from vlakit.cli.app import main as vlakit

    sys.argv = ["vlakit", *words] if words[0] != "train" else ["vlakit", "explain", "model=tiny"]
    with (
        Path(os.devnull).open("w") as nothing,
        redirect_stdout(nothing),
        redirect_stderr(nothing),
        suppress(SystemExit),
    ):
        vlakit()
    gc.collect()
    gc.freeze()  # what is never looked at again is never copied for a fork


def cases(verb: str, names: Mapping[str, str]) -> Iterator[Case]:
    """Each key x the wrong values of its kind; each path x what may lie there; words that are none."""
    few = 3 if verb in ("train", "bench") else None  # Hydra composes anew for each
    for number, (key, default) in enumerate(sorted(leaves(verb))):
        kind = kind_of(key, default)
        wrong = WRONG[kind]
        start = number % len(wrong) if few else 0
        for value in [*wrong[start:], *wrong[:start]][:few]:
            yield Case(verb, f"{key}={value}", refused(kind, key, value))
        if key in PLACES:
            for value in (names[place] for place in ("no", "file", "empty", "fifo", "loop", "below", "long", "proc")):
                yield Case(verb, f"{key}={value}", False)
            yield Case(verb, f"{key}=~nobody/x", True)
    for word in ("nonsense=1", "+nonsense", "[", "=", "strict", "a==b", "'", "${oc.env:HOME", "x=${y}", "--config-dir"):
        yield Case(verb, word, word != "x=${y}")


def leaves(verb: str) -> list[tuple[str, Any]]:
    """(key, default) of conf/VERB.yaml; for train those of everything that it chooses."""
    if verb != "train":
        return list(flat({k: v for k, v in read(CONF / f"{verb}.yaml").items() if k != "defaults"}))
    files = {
        "": ["train", "scale/laptop"],
        "model.": ["model/tiny"],
        "data.": ["data/bridge"],
        "trainer.": ["trainer/cpu"],
    }
    files |= {"paths.": ["paths/default"], "strategy.": ["strategy/_finetune", "strategy/lora"]}
    files |= {"strategy.optimizer.": ["optimizer/adamw"], "strategy.scheduler.": ["scheduler/constant"]}
    found = {
        prefix + key: value
        for prefix, names in files.items()
        for name in names
        for key, value in flat({k: v for k, v in read(CONF / f"{name}.yaml").items() if k not in ("defaults", "hydra")})
    }
    return [(key, value) for key, value in found.items() if not key.endswith("_") and key not in FREE]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves as a.b; an empty mapping is one."""
    for key, value in tree.items():
        if isinstance(value, dict) and value and key not in ("mixture", "network"):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def kind_of(key: str, default: Any) -> str:
    """The kind of a key by its default."""
    named = next((kind for kind, keys in NULLS.items() if key in keys), None)
    if named:
        return named
    kinds = {bool: "flag", int: "whole", float: "number", list: "list", dict: "pairs"}
    text = str(default)
    if text in ("${batch_size}", "${num_workers}", "${seed}", "${steps}"):
        return "whole"
    return "number" if key.startswith("lr.") or key.endswith(".lr") else kinds.get(type(default), "text")


def refused(kind: str, key: str, value: str) -> bool:
    """Whether a key of this kind must not take this value, whatever vlakit thinks."""
    if key in FREE or key.startswith("tags"):
        return False
    if kind == "text":  # a number is a name like another, in quotes for Hydra
        return value in ("[a]", "{a: b}", "a,b")
    if kind == "pairs":
        return value in ("1", "true", "nan")
    if kind == "whole" and value == "1000000000000":
        return key not in LARGE
    return not (kind == "flag" and value == "null" and key == "train")


def surroundings(work: Path) -> dict[str, str]:
    """What may lie at a path."""
    (work / "empty").mkdir()
    (work / "file").write_text("no such thing")
    (work / "loop").symlink_to(work / "loop")
    os.mkfifo(work / "fifo")
    os.chdir(work)
    os.environ.update(
        VLAKIT_RUNS=f"{work}/runs", VLAKIT_DATA=f"{work}/data", MLFLOW_TRACKING_URI=f"sqlite:///{work}/m.db"
    )
    names = {name: str(work / name) for name in ("empty", "file", "fifo", "loop", "no")}
    return {
        **names,
        "work": str(work),
        "below": f"{work}/file/x",
        "long": f"{work}/{'n' * 300}",
        "proc": "/proc/nothing/x",
    }


def run_case(case: Case, base: list[str], work: Path, *, forked: bool) -> Case:
    """Run a command to its end, or to the limit."""
    key = case.word.partition("=")[0]
    words = [case.verb, *(word for word in base if word.partition("=")[0] != key), *([case.word] if case.word else [])]
    began, err = time.perf_counter(), work / "stderr"
    with err.open("w") as stream, (work / "stdout").open("w") as printed:
        case.rc = (_forked if forked else _process)(words, stream.fileno(), printed.fileno())
    case.seconds = round(time.perf_counter() - began, 2)
    text = err.read_text(errors="replace").replace(str(work), "WORK")
    lines = [line for line in text.splitlines() if line.strip()]
    traced = "Traceback" in text or "error occurred during Hydra" in text
    told = next((n for n, line in enumerate(lines) if line.startswith("  do: ")), None)
    case.said = "Traceback " + lines[-1] if traced else " | ".join(lines[max(0, told - 2) : told + 1]) if told else ""
    if case.rc == 1 and not case.said:  # such as what shards verify= found
        case.said = (work / "stdout").read_text(errors="replace").replace(str(work), "WORK").strip()[-300:]
    return case


def _process(words: list[str], stderr: int, stdout: int) -> int:
    command = [sys.executable, "-m", "vlakit", *words]
    try:
        return subprocess.run(command, stdout=stdout, stderr=stderr, check=False, timeout=LIMIT_S).returncode
    except subprocess.TimeoutExpired:
        return 124


def _forked(words: list[str], stderr: int, stdout: int) -> int:
    child = os.fork()
    if child == 0:
        os.dup2(stderr, 2)
        os.dup2(stdout, 1)
        _child(words)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return 124


def _child(words: list[str]) -> None:
    import logging
    import traceback

    from vlakit.cli.app import main as vlakit

    code = 0
    sys.argv = ["vlakit", *words]
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = sys.stderr  # the parent's was silent, and is closed
    try:
        vlakit()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def judge(case: Case, usual: Case) -> None:
    """How it ended, against how the command ends without the word."""
    if case.rc == 124:
        case.verdict = "HANG"
    elif case.said.startswith("Traceback") or case.rc not in (0, 1):
        case.verdict = "TRACEBACK"
    elif case.rc == 1 and not case.said:
        case.verdict = "WITHOUT A WORD"
    elif (case.rc, case.said) == (usual.rc, usual.said) or case.rc == 0:
        case.verdict = "WRONGLY ACCEPTED" if case.must_be_refused else "accepted rightly"
    else:
        case.verdict = "refused in words"


def read(file: Path) -> dict[str, Any]:
    """A YAML file of conf/."""
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def write(done: list[Case], file: Path) -> None:
    """One row a case; what stands there of other verbs stays."""
    here = re.compile(re.escape(tempfile.gettempdir()) + r"/tmp\w+")
    rows = [{**asdict(case), "word": here.sub("WORK", case.word), "said": case.said[:200]} for case in done]
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as stream:
            made = {case.verb for case in done}
            rows += [row for row in csv.DictReader(stream) if row["verb"] in BASE and row["verb"] not in made]
    rows.sort(key=lambda row: list(BASE).index(row["verb"]))
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)  # a fork has the threads of its parent no more
    import mlflow  # noqa: F401  what verbs import when they are called, once for all forks

    import vlakit.cli.train
    import vlakit.evaluation.scoring  # noqa: F401

    main()
