"""Questions that are wrong by construction: none gets an action, and the server answers the right one as before."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from places import ROOT
from servers import FACTS, Mean, running, service_of

from vlakit.serving.arrays import array_from
from vlakit.serving.questions import Refused
from vlakit.serving.subjects import PolicySubject

N = 250  # experiments/reliability/serving asks 10,000 of each
DIALECTS = ("openvla", "openpi", "starvla", "vla_eval", "gr00t/n1.6", "gr00t/n1.7")

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "experiments" / "reliability" / "serving")
    import mutants

    return mutants


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_malformed_question_gets_an_action_or_ends_the_server(dialect: str, mutants: Any) -> None:
    name = dialect.partition("/")[0]
    policy = Mean()
    with running(lambda: service_of(PolicySubject(policy, FACTS)), [name], mutants.CAMERAS.get(name)) as ports:
        visitor = mutants.Visitor(dialect, ports[name])
        assert visitor.ask(mutants.question(dialect))[0]
        asked = len(policy.batches)
        acted = [what for what, data in islice(mutants.mutants(dialect), N) if visitor.ask(data)[0]]
        assert acted == []
        assert len(policy.batches) == asked  # none of them came as far as the policy
        assert visitor.ask(mutants.question(dialect))[0]
        visitor.close()


def test_every_dialect_of_the_recordings_is_made_malformed(mutants: Any) -> None:
    assert set(mutants.RECORDED) == set(DIALECTS)
    for dialect in DIALECTS:
        kinds = {what for what, _ in islice(mutants.mutants(dialect), N)}
        assert len(kinds) >= 10


@pytest.mark.parametrize("name", ["|u1", "uint8", "<f4", "float32", "bool"])
def test_an_array_is_of_numbers_by_either_of_numpys_names(name: str) -> None:
    wanted = np.arange(6).astype(name).reshape(2, 3)
    np.testing.assert_array_equal(array_from(wanted.tobytes(), name, [2, 3]), wanted)


@pytest.mark.parametrize("name", ["|O", "object", "O8", "str", "U1", "float8", "datetime64", "void8", "uint8, uint8"])
def test_an_array_of_anything_else_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        array_from(bytes(6), name, [2, 3])
