"""What a run is and what it scored, as plain JSON from which it can be made again.

Machine paths become names (see paths.py); what the files do not say is listed under "unknown".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vlakit import __version__
from vlakit.checkpoints.card import CARD, Card
from vlakit.checkpoints.file import WEIGHTS, network_state, read_checkpoint, weights_file
from vlakit.checkpoints.formats import LoadOptions
from vlakit.checkpoints.shipped import is_shipped, resolve
from vlakit.compare.readers.own import find
from vlakit.compare.records import read_header
from vlakit.errors import CheckpointMismatch, ConfigError, CorruptRecord, InvalidData
from vlakit.evaluation.records import read_episodes, summary
from vlakit.files import content_hash
from vlakit.models.quantized_layers import NONE
from vlakit.policy import TrainedPolicy
from vlakit.reports.paths import portable
from vlakit.tracking.mlflow import EXPERIMENT, RunRow, StoreUnreachable, runs

VERSION, PASSPORT, CONFIG = 1, "passport.json", "config.yaml"
_COMMIT = {"commit": "mlflow.source.git.commit", "dirty": "git.dirty", "vlakit": "vlakit.version"}
PLACED = ("settings", "gate", "checkpoint")  # of an evaluation, what may name paths
OUTCOME = ("task", "initial_state", "seed", "success", "credit", "steps")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation as `read_evaluation` gives it, and the file of the checkpoint; None for a control."""

    content: dict[str, Any]
    file: Path | None


def describe(place: Path, options: LoadOptions, *, verify: bool = True) -> dict[str, Any]:
    """The passport of a run's folder, or of one evaluation's. verify: load the checkpoints, compare with the records.

    Raises InvalidData for what has no episodes or did not end, ConfigError for several runs, CheckpointMismatch.
    """
    evaluated = _evaluations(place)
    homes = sorted({each.file.parent for each in evaluated if each.file})
    if len(homes) > 1:
        names = ", ".join(str(home) for home in homes)
        raise ConfigError(f"evaluations of {len(homes)} runs", where=str(place), do=f"name one of: {names}")
    config, unknown = _config(homes[0]) if homes else {}, list[str]()
    subjects = {each.file: each.content["subject"] for each in evaluated if each.file}
    known = {file: _checkpoint(file, subject, config, unknown) for file, subject in subjects.items()}
    for each in evaluated if verify else ():
        _verify(each, options)
    training = _training(config, homes[0], next(iter(known.values()))[1], unknown) if config else None
    if homes and training is None:
        unknown.append("training: the checkpoint's folder holds no configuration of a run")
    contents = [{**e.content, **({"checkpoint": known[e.file][0]} if e.file else {})} for e in evaluated]
    name = training["name"] if training else Path(contents[0]["subject"]).name
    roots, left = _roots(config), set[str]()
    passport = {
        "passport": VERSION,
        "vlakit": __version__,
        "name": name,
        "training": portable(training, roots, left),
        "evaluations": [_placeless(content, roots, left) for content in contents],
        "unknown": unknown,
    }
    if left:
        unknown.append(f"paths: where on that machine these lay is left out: {', '.join(sorted(left))}")
    return passport


def _placeless(evaluation: dict[str, Any], roots: Mapping[str, str], left: set[str]) -> dict[str, Any]:
    """An evaluation without paths of the machine, whose names join `left`, and without its subject, which is one."""
    content = {key: value for key, value in evaluation.items() if key != "subject"}
    settings = content["settings"]
    if "assets" in settings.get("suite_settings", {}):  # reproduce looks for them anew
        left |= {"suite.assets"} if settings["suite_settings"]["assets"] else set()
        without = {key: value for key, value in settings["suite_settings"].items() if key != "assets"}
        content["settings"] = {**settings, "suite_settings": without}
    return {key: portable(value, roots, left) if key in PLACED else value for key, value in content.items()}


