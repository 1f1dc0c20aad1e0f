"""The module table: counts as the paper has them, as text and as one JSON object."""

from typing import Any

import pytest
from commands import report, run


def test_json_counts_the_papers_lora_to_the_last_digit(
    golden: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(capsys, "explain", "model=siglip_7b", "strategy=lora", "strategy.rank=32")
    assert found["trainable"] == golden["parameters"]["siglip_so400m"]["lora_r32"]
    assert found["reachable"] == 96_426_368
    assert found["total"] == golden["parameters"]["siglip_so400m"]["full"] + found["trainable"]
    assert sum(module["trainable"] for module in found["modules"]) == found["trainable"]
    assert found["optimizer_bytes"] == 2 * 4 * found["reachable"]  # AdamW makes its two moments on the first gradient


def test_text_says_what_never_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", ["model=tiny", "strategy=sandwich"]) == 0
    out = capsys.readouterr().out
    assert "of these never get a gradient" in out
    header, *rest = out.splitlines()
    assert header.split()[:2] == ["module", "parameters"]
    assert len({len(line) for line in rest if line.startswith(("vision", "projector", "language"))}) == 1


def test_a_strategy_that_trains_nothing_silent_says_nothing_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", ["model=tiny", "strategy=last_layer"]) == 0
    assert "never get a gradient" not in capsys.readouterr().out


def test_layers_that_no_adapter_reaches_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", ["model=tiny", "strategy=lora", "strategy.targets=[q_proj,v_proj,proj]"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("no adapter on stem.0 (2), stem.3 (2), stem.6 (2), qkv (")
    assert run("explain", ["model=tiny", "strategy=lora"]) == 0
    assert "no adapter" not in capsys.readouterr().out
