"""`vlakit select pool=DIR dataset=NAME acquisition=bald`: which demonstrations to collect next, round after round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.output import check_format, emit
from vlakit.cli.trainings import Trainings, named, split_train
from vlakit.compare.grids import Grid, aligned
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from vlakit.selection.maps import DatasetMap
    from vlakit.selection.pool import Pool
    from vlakit.selection.rounds import Plan, Round

PARENT = "mlflow_parent"


def main(overrides: Sequence[str]) -> None:
    """All rounds, or those that are missing; then the page."""
    own, words = split_train(overrides)
    cfg: dict[str, Any] = {**verb_config("select", own), "train": words}
    check_format(cfg["format"])
    check_device(cfg["device"])
    from vlakit.selection.page import write_page
    from vlakit.selection.rounds import run

    plan, pool = _plan(cfg), _pool(cfg)
    out = check_writable(cfg["out"] or Path(cfg["paths"]["runs"]) / "select" / f"{plan.acquisition.name}-{plan.seed}")
    trainings = _trainings(cfg, pool, out.absolute())
    _check_size(plan, cfg, pool)
    composed = trainings.composed(out)  # what the words of train refuse is known before the first training
    with _recorded(composed.logger, named(cfg), out) as parent:
        trainings = _trainings(cfg, pool, out.absolute(), parent)
        known = _map(cfg, trainings)
        left_out = [] if known is None else known.dropped(cfg["drop"], cfg["rank_by"]).tolist()
        reasons = pool.reasons()
        identity = {"pool": pool.source.identity(), "train": list(cfg["train"]), "passes": cfg["passes"]}
        outliers = None if reasons is None else reasons.keys()
        done = run(plan, len(pool), trainings, out, identity=identity, left_out=left_out, outliers=outliers)
    page = write_page(out / "selection.html", {named(cfg): [done]}, known, reasons, pool, n_pictures=cfg["thumbnails"])
    report = {"out": str(out), "rounds": [asdict(one) for one in done], "page": str(page)}
    emit(report, f"{table(done)}\npage: {page}", cfg["format"])


def table(rounds: Sequence[Round]) -> str:
    """A line a round: demonstrations, outliers among them where known, success and held-out loss."""
    names = sorted({name for one in rounds for name in one.metrics if name in ("eval/success", "val/loss")})
    rows = []
    for one in rounds:
        known = "-" if one.outlier_share is None else f"{one.outlier_share:.3f}"
        values = [f"{one.metrics[name]:.3f}" if name in one.metrics else "-" for name in names]
        rows.append([f"{one.number}", f"{len(one.labelled)}", known, *values])
    return "\n".join(aligned(Grid("", ["round", "labelled", "outliers", *names], rows)))


def _plan(cfg: Mapping[str, Any]) -> Plan:
    from vlakit.selection.acquisitions import Acquisition
    from vlakit.selection.coreset import Amortised
    from vlakit.selection.rounds import Plan

    amortised = Amortised(cfg["pca"], cfg["updates"]) if cfg["amortised"] else None
    acquisition = Acquisition(cfg["acquisition"], amortised, cfg["average"])
    return Plan(acquisition, cfg["first"], cfg["batch"], cfg["rounds"], cfg["seed"])


def _pool(cfg: Mapping[str, Any]) -> Pool:
    from vlakit.data.source import open_source
    from vlakit.data.specs.spec import load_spec
    from vlakit.selection.pool import Pool

    return Pool(open_source(Path(cfg["pool"]).expanduser()), load_spec(cfg["dataset"]))


def _check_size(plan: Plan, cfg: Mapping[str, Any], pool: Pool) -> None:
    from vlakit.selection.coreset import check_size

    if cfg["drop"] and cfg["map"] is None:
        raise ConfigError(
            f"drop={cfg['drop']} and no map", where="command line", do="map=FILE, or map=train to make one"
        )
    check_size(plan.total, len(pool) - int(cfg["drop"] * len(pool) + 1e-9))


def _trainings(cfg: Mapping[str, Any], pool: Pool, out: Path, parent: str | None = None) -> Trainings:
    spec_file = str(Path(cfg["dataset"]).absolute()) if str(cfg["dataset"]).endswith((".yaml", ".yml")) else None
    options = {name: cfg[name] for name in ("val_fraction", "passes", "seed", "device")}
    own = [f"paths.runs='{Path(cfg['paths']['runs']).absolute()}'", *cfg["train"]]
    lists = {"cameras": tuple(cfg["cameras"]), "trusted": tuple(cfg["trusted"])}
    return Trainings(pool, out, own, spec_file, parent=parent, **lists, **options)


def _map(cfg: Mapping[str, Any], trainings: Trainings) -> DatasetMap | None:
    from vlakit.errors import InvalidData
    from vlakit.selection.maps import DatasetMap

    if cfg["map"] is None:
        return None
    file = trainings.mapped() if cfg["map"] == "train" else Path(cfg["map"]).expanduser()
    if not file.is_file():
        raise ConfigError("no such file", where=f"map={file}", do="a map-DATASET.csv, or map=train")
    known = DatasetMap.load(file)
    if sorted(known.ids.tolist()) != list(range(len(trainings.pool))):
        raise InvalidData(
            f"the map is of {len(known.ids)} demonstrations, the pool has {len(trainings.pool)}",
            where=str(file),
            do="give the map of this pool: map=train makes it",
        )
    return known


@contextmanager
def _recorded(logger: Mapping[str, Any], name: str, out: Path) -> Iterator[str | None]:
    """The MLflow run above all rounds, the same when a selection goes on; None where train has logger=none."""
    from vlakit.tracking.mlflow import client, end_run, reopen, start_parent

    uri, file = logger.get("tracking_uri"), out / PARENT
    if uri is None:
        yield None
        return
    before = file.read_text().strip() if file.is_file() else None
    if before is None or not reopen(client(uri), before):
        before = start_parent(uri, name, logger["experiment"], logger["artifacts"], str(out))
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(before + "\n")
    try:
        yield before
    except BaseException as error:
        end_run(uri, before, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    end_run(uri, before, "FINISHED")
