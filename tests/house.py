"""The budgets of the house and what is counted: `just house`, or python tests/house.py [--measure] [--tests].

Reads the source as text and imports none of it; tests/test_house.py holds what can be counted.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
PACKAGE = "vlakit"

BUDGETS = {  # the one place where the numbers stand
    "lines of src": 19_600,
    "lines of the spine": 2_200,
    "files of the spine": 20,
    "lines of the largest package": 4_600,
    "lines of the longest file": 300,
    "lines of the longest function": 60,
    "import circles of modules": 0,
    "import circles of packages": 0,
    "own functions from train.py to the loss": 5,
    "CPU seconds of vlakit explain": 5.0,
    "CPU seconds of vlakit plan": 5.0,
    "wall seconds of just test, idle machine": 120.0,
}
RATCHET = {  # budgets that are not reached: what is there may fall, never rise; lower these when it does
    "lines of src": 48_732,  # a stranger: a run is looked at before its data are converted; sentences as they are typed
    "lines of the spine": 3_353,
    "lines of the largest package": 8_844,
}
SPINE = (  # from the command line to the optimizer step and to an action
    *("cli/train", "policy", "data/shards/reader"),
    *("strategies/base", "strategies/metrics", "strategies/optim", "strategies/trainable"),
    *("models/openvla/vla", "models/openvla/vision", "models/openvla/projector", "models/openvla/decoding"),
    *("processing/processor", "processing/action_tokenizer", "processing/normalizer"),
    *("data/stream/datamodule", "data/stream/mixture", "data/stream/loading"),
)
SPINE_TO_COME = ("models/network", "models/openvla/heads", "processing/tokens")  # counted from the day they exist
START, END = "train.main", "vla.forward"
LIGHTNING = {"fit": "training_step", "model": "forward", "network": "forward"}  # calling the left one calls the right
MEASURED = {"explain": "CPU seconds of vlakit explain", "plan": "CPU seconds of vlakit plan"}
LIBRARIES = "import lightning, timm, peft, transformers.models.llama.modeling_llama"  # what the network is made of
TESTED = "wall seconds of just test, idle machine"


@dataclass(frozen=True)
class Count:
    """One line of the table: what was counted, and where it is largest or what it consists of."""

    budget: str
    value: float
    where: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= BUDGETS[self.budget]


def counted() -> list[Count]:
    """Every budget that the source alone decides."""
    counts, spine = line_counts(), spine_files()
    rooms = packages(counts)
    largest = max(rooms, key=lambda name: rooms[name])
    longest = max(counts, key=lambda file: counts[file])
    length, function = max(function_lengths())
    graph = imports()
    modules, rooms_in_circles = circles(graph), circles(between_packages(graph))
    way = hops()
    return [
        Count("lines of src", sum(counts.values()), f"{len(counts)} files"),
        Count("lines of the spine", sum(counts[file] for file in spine)),
        Count("files of the spine", len(spine)),
        Count("lines of the largest package", rooms[largest], largest),
        Count("lines of the longest file", counts[longest], _name(longest)),
        Count("lines of the longest function", length, function),
        Count("import circles of modules", len(modules), _listed(modules)),
        Count("import circles of packages", len(rooms_in_circles), _listed(rooms_in_circles)),
        Count("own functions from train.py to the loss", len(way), " -> ".join(way)),
    ]


def line_counts() -> dict[Path, int]:
    """Lines of every file of src, as `wc -l` counts them."""
    return {file: file.read_bytes().count(b"\n") for file in sorted(SRC.rglob("*.py"))}


def spine_files() -> list[Path]:
    """The files of the spine; one that has moved without this list is an error."""
    files = [SRC / PACKAGE / f"{name}.py" for name in SPINE]
    missing = [_name(file) for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"the spine names what is not there: {', '.join(missing)}; mend SPINE in {__file__}")
    return files + [file for name in SPINE_TO_COME if (file := SRC / PACKAGE / f"{name}.py").is_file()]


def packages(counts: Mapping[Path, int]) -> dict[str, int]:
    """Lines of each room: a folder directly below vlakit, or `root` for the files that lie there themselves."""
    rooms: dict[str, int] = {}
    for file, lines in counts.items():
        parts = file.relative_to(SRC / PACKAGE).parts
        room = parts[0] if len(parts) > 1 else "root"
        rooms[room] = rooms.get(room, 0) + lines
    return rooms


def function_lengths() -> Iterator[tuple[int, str]]:
    """(lines from `def` to the last, file:name) of every function."""
    for file in line_counts():
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield int(node.end_lineno or 0) - node.lineno + 1, f"{_name(file)}:{node.name}"


def imports() -> dict[str, set[str]]:
    """module -> modules of src that it imports."""
    modules = {_module(file): file for file in line_counts()}
    return {name: imported(_tree(file), modules) - {name} for name, file in modules.items()}


def imported(tree: ast.AST, modules: Container[str]) -> set[str]:
    """Which of `modules` a file imports anywhere, inside functions too; not what only a type checker reads."""
    return {target for node in _runtime_nodes(tree) for target in _targets(node, modules)}


def between_packages(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same between folders; a file directly below vlakit is one of its own, a folder in a folder one with it."""
    between: dict[str, set[str]] = {}
    for module, targets in graph.items():
        here = between.setdefault(_package(module), set())
        here |= {name for name in map(_package, targets) if not _one_in_the_other(name, _package(module))}
    return between