def _evaluations(place: Path) -> list[Evaluated]:
    """The evaluations of a run, one a suite. Raises InvalidData for none, ConfigError for two of a suite."""
    folders = {file.parent: read_evaluation(file.parent) for file in find(place)}
    if not folders:
        raise InvalidData("no evaluation here", where=str(place), do="vlakit evaluate ckpt=RUN suite=NAME comes first")
    for suite in {content["suite"]: None for content in folders.values()}:
        same = [str(folder) for folder, content in folders.items() if content["suite"] == suite]
        if len(same) > 1:
            do = f"name one of: {', '.join(same)}"
            raise ConfigError(f"{len(same)} evaluations in {suite}", where=str(place), do=do)
    return [Evaluated(content, _checkpoint_file(content, folder)) for folder, content in folders.items()]


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Settings, rates and outcomes of one evaluation. Raises InvalidData for one that did not end, CorruptRecord."""
    header, records = read_header(folder), read_episodes(folder)
    settings = header["settings"]
    if "summary" not in header or len(records) < settings["episodes"]:
        raise InvalidData(
            f"the evaluation did not end: {len(records)} of {settings['episodes']} episodes are there",
            where=str(folder),
            do="give a whole evaluation: this one was stopped when it was decided, so that its rate is no estimate"
            if "stopped" in header
            else "the same vlakit evaluate goes on with it",
        )
    pooled, rows = summary(records)
    return {
        "suite": settings["suite"],
        "subject": header["subject"],
        "settings": settings,
        "strict": header["strict"],
        "gate": header.get("gate"),
        "success": asdict(pooled),
        "tasks": [asdict(row) for row in rows],
        "episodes": [{key: getattr(record, key) for key in OUTCOME} for record in records],
    }


def read_passport(path: Path) -> tuple[Path, dict[str, Any]]:
    """A passport's file and content. Raises InvalidData for a later version or none, CorruptRecord."""
    file = path / PASSPORT if path.is_dir() else path
    if not file.is_file():
        raise InvalidData("no passport here", where=str(path), do="vlakit passport run=RUN writes one")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = int(content["passport"])
        if version == VERSION:
            _ = content["training"], [(e["settings"]["policy"], e["episodes"][0]) for e in content["evaluations"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptRecord(f"no passport: {error!r}", where=str(file), do="take the one that was written") from error
    if version != VERSION:
        raise InvalidData(
            f"a passport of version {version}, this vlakit reads {VERSION}",
            where=str(file),
            do="install the vlakit that wrote it",
        )
    return file, content


def _checkpoint_file(evaluation: Mapping[str, Any], folder: Path) -> Path | None:
    """The checkpoint of an evaluation: beside it, where it should be, else where it was; None for a control."""
    if "control" in evaluation["settings"]["policy"]:
        return None
    subject = evaluation["subject"]
    if is_shipped(subject):
        return resolve(subject)
    recorded, run = Path(subject).expanduser(), folder.parents[1]
    for place in (run / recorded.name if recorded.suffix in {".ckpt", ".pt"} else run, recorded):
        file = weights_file(place)
        if file is not None:
            return file
    raise CheckpointMismatch(
        f"the checkpoint that was evaluated, {subject}, is not here",
        where=str(folder),
        do="put it back into the run's folder",
    )


def _config(run: Path) -> dict[str, Any]:
    file = run / CONFIG
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _checkpoint(
    file: Path, subject: str, config: Mapping[str, Any], unknown: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint is and how it was chosen; facts of its run. Raises InvalidData where training stopped short."""
    facts: dict[str, Any] = {"name": subject if is_shipped(subject) else file.name, "sha256": content_hash(file)}
    if file.suffix != ".ckpt":
        unknown.append("checkpoint: its layout says neither how it was trained nor how it was chosen")
        return facts, {}
    content = read_checkpoint(file)
    card = Card.from_dict(content[CARD], where=str(file))
    step, rule = content.get("global_step"), _rule(file.stem, config)
    wanted = config.get("trainer", {}).get("max_steps")
    if rule is None:
        unknown.append(f"checkpoint: nothing says by what rule {facts['name']} was kept")
    elif rule["monitor"] is None and None not in (step, wanted) and step < wanted:
        raise InvalidData(
            f"the run stopped at step {step} of {wanted}", where=str(file), do=f"go on with it: ckpt_path={file}"
        )
    facts |= {"strategy": card.strategy, "network": card.network, "adapter": card.adapter}
    facts |= {"step": step, "rule": rule, "versions": (card.contract or {}).get("versions", {})}
    facts["datasets"] = sorted(card.facts.get("shards") or card.statistics)
    if card.base is None:
        facts["parameters"] = sum(tensor.numel() for tensor in network_state(content).values())
    return facts, card.facts


def _rule(name: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """By what value a file was kept, as the run's callbacks say; monitor None: it is the last state. None: unknown."""
    for callback in config.get("callbacks", {}).values():
        if callback.get("filename") == name and callback.get("monitor"):
            data, trainer = config["data"], config["trainer"]
            held_out = {key: data[key] for key in ("mixture", "val_fraction") if key in data}
            held_out["batches"] = trainer.get("limit_val_batches")
            return {"monitor": callback["monitor"], "mode": callback.get("mode", "min"), "held_out": held_out}
    return {"monitor": None} if name == "last" and config else None


def _verify(evaluated: Evaluated, options: LoadOptions) -> None:
    """Raise CheckpointMismatch unless the checkpoint is the one that was evaluated, to the bit; a control has none."""
    if evaluated.file is None:
        return
    recorded, strict = evaluated.content["settings"]["policy"], None if evaluated.content["strict"] else False
    asked = {"quantize": recorded.get("quantize", NONE), "quantize_also": tuple(recorded.get("quantize_also", ()))}
    policy = TrainedPolicy.from_checkpoint(
        evaluated.file, constrain=recorded["constrain"], strict=strict, options=replace(options, **asked)
    )
    if policy.content_hash() != recorded["sha256"]:
        raise CheckpointMismatch(
            f"the checkpoint is not the one that was evaluated in {evaluated.content['suite']}: "
            "its weights or statistics have changed since",
            where=str(evaluated.file),
            do="evaluate it anew, with another out=DIR",
        )


def _training(config: dict[str, Any], run: Path, card: Mapping[str, Any], unknown: list[str]) -> dict[str, Any]:
    words = run / ".hydra" / "overrides.yaml"
    overrides = yaml.safe_load(words.read_text(encoding="utf-8")) if words.is_file() else None
    if overrides is None:
        unknown.append("overrides: the run was not started from the command line; its whole configuration is here")
    if config.get("ckpt_path"):
        unknown.append("interruptions: the run went on from a checkpoint; made again, it is trained in one go")
    run_id = card.get("mlflow_run_id")
    return {
        "name": config["name"],
        "seed": config["seed"],
        "overrides": overrides and [o for o in overrides if not o.lstrip("+~").startswith("logger")],
        "config": {**config, "logger": {}},  # a store's address is nobody else's business
        "shards": card.get("shards", {}),
        "weights": _started(config["model"]["weights"], run, card, unknown),
        "mlflow_run_id": run_id,
        "record": _record(config["logger"], run_id, unknown),
    }


def _roots(config: Mapping[str, Any]) -> dict[str, str]:
    """Folders of a run, as the configuration says them and from the root of the file system, and their names."""
    folders = {key: Path(config["paths"][key]) for key in ("runs", "data", "output")} if config else {}
    return {str(form): f"<{key}>" for key, path in folders.items() for form in (path, path.expanduser().absolute())}


def _started(weights: str | None, run: Path, card: Mapping[str, Any], unknown: list[str]) -> dict[str, Any] | None:
    """What training started from; its hash as the card says it, else only while the file is as old as the run."""
    if weights is None:
        return None
    digest = card.get(WEIGHTS)
    if digest is None:
        file = weights_file(weights)
        if file is not None and file.stat().st_mtime <= (run / CONFIG).stat().st_mtime:
            digest = content_hash(file)
        else:
            unknown.append("weights: the file that training started from is gone or newer, so its hash is not known")
    return {"name": weights, "sha256": digest}


def _record(logger: Mapping[str, Any], run_id: str | None, unknown: list[str]) -> dict[str, str]:
    """The commit and vlakit's version, from MLflow, which alone knows them. InvalidData: the run did not finish."""
    tags: Mapping[str, str] = {}
    uri = logger.get("tracking_uri")
    if uri is not None and run_id is not None:
        with suppress(StoreUnreachable):
            tags = next((check_finished(row).tags for row in recorded(uri, run_id, logger.get("experiment"))), {})
    record = {key: tags[tag] for key, tag in _COMMIT.items() if tags.get(tag, "unknown") != "unknown"}
    if "commit" not in record:
        unknown.append("commit: " + ("vlakit was not run from a checkout" if tags else "no MLflow record was found"))
    return record


def recorded(uri: str, word: str, experiment: str | None = None) -> list[RunRow]:
    """Runs of this id or name in a store, oldest first; asking makes no store where there is none."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return []
    name = word.replace("'", "")
    for key in ("run_id", "run_name"):
        rows = runs(uri, experiment or EXPERIMENT, f"attributes.{key} = '{name}'")
        if rows:
            return rows
    return []


def check_finished(row: RunRow) -> RunRow:
    """The same run. Raises InvalidData for one that failed or still runs."""
    if row.status != "FINISHED":
        why = row.tags.get("vlakit.error", row.status.lower())
        raise InvalidData(f"the run did not finish: {why}", where=row.name, do="finish it, or give one that did")
    return row
