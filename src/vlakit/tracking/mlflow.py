"""MLflow: one run an execution, one parent a sweep, and runs read back as plain rows.

MLflow is imported inside functions: it costs over a second, and most commands never need it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from socket import gethostname
from sqlite3 import DatabaseError
from typing import TYPE_CHECKING, Any

from vlakit.errors import ConfigError, VlakitError
from vlakit.tracking.points import Point
from vlakit.tracking.store import REMEDIES, REMEDY, SQLITE, ready

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
EXPERIMENT = "vlakit"
OUTPUT, HOST = "vlakit.output", "vlakit.host"  # tags: the folder that a run writes, and on which machine
PROBE_S = 10
_LONGEST_PARAM = 500


class StoreUnreachable(VlakitError):
    """The MLflow store cannot be opened."""


@dataclass(frozen=True)
class RunRow:
    """One recorded run: `params` and `tags` are strings, `metrics` the last value of each."""

    run_id: str
    name: str
    status: str
    start_ms: int
    parent: str | None
    params: dict[str, str] = field(default_factory=dict[str, str])
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    tags: dict[str, str] = field(default_factory=dict[str, str])


def client(tracking_uri: str) -> MlflowClient:
    """A client of the store; a sqlite file is made with its folder on first use. Raises StoreUnreachable."""
    for name, value in (("DISABLE_TELEMETRY", "true"), ("HTTP_REQUEST_MAX_RETRIES", "2")):
        os.environ.setdefault(f"MLFLOW_{name}", value)  # of its own it asks a server that is gone for two minutes
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow import MlflowClient
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT as TIMEOUT

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it raises it prints with a trace, too
    with answering(tracking_uri):
        store = MlflowClient(tracking_uri=ready(tracking_uri))
        patient = RETRIES.get_raw(), TIMEOUT.get_raw()
        try:
            RETRIES.set(0)
            TIMEOUT.set(PROBE_S)
            store.search_experiments(max_results=1)
        finally:
            for variable, value in zip((RETRIES, TIMEOUT), patient, strict=True):
                variable.unset() if value is None else variable.set(value)
    return store


@contextmanager
def answering(tracking_uri: str) -> Iterator[None]:
    """What a store answers with in place of an answer, as StoreUnreachable with what to do about it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, OSError, DatabaseError, SQLAlchemyError) as error:
        said = str(error)
        raise StoreUnreachable(
            f"MLflow does not answer: {said.splitlines()[0][:200]}",
            where=tracking_uri,
            do=next((do for words, do in REMEDIES.items() if re.search(words, said)), REMEDY).format(
                file=tracking_uri.removeprefix(SQLITE), uri=tracking_uri
            ),
        ) from error


