"""Errors a user can act on: what went wrong, where, what to do. The command line prints them without a traceback."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# All but tab and new line: what a terminal would obey, and marks that turn text round.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class VlakitError(Exception):
    """One problem in three lines: `what`, `where` (file, record, key) and `do` (the remedy)."""

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        what, where, do = printable(what), printable(where), printable(do)
        self.what, self.where, self.do = what, where, do
        lines = [f"{type(self).__name__}: {what}"]
        if where:
            lines.append(f"  in:    {where}")
        if do:
            lines.append(f"  do:    {do}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a loader's worker process, which pickles what it raises."""
        return _rebuild, (type(self), self.what, self.where, self.do)


def _rebuild(kind: type[VlakitError], what: str, where: str, do: str) -> VlakitError:
    return kind(what, where=where, do=do)


class UnknownName(VlakitError):
    """A name that no registry, folder or configuration knows."""


class ConfigError(VlakitError):
    """A configuration key or value that cannot be used."""


class CorruptRecord(VlakitError):
    """Bytes on disk that are not what their framing, checksum or wire format promises."""


class FeatureMissing(VlakitError):
    """A field that a dataset spec needs and a record, or its features.json, lacks."""


class InvalidData(VlakitError):
    """Data that was read intact and cannot be used: wrong shape, NaN, an image of another kind, an empty split."""


class ActionNotFinite(InvalidData):
    """An action with NaN or infinity in it."""


class StatisticsMissing(VlakitError):
    """No action statistics for the dataset that was asked for."""


class NotAShardFolder(VlakitError):
    """A folder without a finished shardindex.json."""


class Unreachable(VlakitError):
    """Data on another machine that did not come after all attempts, or that is not given to us."""


class DiskFull(VlakitError):
    """The disk filled up while writing; what was finished before is kept."""


class CheckpointMismatch(VlakitError):
    """A checkpoint of another model, dataset or layout."""


class PatternUnmatched(VlakitError):
    """A glob of a strategy that selects no parameter."""


class LossNotFinite(VlakitError):
    """Training met a NaN or infinite loss."""


class RankLost(VlakitError):
    """A process of a training on several devices is gone."""


class PartMissing(VlakitError):
    """A part that this machine or this installation lacks."""


def printable(text: str) -> str:
    r"""Text of a foreign file without control characters, which would write anywhere on a terminal.

    >>> printable("lift\x1b[2J the\tcube\n")
    'lift[2J the\tcube\n'
    """
    return _CONTROL.sub("", text)


def one_line(word: str) -> str:
    """A name of a foreign file: printable, without tabs and new lines."""
    return word if word.isprintable() else printable(word).replace("\t", "").replace("\n", "")


def nearest(name: str, known: Iterable[str], n: int = 3, cutoff: float = 0.6) -> str:
    """Say which of the `known` names come nearest to `name`, or list them all when none is near (`cutoff`, in [0, 1]).

    >>> nearest("lora_r23", ["full", "lora_r32", "lora_r64"])
    'did you mean lora_r32, lora_r64?'
    """
    known = sorted(set(known))
    close = get_close_matches(name, known, n=n, cutoff=cutoff)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known: {', '.join(known)}" if known else "none is known"
