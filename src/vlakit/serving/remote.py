"""`RemoteActor`: anybody's policy server in our rollouts, a connection a slot; what it answers gets our verdicts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from vlakit.errors import ConfigError, VlakitError
from vlakit.evaluation.actors import Answers, Turn
from vlakit.evaluation.suite import InitialState
from vlakit.evaluation.worlds import Failure, Worlds
from vlakit.registry import Registry
from vlakit.schema import Observation
from vlakit.serving.clients.base import ENDING, Client, RemoteFailed

CLIENTS: Registry[Client] = Registry(
    "dialect of policy=remote",
    {
        "openvla": "vlakit.serving.clients.openvla:OpenVLAClient",
        "openpi": "vlakit.serving.clients.openpi:OpenPiClient",
        "gr00t": "vlakit.serving.clients.gr00t:Gr00tClient",
        "vla_eval": "vlakit.serving.clients.vla_eval:VlaEvalClient",
        "starvla": "vlakit.serving.clients.starvla:StarVlaClient",
    },
)
ODD = (TypeError, ValueError, AttributeError, LookupError)  # what reading somebody else's answer raises
log = logging.getLogger(__name__)


class RemoteActor:
    """See evaluation.actors.Actor. All slots that need an action ask at once, each on its own connection.

    A server of vlakit with rows=N gives each its row, in the order of the slots: so with N slots the batches, and with
    them the episodes, are those of the same policy in this process. A connection that breaks costs its episode alone;
    a server that is gone ends the rollouts: no policy has failed, and the records so far are worth going on with.
    """

    def __init__(self, connect: Callable[[], Client], name: str) -> None:
        """Raises RemoteFailed where nobody answers."""
        self.connect, self.name = connect, name
        self._clients: dict[int, Client] = {0: connect()}
        info = self._clients[0].info
        self.window = int(info.get("window", 1))  # of vlakit's and GR00T's servers; others are sent one frame
        self._whole = bool(info.get("whole"))  # whether every question holds all of them
        self._asked: dict[int, int] = {}  # slot -> steps of its episode that were over when it last asked
        self.facts: dict[str, Any] = {
            "policy": name,
            **{k: info[k] for k in ("sha256", "pad_to", "server") if k in info},
        }

    def begin(self, states: Mapping[int, InitialState]) -> None:
        """See Actor; a slot's connection is opened before its first episode, in the order of the slots."""
        for slot in sorted(states):
            self._asked.pop(slot, None)
            try:
                if slot not in self._clients:
                    self._clients[slot] = self.connect()
                self._clients[slot].begin()
            except (VlakitError, *ODD) as error:  # the episode will say so when it asks
                log.warning("slot %d: %s", slot, error)
                self._drop(slot)

    def act(self, turns: Mapping[int, Turn], worlds: Worlds) -> Answers:
        """See Actor. Raises RemoteFailed where the server is gone."""
        with ThreadPoolExecutor(max(len(turns), 1)) as pool:
            asked = {slot: pool.submit(self._ask, slot, turn) for slot, turn in turns.items()}
        answers = {slot: answer.result() for slot, answer in asked.items()}
        for slot in sorted(turns.keys() - self._clients.keys()):
            self._connect_again(slot)
        return answers

    def close(self) -> None:
        """Hang up."""
        for slot in list(self._clients):
            self._drop(slot)

    def _ask(self, slot: int, turn: Turn) -> Any:
        try:
            if slot not in self._clients:  # it broke; whatever the server remembered of the episode is lost with it
                raise RemoteFailed("the connection is lost", where=self.name)
            return self._clients[slot].ask(self._since(slot, turn))
        except ConfigError:  # of every episode
            raise
        except VlakitError as error:
            self._drop(slot)
            if ENDING in error.what:
                raise self._gone(error) from error
            return Failure(f"the server: {error.what}")
        except ODD as error:
            self._drop(slot)
            return Failure(f"the server's answer is not understood: {type(error).__name__}: {error}"[:300])

    def _since(self, slot: int, turn: Turn) -> Observation:
        """With the frames since the slot last asked, which the server puts behind those it has seen; or with all."""
        if self._whole:
            return turn.observation
        new = turn.step - self._asked.get(slot, turn.step - 1)
        self._asked[slot] = turn.step
        first = -min(max(new, 1), self.window)
        seen = turn.observation
        images = {camera: frames[first:] for camera, frames in seen.images.items()}
        return replace(seen, images=images, proprio=None if seen.proprio is None else seen.proprio[first:])

    def _connect_again(self, slot: int) -> None:
        try:
            self._clients[slot] = self.connect()
        except RemoteFailed as error:
            raise self._gone(error) from error

    def _gone(self, error: VlakitError) -> RemoteFailed:
        do = "start it again and give the same command: the episodes that were finished are kept"
        return RemoteFailed(f"the server is gone: {error.what}"[:300], where=self.name, do=do)

    def _drop(self, slot: int) -> None:
        client = self._clients.pop(slot, None)
        if client is not None:
            client.close()


def remote_actor(
    url: str, dialect: str, *, cameras: Mapping[str, str] | None = None, token: str | None = None, timeout_s: float = 60
) -> RemoteActor:
    """The server at `url` as an actor. Raises UnknownName, ConfigError, RemoteFailed."""
    kind: Any = CLIENTS.get(dialect)
    if not isinstance(url, str) or "://" not in url:
        raise ConfigError(f"url={url}", where="command line", do="write url=ws://HOST:PORT, http:// or tcp://")
    chosen = {name: str(key) for name, key in (cameras or {"primary": kind.cameras["primary"]}).items()}

    def connect() -> Client:
        try:
            return kind(url, chosen, token, timeout_s)
        except ODD as error:
            what = f"no {dialect} server: what it says of itself is not understood ({type(error).__name__}: {error})"
            raise RemoteFailed(what[:300], where=url, do="name its dialect=") from error

    return RemoteActor(connect, f"{dialect} {url}")
