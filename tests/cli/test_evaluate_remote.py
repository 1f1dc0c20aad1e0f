"""`vlakit evaluate policy=remote`: a server is a subject like any other, and each has records of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_suite import FakeSuite
from servers import running, service_of

from vlakit.cli.configuration import verb_config
from vlakit.cli.evaluate import _default_out, closing_if_open, subject_named
from vlakit.errors import ConfigError, UnknownName
from vlakit.serving.remote import RemoteActor

WORDS = ["suite=tabletop", "ckpt=null", "policy=remote"]


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_server_is_the_subject_and_is_hung_up_on_in_the_end() -> None:
    with running(service_of) as ports:
        url = f"ws://127.0.0.1:{ports['openpi']}"
        actor = subject_named(verb_config("evaluate", [*WORDS, f"url={url}"]))
        assert isinstance(actor, RemoteActor)
        with closing_if_open(actor):
            assert actor.name == f"openpi {url}"
        assert actor._clients == {}


def test_a_server_without_an_address_and_an_unknown_dialect_are_said() -> None:
    with pytest.raises(ConfigError, match="no url"):
        subject_named(verb_config("evaluate", WORDS))
    with pytest.raises(UnknownName, match="openpy"):
        subject_named(verb_config("evaluate", [*WORDS, "url=ws://x:1", "dialect=openpy"]))


def test_each_server_has_a_folder_of_its_own_and_controls_keep_theirs() -> None:
    def out(*words: str) -> Path:
        return _default_out(verb_config("evaluate", ["suite=x", "ckpt=null", "root=runs", *words]), FakeSuite())

    first, second = out("policy=remote", "url=ws://a:1"), out("policy=remote", "url=ws://a:2")
    assert first != second
    assert first.parent == out("policy=expert").parent
    assert out("policy=expert").name == "expert"
