"""What the scripts of faults share: a line of the table, a command that is tried, and how it ended."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path

from chaos import SMALL, Place, Work, prints

LIMIT_S = 900  # of one command, on a machine that does other things
RECORDED = tuple(word for word in SMALL if word != "logger=none")
RECORDED += ("logger.system_metrics=false", "trainer.log_every_n_steps=1", "logger.checkpoint=none")
RECORDED += ("logger.tracking_uri=sqlite:///{store}/mlflow.db", "logger.artifacts={store}/files")
TRAINING = ("num_workers=1", "validate_every=5", "ckpt_path=auto", "hydra.run.dir={out}")
SHORT = Work("training", "train", (*SMALL, *TRAINING, "steps=20"), ("last.ckpt",))


@dataclass
class Row:
    """A line of the table."""

    fault: str
    tried: int = 0
    survived: int = 0
    seen: Counter[str] = field(default_factory=Counter[str])

    def add(self, good: bool, what: str) -> None:
        """One trial."""
        self.tried, self.survived = self.tried + 1, self.survived + good
        self.seen[what if good else f"NOT SURVIVED: {what}"] += 1


@dataclass(frozen=True)
class Here(Place):
    """The folder, and words that commands name places by."""

    more: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def names(self) -> dict[str, str]:
        return super().names | {"store": str(self.folder / "store")} | self.more

    def told(self, work: Work, out: Path, before: Callable[[], object] = int) -> tuple[int | None, str]:
        """Run to the end: status (None: it hung) and all that was said."""
        return self.ended(self.begin(work, out, before))

    def ended(self, process: ForkProcess) -> tuple[int | None, str]:
        """The same of one that has begun; what others say meanwhile is in it."""
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
        log = self.folder / "log.txt"
        said = log.read_text(errors="replace")
        log.rename(self.folder / f"log_{len(list(self.folder.glob('log_*')))}.txt")
        log.touch()
        return (None if process.exitcode == -signal.SIGKILL else process.exitcode), said


def in_words(code: int | None, said: str) -> str:
    """What a user saw: "done", the one readable error's first words, or what is wrong with it."""
    errors = [line for line in said.splitlines() if ": " in line and line.partition(":")[0].isidentifier()]
    named = [line.partition(":")[0] for line in errors if line[0].isupper()]
    if code == 0:
        return "done"
    if code == 1 and "Traceback" not in said and said.count("\n  do: ") == 1:
        return f"{named[-1]}" if named else "one error"
    return f"status {code}, {said.count('Traceback')} tracebacks, {said.count('  do: ')} errors: {said[-200:]!r}"


def fine(seen: str) -> bool:
    """Whether it was done, or ended in one readable error."""
    return seen[:1].isupper() or seen == "done"


def same(work: Work, one: Path, other: Path) -> bool:
    """Whether both folders hold the same results, and any."""
    first = dict(prints(one, work))
    return bool(first) and first == dict(prints(other, work))
