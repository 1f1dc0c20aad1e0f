"""results.md, results.csv and the picture of every table, from its committed runs: `just tables`.

python experiments/tables.py NAME --add STORE [--parent ID]   with an MLflow store's, each instead of its row and seed
python experiments/tables.py NAME --add ROW@SEED=FOLDER ...   with evaluations that no store knows of
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vlakit.cli.configuration import verb_config
from vlakit.cli.errors import readable_errors
from vlakit.cli.table import build
from vlakit.compare.grids import FORMATS
from vlakit.compare.readers.own import find, read
from vlakit.errors import ConfigError
from vlakit.files import write_atomically
from vlakit.reports.page.forest import draw_forest
from vlakit.reports.rendering import report_of
from vlakit.reports.tables.folder import from_folder, save
from vlakit.reports.tables.runs import LEARNING_RATE, Filled, TableRun, from_store, tidy, with_curves
from vlakit.reports.tables.spec import load_table
from vlakit.reports.tables.table import TableReport

HERE = Path(__file__).resolve().parent
FILES = {"results.md": "markdown", "results.csv": "csv"}


def tables() -> list[str]:
    """Names of those that have runs."""
    return sorted(folder.parent.name for folder in HERE.glob("*/runs") if (folder.parent / "table.yaml").is_file())


def picture(name: str) -> str:
    """table1.svg of table1_finetuning, lora_rank.svg of lora_rank."""
    return f"{name.partition('_')[0] if name.startswith('table') else name}.svg"


def add(name: str, fresh: Sequence[TableRun], folder: Path) -> list[Path]:
    """Runs join those of a folder, each instead of one of its row and seed; the files.

    Raises what the table of all of them would, and ConfigError for a row of other settings, before a file is touched.
    """
    spec, replaced = load_table(name), {(run.row, run.seed) for run in fresh}
    kept = from_folder(spec, folder).runs if folder.is_dir() else []
    runs = [*(run for run in kept if (run.row, run.seed) not in replaced), *fresh]
    for run in fresh:
        check_like(run, kept)
    rows = [row.name for row in spec.rows]
    joined = tidy(Filled(sorted(runs, key=lambda run: (rows.index(run.row), int(run.seed))), []))
    with TemporaryDirectory() as place:
        save(joined, spec, Path(place))
        table_of(name, place)
    return save(joined, spec, folder)


def check_like(run: TableRun, kept: Sequence[TableRun]) -> None:
    """Raise ConfigError where its command gave another number than that of a run of its row which is there already."""
    own = settings_in(run.record.get("name", ""))
    for other in kept:
        theirs = settings_in(other.record.get("name", "")) if other.row == run.row else {}
        differing = [f"{key}={own[key]} and {theirs[key]}" for key in own.keys() & theirs if own[key] != theirs[key]]
        if differing:
            what = f"a training of the row {run.row} differs from those that are there: {', '.join(sorted(differing))}"
            do = "--parent=ID names the sweep that counts, or take the row's settings"
            raise ConfigError(what, where=f"run {run.run}, seed {run.seed}", do=do)


def settings_in(name: str) -> dict[str, str]:
    """What a run's name, its command, says of what the runs of a row share.

    >>> settings_in("oft_tiny[scale=table,steps=800,seed=1,strategy.optimizer.lr=1e-3]")
    {'steps': '800', 'strategy.optimizer.lr': '0.001'}
    """
    words = dict(word.split("=", 1) for word in re.split(r"[,\[\]]", name) if "=" in word)
    return {key: f"{float(words[key]):g}" for key in ("steps", "batch_size", LEARNING_RATE) if key in words}


def evaluated(name: str, store: str, parent: str = "all") -> list[TableRun]:
    """The trainings of a table in an MLflow store that were evaluated, or those of one sweep."""
    found = from_store(load_table(name), store, "vlakit", parent)
    return [run for run in with_curves(found, store).runs if run.episodes]


def added(name: str, given: str, parent: str) -> list[TableRun]:
    """Those of an MLflow store, or one from ROW@SEED=FOLDER, such as octo@0=runs/octo/evaluation/tabletop_d0."""
    row, _, folder = given.partition("=")
    if not folder:
        return evaluated(name, given, parent)
    row, _, seed = row.partition("@")
    return [of_folder(row, seed or "0", Path(folder), {"checkpoint": Path(folder).parent.parent.name})]


def of_folder(
    row: str, seed: str, folder: Path, record: Mapping[str, str], metrics: Mapping[str, float] | None = None
) -> TableRun:
    """An evaluation's folder as a training of a row."""
    episodes = replace(read(folder, find(folder)), run=row, seed=seed)
    return TableRun(f"{row}_{seed}"[-24:], row, seed, dict(metrics or {}), episodes, record=record)


def table_of(name: str, runs: str) -> TableReport:
    """Raises InvalidData for runs that are not paired, and what reading them raises."""
    return build(verb_config("table", [f"name={name}", f"from={runs}"]))


def write(name: str, folder: Path) -> list[Path]:
    """Write a table's files into a folder; returns them."""
    with chdir(HERE.parent):  # the table says from where it is
        table = table_of(name, f"experiments/{name}/runs")
    report = report_of(table)
    for file, style in FILES.items():
        write_atomically(folder / file, FORMATS.build(style, report=report) + "\n")
    return [*(folder / file for file in FILES), draw_forest(table, folder / picture(name))]


def main() -> None:
    """Write all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="folders of experiments/; all without")
    parser.add_argument(
        "--add", nargs="+", metavar="STORE", help="such as sqlite:///runs/mlflow.db, or ROW@SEED=FOLDER ..."
    )
    parser.add_argument("--parent", default="all", help="of a store's sweeps the one that counts: an id, last or auto")
    given = parser.parse_args()
    if given.add and not given.names:
        parser.error("--add needs the names of tables")
    for name in given.names or tables():
        if given.add:
            fresh = [run for one in given.add for run in added(name, one, given.parent)]
            add(name, fresh, HERE / name / "runs")
        for file in write(name, HERE / name):
            print(file.relative_to(HERE.parent))


if __name__ == "__main__":
    with readable_errors():
        main()
