"""A configuration from a file names no code but ours."""

from typing import Any

import pytest

from vlakit.cli.targets import known_targets, own_targets
from vlakit.errors import ConfigError

FULL = "vlakit.strategies.full.Full"


def test_classes_of_conf_pass_and_those_that_moved_are_found_by_name() -> None:
    tree = {"strategy": {"_target_": FULL, "lr": 1e-3}, "logger": {"_target_": None}, "steps": [1, {"a": "b"}]}
    assert own_targets(tree, "x", known_targets()) == tree
    old = {"data": {"_target_": "vlakit.data.datamodule.VLADataModule"}}  # as version 0.1.0 has it
    assert own_targets(old, "x", known_targets())["data"]["_target_"].endswith(".VLADataModule")
    assert own_targets(old, "x", known_targets()) != old


@pytest.mark.parametrize(
    "planted",
    [
        {"_target_": "torch.load", "f": "evil.pt"},
        {"callbacks": [{"_target_": "joblib.load"}]},
        {"strategy": {"_target_": FULL, "model": {"_target_": "numpy.load"}}},
        {"strategy": {"_target_": "elsewhere.Full"}},
        {"strategy": {"_target_": "vlakit.files.write_atomically"}},
        {"strategy": "${oc.create:'{_target_: torch.load, f: evil.pt}'}"},
    ],
    ids=str,
)
def test_any_other_code_is_refused(planted: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        own_targets(planted, "passport.json", known_targets())
    assert caught.value.where == "passport.json"
    assert "_target_" in caught.value.what or "unresolved" in caught.value.what


def test_a_module_that_the_user_trusts_passes() -> None:
    tree = {"strategy": {"_target_": "cnn_policy.Cnn"}}
    assert own_targets(tree, "x", {}, ("cnn_policy",)) == tree
    with pytest.raises(ConfigError, match="trusted"):
        own_targets({"strategy": {"_target_": "cnn_policy_2.Cnn"}}, "x", {}, ("cnn_policy",))
