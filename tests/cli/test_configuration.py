"""Composing a configuration: also where a Hydra application runs already, as in a job that evaluates after training."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from vlakit.cli.configuration import compose_config
from vlakit.configs import conf_root
from vlakit.errors import ConfigError


def test_composing_inside_a_running_hydra_application_leaves_that_one_running() -> None:
    with initialize_config_dir(str(conf_root().absolute()), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        assert compose_config("evaluate", ["episodes=3"]).episodes == 3
        assert GlobalHydra.instance().hydra is outer
        assert compose("evaluate").episodes == 200


def test_adding_a_key_that_is_there_says_to_leave_the_plus_out() -> None:
    with pytest.raises(ConfigError, match="is there already") as error:
        compose_config("train", ["+evaluate.videos=1"])
    assert "evaluate.videos=VALUE" in str(error.value)
