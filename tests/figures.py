"""Compares what a document prints with the committed files that experiments/figures.yaml names."""

import csv
import re
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import fmean, median

import yaml
from places import ROOT

from vlakit.stats.intervals import wilson

UNITS = (
    r"%|of [\d,]+|of them|points|times|x(?! \d)|m?s|[MG]B|min|minutes|hours|seconds|(?:samples|frames)(?:/s| a second)"
)
ALONE = r"(?<=\| )[-+]?\d[\d,]*(?= \|)"  # in a cell of a table
NUMBER = re.compile(
    rf"(?<![\w.,/=])[-+]?(?:(?:\d[\d,]*)?\.\d+(?:e-?\d+)?(?!\.?\d)|\d+e-?\d+|\d[\d,]*(?= ?(?:{UNITS})(?!\w)))|{ALONE}"
)
IN_CELL = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*)?\.?\d+(?:e-?\d+)?")
HOW = {
    **{"mean": fmean, "median": median, "min": min, "max": max, "sum": sum, "count": len},
    "low": lambda values: wilson(round(sum(values)), len(values))[0],  # of successes 0 and 1: Wilson, 95 %
    "high": lambda values: wilson(round(sum(values)), len(values))[1],
    "ratio": lambda values: values[0] / values[-1],
    "difference": lambda values: values[0] - values[-1],
}


def readable(text: str) -> str:
    """What a person reads as a statement: no commands (their comments stay), no code, no links, no bold type."""
    text = re.sub(r"(?ms)^```.*?^```", lambda code: "\n".join(re.findall(r"\s# .*", code[0])), text)
    text = re.sub(r"\n\n(?: {4}.*\n)+", "\n\n", text).replace("**", "")
    return re.sub(r"\]\([^)]*\)", "]", text)


def compare(text: str, entries: list, folder: Path) -> tuple[list[str], list[str]]:
    """(what is printed otherwise than recorded, numbers that no entry names) of a document in a folder."""
    text, problems = readable(text), []
    for entry in entries:
        if "table" in entry and isinstance(entry, dict):
            text, wrong = _without_table(text, entry, folder)
            problems += wrong
    text = re.sub(r"\s+", " ", text)
    for entry in entries:
        says = entry if isinstance(entry, str) else entry.get("says", "")
        words = rf"(?<![\w.+-]){re.escape(re.sub('[{}]', '', says))}(?!\w|[.,]?\d)"
        text, found = re.subn(words, " ; ", text, count=1) if says else (text, 1)
        problems += [] if found else [f"not said: {says}"]
        if says and isinstance(entry, dict):
            wrong = _difference(re.findall(r"\{([^}]+)\}", says), entry, folder)
            problems += [f"{says}: {wrong}"] if wrong else []
    text = re.sub(r"`([^`]*)`", lambda code: " " if re.search("[A-Za-z]", code[1]) else code[1], text)
    return problems, [text[max(0, number.start() - 40) : number.end() + 20] for number in NUMBER.finditer(text)]


def _without_table(text: str, entry: dict, folder: Path) -> tuple[str, list[str]]:
    """The text without those cells of a table that an entry names, and what is wrong with them."""
    table = re.search(rf"(?m)^{re.escape(entry['table'])}.*\n(?:\|.*\n?)*", text)
    if not table:
        return text, [f"no table begins with: {entry['table']}"]
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines())
    problems, keys, columns = [], _list(entry["key"]), entry["columns"]
    columns = columns if isinstance(columns, dict) else {title: title for title in columns}
    for line in lines:
        names = [cell.replace("`", "") for cell in line[: len(keys)]]
        here = {key: entry.get("rows", {}).get(name, name) for key, name in zip(keys, names, strict=True)}
        for place, (title, cell) in enumerate(zip(header, line, strict=True)):
            spec, figures = columns.get(title), IN_CELL.findall(cell)
            if figures and spec not in (None, "setting"):
                spec = entry | (spec if isinstance(spec, dict) else {"column": spec})
                this = here | {keys[0]: spec.get("as", "{}").format(here[keys[0]])}
                wrong = _difference(figures, spec | {"where": spec.get("where", {}) | this}, folder)
                problems += [f"{line[0]}, {title}: {wrong}"] if wrong else []
            if place < len(keys) or spec is not None:
                line[place] = ""
    rest = "\n".join(" | ".join(["", *cells, ""]) for cells in (header, *lines))
    return text.replace(table[0], rest + "\n"), problems


def _difference(figures: list[str], entry: dict, folder: Path) -> str:
    """What is wrong with the figures of a statement or a cell, in words; "" if nothing is."""
    try:
        values = recorded(entry, folder)
    except LookupError as missing:
        return str(missing)
    same = len(values) == len(figures) and all(map(printed_as, figures, values))
    return "" if same else f"printed {figures}, recorded {values}"


def recorded(entry: dict, folder: Path) -> list[float]:
    """The numbers of an entry: of each row chosen, in the order of `where`, or of each group (`by`); `how`; `scale`."""
    file = next(path for root in (folder, ROOT) if (path := root / entry.get("file", "results.csv")).is_file())
    wanted, chosen = {column: _list(values) for column, values in entry.get("where", {}).items()}, []
    for one in product(*wanted.values()):
        here = dict(zip(wanted, map(str, one), strict=True))
        found = [row for row in rows(file) if all(fnmatchcase(row[column], here[column]) for column in here)]
        if not found:
            raise LookupError(f"no row of {file.name} has {here}")
        chosen += found
    values = [float(row[column]) for row in chosen for column in _list(entry["column"]) if row[column]]
    if by := entry.get("by"):
        groups = dict.fromkeys(row[by] for row in chosen)
        values = [fmean(v for v, row in zip(values, chosen, strict=True) if row[by] == group) for group in groups]
    values = [HOW[how](values) for how in _list(entry["how"])] if "how" in entry else values
    return [entry.get("scale", 1) * value for value in values]


@lru_cache
def rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV; of a YAML file one a leaf: its path is the `name`, and `value`."""
    if file.suffix == ".yaml":
        leaves = _leaves(yaml.safe_load(file.read_text(encoding="utf-8")))
        return [{"name": name, "value": value} for name, value in leaves]
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _leaves(tree: object, path: str = "") -> list[tuple[str, str]]:
    if not isinstance(tree, dict):
        return [(path, str(tree))]
    return [leaf for key, branch in tree.items() for leaf in _leaves(branch, f"{path}/{key}".lstrip("/"))]


def _list(value: object) -> list:
    return value if isinstance(value, list) else [value]


def printed_as(text: str, value: float) -> bool:
    """Whether the value, rounded as the text is, gives the text: thousands by their zeros, to two digits at least."""
    mantissa, _, exponent = text.replace(",", "").partition("e")
    shown, scale = float(mantissa), 10.0 ** int(exponent or 0)
    zeros = len(mantissa) - len(mantissa.rstrip("0")) if abs(shown) >= 1000 else 0
    unit = 10.0 ** (-len(mantissa.partition(".")[2]) or min(zeros, max(0, len(mantissa) - 2)))
    return abs(value / scale - shown) <= 0.5 * unit * (1 + 1e-6)
