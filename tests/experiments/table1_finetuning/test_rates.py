"""The rates that conf/ uses are those that the committed trainings on selection starts say."""

import importlib.util

import pytest
import yaml
from places import ROOT

HERE = ROOT / "experiments" / "table1_finetuning"
KEYS = {name: name for name in ("full", "sandwich", "frozen_vision", "last_layer", "lora_r64")} | {"lora_r32": "lora"}


@pytest.mark.parametrize("strategy", KEYS)
def test_the_best_rate_by_success_is_the_one_in_use_and_not_at_the_edge(strategy: str) -> None:
    spec = importlib.util.spec_from_file_location("rates", HERE / "rates.py")
    assert spec is not None
    assert spec.loader is not None
    rates = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rates)
    choice = rates.choices(HERE / "learning_rates.csv")[strategy, "16" if "lora" in strategy else ""]
    in_use = yaml.safe_load((ROOT / "conf/scale/miniature.yaml").read_text(encoding="utf-8"))["lr"][KEYS[strategy]]
    assert choice.rate == in_use
    assert not choice.at_edge
    assert len(choice.success) >= 4
    assert set(choice.trainings.values()) == {2}
