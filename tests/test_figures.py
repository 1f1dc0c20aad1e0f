"""Every measured number that people read stands in a committed file: experiments/figures.yaml says where."""

import csv
import re
from functools import lru_cache
from statistics import fmean

import pytest
import yaml
from places import ROOT

FIGURES = yaml.safe_load((ROOT / "experiments/figures.yaml").read_text(encoding="utf-8"))
UNITS = r"(?:%|points|x|MB|GB|min|s|ms|samples/s|frames a second)\b|%"
NUMBER = re.compile(rf"(?<![\w.,/=])[-+]?(?:(?:\d[\d,]*)?\.\d+(?:e-?\d+)?(?![\d.]*\w)|\d[\d,]*(?= (?:{UNITS})))")
HOW = {"mean": fmean, "min": min, "max": max, "sum": sum, "count": len}


def prose(document: str) -> str:
    """What a person reads as a statement: no commands, no links, one space between words."""
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", text))


def statements(document: str) -> list[dict]:
    return [entry for entry in FIGURES[document] if isinstance(entry, dict)]


@lru_cache
def rows(file: str) -> list[dict[str, str]]:
    with (ROOT / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def fits(row: dict[str, str], where: dict) -> bool:
    return all(row[column] in [str(each) for each in _list(wanted)] for column, wanted in where.items())


def recorded(entry: dict) -> list[float]:
    """The numbers of an entry: each row's, or the mean of each group (`by`); what `how` makes of them; times `scale`."""
    chosen = [row for row in rows(entry["file"]) if fits(row, entry.get("where", {}))]
    assert chosen, f"no row of {entry['file']} has {entry.get('where')}"
    values = [float(row[column]) for row in chosen for column in _list(entry["column"])]
    if by := entry.get("by"):
        keys = [row[by] for row in chosen]
        values = [
            fmean(value for key, value in zip(keys, values, strict=True) if key == str(wanted))
            for wanted in entry.get("order", sorted(set(keys)))
        ]
    if how := entry.get("how"):
        values = [HOW[each](values) for each in _list(how)]
    return [entry.get("scale", 1) * value for value in values]


def _list(value: object) -> list:
    return value if isinstance(value, list) else [value]


def printed_as(text: str, value: float) -> bool:
    """Whether rounding the value as the text is rounded gives the text; thousands may be rounded to two digits."""
    number = text.replace(",", "").lstrip("+")
    shown = float(number)
    if "." not in number and abs(shown) >= 1000:
        return abs(value - shown) <= 0.05 * shown
    half = 0.5 * 10.0 ** -len(number.partition(".")[2])
    if text[0] not in "+-":  # "falls short by 40 points"
        value, shown = abs(value), abs(shown)
    return abs(value - shown) <= half * (1 + 1e-6)


@pytest.mark.parametrize("document", FIGURES)
def test_a_statement_says_what_its_file_holds(document):
    text = prose(document)
    for entry in statements(document):
        figures = re.findall(r"\{([^}]+)\}", entry["says"])
        assert re.sub(r"[{}]", "", entry["says"]) in text, f"{document} does not say: {entry['says']}"
        values = list(recorded(entry))
        assert len(values) == len(figures), f"{entry['says']}: {entry['file']} has {values}"
        wrong = [pair for pair in zip(figures, values, strict=True) if not printed_as(*pair)]
        assert not wrong, f"{document}: {entry['says']}\n{entry['file']}: {wrong}"


@pytest.mark.parametrize("document", FIGURES)
def test_no_number_stands_without_its_file(document):
    """Numbers that are no measurement (settings, versions, the paper's) are quoted as such, as plain text."""
    text = prose(document)
    for entry in FIGURES[document]:
        quoted = re.sub(r"[{}]", "", entry["says"] if isinstance(entry, dict) else entry)
        assert quoted in text, f"{document} does not say: {quoted}"
        text = text.replace(quoted, " ")
    text = re.sub(r"`[^`]*`", " ", text)
    bare = [text[max(0, m.start() - 40) : m.end() + 20] for m in NUMBER.finditer(text)]
    assert not bare, "\n".join(bare)


def test_the_documents_with_results_are_all_here():
    """A new reading without figures would otherwise pass unseen."""
    readings = {str(path.relative_to(ROOT)) for path in (ROOT / "experiments").glob("**/README.md")}
    assert {"README.md", "src/vlakit/assets/tiny.md"} | readings <= set(FIGURES)


@pytest.mark.parametrize(("text", "value", "same"), [(".80", 0.8033, True), (".81", 0.8033, False), ("-40", -40.4, True), ("-40", 40.4, False)])
def test_a_number_is_rounded_as_it_is_printed(text, value, same):
    assert printed_as(text, value) == same
