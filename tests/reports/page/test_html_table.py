"""The page of a table: loads nothing, escapes all, keeps measured and quoted apart, says why something is absent."""

from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pages import RATES, page_of, report_of, whole_fill

from vlakit.compare.grids import html_text
from vlakit.compare.pairs import Settings
from vlakit.reports.page.forest import differences, typeset_forest
from vlakit.reports.page.html_page import scale_of
from vlakit.reports.page.html_table import MOST_BYTES, charts
from vlakit.reports.paths import public
from vlakit.reports.rendering import report_of as formatted
from vlakit.reports.tables.folder import from_folder, save
from vlakit.reports.tables.formats import to_json
from vlakit.reports.tables.runs import MOST_POINTS, Filled, TableRun, thinned
from vlakit.reports.tables.spec import load_table, table_files
from vlakit.reports.tables.table import from_paper

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
VIDEOS = {"0000_lift_success.mp4": b"won", "0001_push_failure.mp4": b"lost", "0002_push_failure.mp4": b"lost again"}
VOID = {"meta", "link"}


class Read(HTMLParser):
    """Elements with their attributes, and each with the text in it; `open` is empty when all are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[int] = []
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self.open:
            self.found[place][2].append(data)

    def all(self, tag: str, kind: str = "") -> list[tuple[dict[str, str], str]]:
        """(attributes, text) of the elements of a tag, and of a class."""
        chosen = [(a, "".join(t)) for name, a, t in self.found if name == tag]
        return [(a, t) for a, t in chosen if not kind or kind in a.get("class", "").split()]

    @property
    def text(self) -> str:
        return "".join(self.found[0][2])


@pytest.fixture
def fill(tmp_path: Path) -> Filled:
    return whole_fill(tmp_path, VIDEOS)


def paper_page(name: str) -> str:
    spec = load_table(name)
    return html_text(formatted(from_paper(spec, Settings(margin=spec.tolerance))))


@pytest.mark.parametrize("name", [None, *sorted(table_files())])
def test_a_page_is_whole_and_loads_nothing(name: str | None, fill: Filled) -> None:
    page = page_of(fill) if name is None else paper_page(name)
    read = Read(page)
    assert read.open == []
    assert page.isascii()
    assert {tag for tag, _, _ in read.found} & {"script", "iframe", "object", "embed", "form", "a", "base"} == set()
    for tag, attributes, _ in read.found:
        for key, value in attributes.items():
            assert not key.startswith("on"), tag
            assert key not in {"src", "href", "poster", "srcset"} or value.startswith("data:")
    (style,) = read.all("style")
    assert not [word for word in ("url(", "@import", "://") if word in style[1]]


def test_a_policy_forbids_what_the_page_does_not_need(fill: Filled) -> None:
    policy = next(a["content"] for a, _ in Read(page_of(fill)).all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert "script" not in policy


def test_every_value_is_escaped(fill: Filled) -> None:
    runs = [replace(run, run=HOSTILE, commit=HOSTILE, record={**run.record, "shards.x": HOSTILE}) for run in fill.runs]
    runs[0] = replace(runs[0], episodes=None, why=HOSTILE)
    report = replace(report_of(Filled(runs, [HOSTILE]), HOSTILE), command=HOSTILE)
    read = Read(html_text(formatted(report)))
    assert {"script", "img"} & {tag for tag, _, _ in read.found} == set()
    assert read.text.count(HOSTILE) >= len(runs) + 4


def test_measured_and_quoted_cells_are_told_apart(fill: Filled) -> None:
    report = report_of(fill)
    cells = Read(page_of(fill)).all("td")
    quoted = [text for a, text in cells if "quoted" in a.get("class", "")]
    plain = [text for a, text in cells if "quoted" not in a.get("class", "")]
    rows = {row["row"]: row for row in to_json(report)["rows"]}
    for row in RATES:
        theirs, own = rows[row]["quoted"]["success"], rows[row]["measured"]["success"]
        shown = f"{100 * theirs['rate']:.1f} \xb1 {100 * theirs['printed_se']:.1f}"
        assert shown in quoted
        assert shown not in plain
        assert f"{100 * own['rate']:.1f}" in plain
    assert len(quoted) == 3 * len(report.rows) + len(report.claims)
    first = formatted(from_paper(load_table("table1"), Settings())).grids[0]
    theirs = [a["class"].split() for a, _ in Read(paper_page("table1")).all("td")[: len(first.rows) * 9]]
    assert ["quoted" in kind for kind in theirs] == [False, *[True] * 8] * len(first.rows)


def test_a_hole_says_why(fill: Filled, tmp_path: Path) -> None:
    broken = replace(fill.runs[4], episodes=None, why="LossNotFinite: the loss is nan", curves={})
    bare = [replace(run, curves={}) if run.row == "lora_r64" else run for run in fill.runs[5:]]
    for run in bare:
        if run.row == "lora_r32":
            for file in (tmp_path / run.run / "videos").glob("*.mp4"):
                file.write_bytes(bytes(MOST_BYTES + 1))
        if run.row == "lora_r64":
            for file in (tmp_path / run.run / "videos").glob("*.mp4"):
                file.unlink()
    read = Read(page_of(Filled([*fill.runs[:4], broken, *bare], [])))
    assert any("seed 1: LossNotFinite: the loss is nan" in text for _, text in read.all("td"))
    curves, rollouts = (text for _, text in read.all("ul", "holes"))
    assert "sandwich: no run yet" in curves
    assert "sandwich: no run yet" in rollouts
    assert "lora_r64: no metric history is kept" in curves
    assert "lora_r64: no video beside its episodes" in rollouts
    assert "lora_r32: its videos are larger than 200 kB each" in rollouts
    assert "full" not in rollouts
    for run in bare:
        for file in (tmp_path / run.run / "videos").glob("*.mp4") if run.row == "lora_r32" else ():
            file.rename(file.with_name(f"{file.stem.rpartition('_')[0]}_error.mp4")).write_bytes(b"short")
    assert "lora_r32: its videos show only episodes that ended in an error" in Read(page_of(Filled(bare, []))).text


def test_a_success_and_a_failure_of_each_row_are_in_the_page(fill: Filled) -> None:
    read = Read(page_of(fill))
    films = [b64decode(a["src"].removeprefix("data:video/mp4;base64,")) for a, _ in read.all("video")]
    assert films == [b"won", b"lost"] * len(RATES)
    assert "full lift: success (seed 0, episode 0)" in read.text
    assert "full push: failure (seed 0, episode 1)" in read.text


def test_the_forest_draws_the_numbers_of_the_pairs(fill: Filled) -> None:
    report = report_of(fill)
    found = differences(report)
    assert [(d.a, d.b) for d in found] == report.spec.pairs
    forest = typeset_forest(found, report.settings, report.score)
    assert forest is not None
    scale, judged = forest.scale, {(j.a, j.b): j.finding for j in report.pairs}
    drawn = {
        (pair.a, pair.b): [forest.at(value) for value in (pair.measured[0], *(pair.measured[1] or ()))]
        for pair in forest.pairs
        if pair.measured
    }
    assert drawn.keys() == judged.keys()
    for pair, places in drawn.items():
        finding = judged[pair]
        assert finding.interval is not None
        back = [scale.low + place / 100 * (scale.high - scale.low) for place in places]
        assert back == pytest.approx([100 * v for v in (finding.difference, *finding.interval)], abs=0.02)
    lines = Read(html_text(formatted(report))).all("line")
    ends = {f"{place}%" for place in drawn["last_layer", "full"][1:]}
    assert ends in [{a["x1"], a["x2"]} for a, _ in lines]


def test_the_papers_pairs_are_quoted_also_where_nothing_is_measured() -> None:
    report = from_paper(load_table("table1"), Settings())
    (first, *_) = differences(report)
    assert (first.a, first.b, first.measured) == ("last_layer", "full", None)
    assert first.quoted is not None
    assert first.quoted[0] == pytest.approx(10 / 33 - 23 / 33)
    assert Read(html_text(formatted(report))).all("g", "measured") == []


@pytest.mark.parametrize("values", [[0.0], [-3.0, -3.0], [1e-7, 3e-7], [-51.8, 13.4, 0.0], [0, 1999]])
def test_a_scale_holds_its_values_between_round_ends(values: list[float]) -> None:
    scale = scale_of(values)
    assert scale.low <= min(values) <= max(values) <= scale.high
    assert scale.low < scale.high
    places = [place for place, _ in scale.labels]
    assert (places[0], places[-1], places) == (0, 100, sorted(places))
    assert len({word for _, word in scale.labels}) == len(places)


def test_curves_are_thinned_to_their_ends_and_one_a_run(fill: Filled) -> None:
    long = [(step, float(step)) for step in range(12_345)]
    short = thinned(long)
    assert (len(short), short[0], short[-1]) == (MOST_POINTS, long[0], long[-1])
    assert thinned(long[:7]) == long[:7]
    assert thinned([]) == []
    report = report_of(fill)
    train, val = charts(report)
    assert (train.metric, val.metric) == ("train/loss", "val/loss")
    assert [line.row for line in train.lines if not line.mean] == [run.row for run in fill.runs]
    assert [line.row for line in train.lines if line.mean] == list(RATES)
    heights = [int(place.split()[1]) for place in train.lines[0].path[1:].split("L")]
    assert heights == sorted(heights)  # the loss falls, and SVG counts downwards
    assert [bool(line.dots) for line in (train.lines[0], val.lines[0])] == [False, True]


def test_a_mean_is_that_of_the_seeds_where_all_of_them_have_a_point() -> None:
    run = TableRun("a", "full", "0", curves={"val/loss": [(1, 2.0), (2, 4.0), (3, 1.0)]})
    other = replace(run, seed="1", curves={"val/loss": [(1, 4.0), (3, 2.0)]})
    alone = replace(run, row="lora_r32")
    (chart,) = charts(replace(report_of(Filled([], [])), runs=[run, other, alone]))
    (mean,) = [line for line in chart.lines if line.mean]
    assert (mean.row, mean.label) == ("full", "full, mean: 1.5 at step 3")
    assert mean.path.count("L") == 1


def test_the_verdict_stands_right_behind_the_difference_and_words_say_what_was_measured(fill: Filled) -> None:
    page = page_of(fill)
    header = [text for _, text in Read(page).all("th") if text]
    place = header.index("p Holm")
    assert header[place + 1 : place + 3] == ["measured", "against the paper"]
    assert "Measured here: success in a simulated tabletop" in page
    assert "2.4 M parameters" in page


def test_a_table_that_is_wider_than_a_phone_says_that_it_scrolls(fill: Filled) -> None:
    read = Read(page_of(fill))
    assert len(read.all("p", "hint")) >= 1
    assert "@media (max-width: 40rem) {\n  .hint { display: block }" in read.all("style")[0][1]


def test_a_saved_folder_gives_the_same_curves_and_facts(fill: Filled, tmp_path: Path) -> None:
    fill = Filled([replace(fill.runs[0], episodes=None, why="killed"), *fill.runs[1:]], [])
    save(fill, load_table("table1"), tmp_path / "kept")
    kept = from_folder(load_table("table1"), tmp_path / "kept")
    assert [(run.curves, run.record) for run in kept.runs] == [(run.curves, run.record) for run in fill.runs]
    before, after = (Read(page_of(f)).all for f in (fill, kept))
    assert after("dl") == before("dl")
    assert after("path") == before("path")
    assert after("video") == []
    assert "lora_r64: a saved folder keeps no videos" in after("ul", "holes")[-1][1]


def test_where_all_comes_from_is_said_without_passwords(fill: Filled) -> None:
    source = "http" + "://me:secret@host/store"
    report = replace(report_of(fill, source), command=f"vlakit table name=table1 tracking_uri={source}")
    read = Read(html_text(formatted(report)))
    facts = read.all("dl")[0][1]
    for said in ("host/store", "table name=table1", "toy f00d", "mujoco 3.3.0", "last.ckpt: the weights after", "1f"):
        assert said in facts
    assert "from 2026-11-01 10:00 UTC to 2026-11-03 10:00 UTC" in facts
    assert "0123456789 + changes" in read.text
    assert "lora_r32[seed=2]" in read.text
    assert "secret" not in read.text


def test_what_was_not_recorded_is_said(fill: Filled) -> None:
    bare = Filled([replace(run, record={}, commit="", curves={}) for run in fill.runs], [])
    assert "not recorded" in page_of(bare)
    assert "not recorded" not in page_of(fill)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("sqlite:////home/me/runs/mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("no file '/mnt/a/b.pt' in /x/y/, and/or /z", "no file 'b.pt' in y/, and/or /z"),
        ("data.root=/mnt/d/toy file:///a/b", "data.root=toy file://b"),
        ("https" + "://me:pw@host:5000/a/b 1/2/3", "https" + "://host:5000/a/b 1/2/3"),
    ],
)
def test_places_are_shown_by_their_names(said: str, shown: str) -> None:
    assert public(said) == shown