def _one_in_the_other(a: str, b: str) -> bool:
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other, each sorted."""
    reached = {node: _reachable(graph, node) for node in graph}
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = set(graph[start])
    while waiting:
        seen |= waiting
        waiting = {target for node in waiting for target in graph.get(node, ())} - seen
    return seen


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _targets(node: ast.AST, modules: Container[str]) -> Iterator[str]:
    """Modules of src that one statement imports: `from vlakit.a import b` means vlakit.a.b where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            candidates = (f"{node.module}.{alias.name}", str(node.module))
            yield from [name for name in candidates if name in modules][:1]


def hops() -> list[str]:
    """The shortest chain of own functions from `main` to the network's `forward`, of which each names the next.

    Only functions of the spine are entered; where Lightning or torch stands between two, LIGHTNING says so.
    """
    called: dict[str, set[str]] = {}
    for file in spine_files():
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.FunctionDef):
                key = f"{file.stem}.{node.name}"
                called.setdefault(key, set()).update(_names(node))
    chains, seen = deque([[START]]), {START}
    while chains:
        chain = chains.popleft()
        if chain[-1] == END:
            return chain
        for key in sorted(set(called) - seen):
            if key.rpartition(".")[2] in called[chain[-1]]:
                seen.add(key)
                chains.append([*chain, key])
    raise LookupError(f"no chain of functions of the spine leads from {START} to {END}")


def _names(function: ast.FunctionDef) -> set[str]:
    """What a function calls or hands on: plain names that it reads, methods of self, and Lightning's detours."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "self":
            names.add(node.func.attr)
        if node.func.attr in LIGHTNING:
            names.add(LIGHTNING[node.func.attr])
    return names


def measured() -> Iterator[Count]:
    """CPU seconds of the verbs that only speak, each in a process of its own, beside what no verb of ours can save."""
    libraries, _ = _run([sys.executable, "-c", LIBRARIES])
    for verb, budget in MEASURED.items():
        seconds, _ = _run([sys.executable, "-c", f"from vlakit.cli.app import run_verb; run_verb({verb!r}, [])"])
        yield Count(budget, round(seconds, 1), f"of which {libraries:.1f} import torch and the libraries")


def tested() -> Count:
    """Wall seconds of the suite as `just test` runs it."""
    _, seconds = _run([sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"])
    return Count(TESTED, round(seconds, 1))


def _run(command: list[str]) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of a process and those it waited for."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after, end = os.times(), time.perf_counter()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, end - start


def table(counts: Iterable[Count]) -> str:
    """One line a budget; what was not measured stands there too."""
    by_budget = {count.budget: count for count in counts}
    lines = [f"{'budget':<41}{'bound':>8}{'now':>9}"]
    for budget, bound in BUDGETS.items():
        count, option = by_budget.get(budget), "--tests" if budget == TESTED else "--measure"
        value, mark, note = ("-", " ", f"not measured ({option})")
        if count is not None:
            value, mark, note = f"{count.value:,}", " " if count.holds else "!", count.where
        lines.append(f"{budget:<41}{bound:>8,}{value:>9} {mark} {note}".rstrip())
    return "\n".join(lines)


def room_table() -> str:
    """Lines of each package, the largest first."""
    rooms = packages(line_counts())
    return "\n".join(f"{name:<41}{'':>8}{rooms[name]:>9,}" for name in sorted(rooms, key=lambda name: -rooms[name]))


def main(words: list[str]) -> int:
    """Print all; the exit status is 1 where a budget is exceeded."""
    if not {"--measure", "--tests"}.issuperset(words):
        raise SystemExit(f"usage: python tests/house.py [--measure] [--tests], not {' '.join(words)}")
    counts = counted()
    counts += measured() if "--measure" in words else []
    counts += [tested()] if "--tests" in words else []
    print(f"{table(counts)}\n\n{room_table()}")
    return int(not all(count.holds for count in counts))


@lru_cache(None)
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _name(file: Path) -> str:
    return file.relative_to(SRC / PACKAGE).as_posix()


def _module(file: Path) -> str:
    return ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


@lru_cache(None)
def _package(module: str) -> str:
    """The folder of a module; a package's `__init__` belongs to its folder, a file below vlakit is its own."""
    is_folder = (SRC / Path(*module.split("."))).is_dir()
    above = module if is_folder else module.rpartition(".")[0]
    return module if above == PACKAGE else above


def _listed(groups: list[list[str]]) -> str:
    return "; ".join(" <-> ".join(name.removeprefix(f"{PACKAGE}.") for name in group) for group in groups)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