def experiment_id(store: MlflowClient, name: str, artifacts: str | None = None) -> str:
    """The id of a named experiment, made when it is not there; another process may make it at the same moment.

    `artifacts` is the folder for files of a new experiment; a server chooses its own. Raises ConfigError for one that
    was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = store.get_experiment_by_name(name)
    if found is None:
        location = (
            Path(artifacts).absolute().as_uri() if artifacts and store.tracking_uri.startswith("sqlite") else None
        )
        try:
            return store.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = store.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        restore = f"MLFLOW_TRACKING_URI={store.tracking_uri} mlflow experiments restore -x {found.experiment_id}"
        raise ConfigError(
            f"the experiment {name!r} was deleted, and its name is still taken",
            where=store.tracking_uri,
            do=f"logger.experiment=ANOTHER, or bring it back: {restore}",
        )
    return found.experiment_id


def start_parent(tracking_uri: str, run_name: str, experiment: str, artifacts: str | None, folder: str = "") -> str:
    """Open the run under which the jobs of a sweep are filed; returns its id. folder: where the sweep writes."""
    store = client(tracking_uri)
    tags = {"mlflow.runName": run_name, "vlakit.kind": "sweep", OUTPUT: folder, HOST: gethostname()}
    return store.create_run(experiment_id(store, experiment, artifacts), tags=tags, run_name=run_name).info.run_id


def end_run(tracking_uri: str, run_id: str, status: str) -> None:
    """Close a run as FINISHED, FAILED or KILLED."""
    with answering(tracking_uri):
        client(tracking_uri).set_terminated(run_id, status)


def reopen(store: MlflowClient, run_id: str) -> bool:
    """Mark a run as running again; False when the store does not know it."""
    from mlflow.exceptions import MlflowException

    try:
        store.update_run(run_id, status="RUNNING")
    except MlflowException:
        return False
    return True


def recorded_points(store: MlflowClient, run_id: str) -> set[tuple[str, int]]:
    """(name, step) of a run's curves, but for the machine's load, which MLflow goes on with itself."""
    names = [name for name in store.get_run(run_id).data.metrics if not name.startswith("system/")]
    return {(name, point.step) for name in names for point in store.get_metric_history(run_id, name)}


def log_points(store: MlflowClient, run_id: str, points: Sequence[Point]) -> None:
    """File points of curves in one request."""
    from mlflow.entities import Metric

    store.log_batch(run_id, metrics=[Metric(name, value, when, step) for name, step, value, when in points])


@dataclass(frozen=True)
class Failure:
    """A job that ended in an error: its name, folder, flat parameters, and why."""

    name: str
    output: str
    params: Mapping[str, Any]
    why: str


def record_failure(
    tracking_uri: str, failure: Failure, *, experiment: str = EXPERIMENT, artifacts: str | None = None, parent: str = ""
) -> None:
    """File a failure as FAILED with tag `vlakit.error`: in the run that the job opened, else in a new one."""
    from mlflow.entities import RunTag

    store = client(tracking_uri)
    home = experiment_id(store, experiment, artifacts)
    said = failure.output.replace("'", "")  # the store's filter language cannot say a quote
    opened = store.search_runs([home], f"tags.`{OUTPUT}` = '{said}'", max_results=1)
    if opened:
        run_id = opened[0].info.run_id
    else:
        tags = {PARENT: parent, OUTPUT: failure.output}
        run_id = store.create_run(home, tags=tags, run_name=failure.name).info.run_id
        log_params(store, run_id, failure.params)
    store.log_batch(run_id, tags=[RunTag("vlakit.error", failure.why[:2000])])
    store.set_terminated(run_id, "FAILED")


def log_params(store: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """File parameters, only those not yet there: MLflow allows no second value."""
    from mlflow.entities import Param

    known = store.get_run(run_id).data.params
    fresh = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in params.items() if name not in known]
    for start in range(0, len(fresh), 100):  # the most that one request may hold
        store.log_batch(run_id, params=fresh[start : start + 100])


def runs(tracking_uri: str, experiment: str = EXPERIMENT, where: str = "") -> list[RunRow]:
    """All runs of an experiment, oldest first; an empty list when there is no such experiment.

    where: a filter in MLflow's language, such as "tags.`vlakit.kind` = 'sweep'": reading a run costs some 4 ms.
    """
    store = client(tracking_uri)
    found = store.get_experiment_by_name(experiment)
    if found is None:
        return []
    rows: list[RunRow] = []
    token = None
    while True:
        page = store.search_runs(
            [found.experiment_id], where, order_by=["attributes.start_time ASC"], max_results=1000, page_token=token
        )
        rows += [_row(run) for run in page]
        token = page.token
        if not token:
            return rows


def histories(
    tracking_uri: str, run_ids: Iterable[str], names: Sequence[str]
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Run -> metric -> (step, value) in order of steps: what was written last at each, without nan and infinity."""
    store = client(tracking_uri)
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for run_id in run_ids:
        found[run_id] = {}
        for name in names:
            points = sorted(store.get_metric_history(run_id, name), key=lambda metric: metric.timestamp)
            last = {metric.step: metric.value for metric in points if isfinite(metric.value)}
            if last:
                found[run_id][name] = sorted(last.items())
    return found


def _row(run: Run) -> RunRow:
    """Under the names that stand in every table: runs of before say bytes, and tags and steps among the parameters."""
    params, metrics, tags = dict(run.data.params), dict(run.data.metrics), dict(run.data.tags)
    params |= {name: value for name, value in tags.items() if name.startswith("tags.")}
    if "memory/peak_GB" in metrics:
        metrics["memory/peak_bytes"] = float(round(1e9 * metrics["memory/peak_GB"]))
    if "params/steps" in metrics:  # a parameter has one value for ever, and a resumed run may train longer
        params["steps"] = str(int(metrics["params/steps"]))
    return RunRow(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        start_ms=run.info.start_time or 0,
        parent=tags.get(PARENT),
        params=params,
        metrics=metrics,
        tags=tags,
    )


def record_evaluation(
    tracking_uri: str, run_id: str, metrics: Mapping[str, float], files: Iterable[Path], folder: str = "evaluation"
) -> bool:
    """Add metrics, and files in an artefact folder, to a finished run; False when the store does not know it.

    Raises StoreUnreachable.
    """
    from mlflow.exceptions import MlflowException

    store = client(tracking_uri)
    try:
        store.get_run(run_id)
    except MlflowException:
        return False
    with answering(tracking_uri):
        for name, value in metrics.items():
            store.log_metric(run_id, name, value)
        for file in files:
            store.log_artifact(run_id, str(file), folder)
    return True
