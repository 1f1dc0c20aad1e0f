"""`vlakit serve ckpt=runs/... dialect=openpi port=8000`: a policy behind a port until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device
from vlakit.cli.policies import check_weights, load_policy
from vlakit.cli.suites import split_words, suite_settings
from vlakit.errors import ConfigError, PartMissing, UnknownName, nearest

if TYPE_CHECKING:
    from vlakit.serving.server import Ports
    from vlakit.serving.service import Service
    from vlakit.serving.subjects import Facts, Subject

T = TypeVar("T")
log = logging.getLogger(__name__)
PACKAGES = {"starlette", "uvicorn", "websockets", "msgpack", "zmq", "prometheus_client", "grpc"}
LOCAL = {"127.0.0.1", "localhost", "::1"}


def main(overrides: Sequence[str]) -> None:
    """Serve until a signal; exits with 1 where questions were left without an answer."""
    words, suite_words = split_words(overrides)
    cfg = verb_config("serve", words)
    check_request(cfg)
    try:
        from vlakit.serving.server import serve

        ports = ports_of(cfg).bind()
    except (ModuleNotFoundError, UnknownName) as error:
        missing = getattr(error if isinstance(error, ModuleNotFoundError) else error.__cause__, "name", None)
        if missing not in PACKAGES:
            raise
        raise PartMissing(f"{missing} is not installed", do="pip install 'vlakit[serve]'") from error
    try:
        service = service_of(cfg, elsewhere(lambda: subject_of(cfg, suite_words)))
        dialects = dialects_of(cfg, service, list(ports.ports))
    except BaseException:
        ports.close()
        raise
    ready = lambda found: print(_ready(service, str(cfg["host"]), found), flush=True)  # noqa: E731
    if not asyncio.run(serve(service, dialects, ports, drain_s=cfg["drain_s"], ready=ready)):
        sys.exit(1)


def elsewhere(work: Callable[[], T]) -> T:
    """What `work` returns or raises, done in a thread that ends with it.

    A thread that has computed keeps its OpenMP workers. Where they and those of the thread that answers are more than
    the cores, libgomp lets them sleep instead of wait, and an action takes twice as long.
    """
    with ThreadPool(1) as pool:
        return pool.apply(work)


def check_request(cfg: Mapping[str, Any]) -> None:
    """Raise ConfigError for values that do not go together, before weights are read; each alone: cli.key_groups."""
    if (cfg["ckpt"] is None) == (cfg["policy"] is None):
        raise ConfigError("one of ckpt and policy is served", where="command line", do="ckpt=CKPT, or policy=expert")
    check_device(cfg["device"])
    check_weights(cfg)
    if cfg["policy"] is not None:
        needed = {"expert": "suite", "recorded": "recording"}[cfg["policy"]]
        if cfg[needed] is None:
            raise ConfigError(f"policy={cfg['policy']} needs {needed}", where="command line", do=f"add {needed}=...")
    if cfg["queue"] and cfg["ensemble"] is not None:
        raise ConfigError("queue and ensemble are both given", where="command line", do="give one of them")
    if cfg["host"] not in LOCAL and cfg["token"] is None:
        log.warning("host=%s without a token: whoever reaches this port moves your robot", cfg["host"])


def ports_of(cfg: Mapping[str, Any]) -> Ports:
    """Dialects and their ports. Raises UnknownName, ConfigError."""
    from vlakit.serving.server import DIALECTS, Ports

    wanted = cfg["dialect"]
    names = list(wanted) if isinstance(wanted, Mapping | list) else [wanted]
    if len(set(names)) != max(len(names), 1):
        raise ConfigError(f"dialect={names}", where="command line", do="name one, or each once")
    if cfg["port"] is not None and (isinstance(wanted, Mapping) or len(names) > 1):
        raise ConfigError(
            f"port={cfg['port']} beside dialect={wanted}",
            where="command line",
            do="dialect={openvla: 8000, gr00t: 5555}",
        )
    usual = {str(name): int(cast(Any, DIALECTS.get(str(name))).port) for name in names}
    given: Mapping[str, Any] = wanted if isinstance(wanted, Mapping) else {}
    chosen = {name: given.get(name, usual[name] if cfg["port"] is None else cfg["port"]) for name in usual}
    for name, port in chosen.items():
        if not isinstance(port, int) or not 0 <= port < 2**16:
            raise ConfigError(f"port {port!r} of {name}", where="command line", do="give a number from 0 to 65535")
    twice = [port for port in chosen.values() if port and list(chosen.values()).count(port) > 1]
    if twice:
        raise ConfigError(f"port {twice[0]} is given twice", where="command line", do="one port a dialect")
    return Ports(str(cfg["host"]), chosen)


def subject_of(cfg: Mapping[str, Any], suite_words: Sequence[str] = ()) -> Subject:
    """Who answers. Raises what loading a checkpoint, a suite or records raises."""
    from vlakit.serving.subjects import ExpertSubject, RecordedSubject, trained_subject

    if cfg["policy"] == "expert":
        from vlakit.evaluation.building import build_suite
        from vlakit.evaluation.starts import shared_states

        suite = build_suite(suite_settings(cfg["suite"], suite_words))
        return ExpertSubject(suite, shared_states(suite, cfg["episodes"], []))
    if cfg["policy"] == "recorded":
        from vlakit.evaluation.records import read_episodes

        return RecordedSubject(read_episodes(cfg["recording"]), f"recorded {Path(cfg['recording']).name}")
    policy = load_policy(cfg)
    return trained_subject(policy, str(cfg["ckpt"]), rows=cfg["rows"], dataset=cfg["dataset"], pad_to=cfg["pad_to"])


def service_of(cfg: Mapping[str, Any], subject: Subject) -> Service:
    """The service of a configuration."""
    from vlakit.serving.batching import Limits
    from vlakit.serving.service import Guard, Service
    from vlakit.serving.sessions import Memory

    chunk = subject.facts.shape[0]
    if cfg["queue"] > chunk:
        raise ConfigError(f"queue={cfg['queue']} of chunks of {chunk}", where="command line", do=f"at most {chunk}")
    window = subject.facts.window
    if window > 1 and chunk > 1 and not cfg["queue"] and cfg["ensemble"] is None:
        log.warning(
            "the policy sees %d frames in a row: a client that carries out several actions of a chunk must send every"
            " frame since its last answer; with queue=%d it asks, and shows one, each step",
            *(window, chunk),
        )
    rows = min(cfg["batch_rows"], cfg["rows"] or cfg["batch_rows"])
    limits = Limits(cfg["rows"] or rows, cfg["wait_ms"], cfg["waiting"], cfg["timeout_s"])
    guard = Guard(cfg["max_bytes"], cfg["rate"], cfg["token"], cfg["max_clients"])
    return Service(subject, Memory(queue=cfg["queue"], ensemble=cfg["ensemble"]), limits, guard, cfg["rows"])


def dialects_of(cfg: Mapping[str, Any], service: Service, names: Sequence[str]) -> dict[str, Any]:
    """The dialects on a service. Raises ConfigError for a camera that the policy does not have."""
    from vlakit.serving.server import DIALECTS

    built: dict[str, Any] = {}
    facts = service.facts
    for name in names:
        kind = cast(Any, DIALECTS.get(name))
        if facts.dataset is None and len(facts.datasets) > 1 and not kind.says_dataset:
            known = ", ".join(facts.datasets)
            what = f"no client of {name} says whose statistics apply, and the checkpoint has several"
            raise ConfigError(what, where="dataset", do=f"add dataset=NAME, one of {known}")
        if name == "openvla" and not service.memory.stateless:
            log.warning("openvla: clients at one address are one client, unless each says its own X-Client-Id")
        built[name] = kind(service, cameras_of(cfg["cameras"], name, kind.cameras, service.facts))
        if name == "gr00t":
            built[name].generation = cfg["generation"]
    return built


def cameras_of(given: Mapping[str, Any] | None, dialect: str, usual: Mapping[str, str], facts: Facts) -> dict[str, str]:
    """Camera of the policy -> key of the dialect: as given, else as the dialect's own client says it, else its name.

    The policy's first camera is the client's main one, whatever it is called. Raises ConfigError, UnknownName.
    """
    from vlakit.serving.server import DIALECTS

    mapping: Mapping[str, Any] = given or {}
    if any(isinstance(value, Mapping) for value in mapping.values()):
        for name in mapping:
            DIALECTS.get(name)
        mapping = mapping.get(dialect) or {}
    empty = [name for name, key in mapping.items() if not isinstance(key, str | int)]
    if empty:
        what = f"{empty[0]!r} has the key {mapping[empty[0]]!r}"
        raise ConfigError(what, where="cameras", do="give a key of the dialect, or leave it out")
    unknown = [name for name in mapping if name not in facts.cameras]
    if unknown:
        what = f"the policy has no camera {unknown[0]!r}"
        raise ConfigError(what, where=f"cameras of dialect {dialect}", do=nearest(str(unknown[0]), facts.cameras))
    numbered = usual.get("primary", "").isdigit()
    named = {name: str(place) if numbered else name for place, name in enumerate(facts.cameras)}
    named |= {name: usual["primary"] for name in facts.cameras[:1] if usual}
    keys = {name: str(mapping.get(name, usual.get(name, named[name]))) for name in facts.cameras}
    twice = [key for key in keys.values() if list(keys.values()).count(key) > 1]
    if twice:
        what = f"two cameras of the policy look at {twice[0]!r}"
        raise ConfigError(what, where=f"cameras of dialect {dialect}", do=f"cameras={{{', '.join(keys)}: ...}}")
    return keys


def _ready(service: Service, host: str, found: Mapping[str, int]) -> str:
    where = ", ".join(f"{name} {host}:{port}" for name, port in found.items())
    return f"serving {service.facts.name}: {where}"
