"""The plan as a person and a program read it; Table 1's figures are the fixture's."""

from __future__ import annotations

import pytest
import torch
import yaml
from commands import complaint, report, run
from places import FIXTURES

from vlakit.cli.plan import PAPER_BATCH, ROWS, original, table
from vlakit.configs import conf_root

TINY = ("model=tiny", "batch_size=4")
TABLE1 = yaml.safe_load((FIXTURES / "paper_tables.yaml").read_text())["table1"]["rows"]


def test_json_says_what_fits_and_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "plan", *TINY, "strategy=sandwich", "steps=10", "tflops=1", "mfu=0.5", "frames=7")
    memory, time = found["memory_bytes"], found["time"]
    assert found["strategy"] == "sandwich"
    assert memory["total"] == memory["peak"] + memory["overhead"]
    assert found["fits"] == {"24": True, "40": True, "80": True, "141": True}
    assert list(found["largest_batch"].values()) == sorted(found["largest_batch"].values())
    assert time["seconds_per_step"] == pytest.approx(4 * time["tflop_per_sample"] / 0.5)
    assert time["hours"] == pytest.approx(10 * time["seconds_per_step"] / 3600)
    assert found["disk_bytes"] == {"checkpoint": memory["weights"] + memory["optimizer"], "shards": 7 * 20000}


def test_text_adds_up_to_the_peak_and_names_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", [*TINY, "frames=1000"]) == 0
    out = capsys.readouterr().out
    assert all(f"{card:>4} GB card: batch 4 fits" in out for card in (24, 40, 80, 141))
    assert "AdamW's moments" in out
    assert "of shards" in out
    assert "measured" not in out


def test_all_strategies_are_the_rows_of_table_1(capsys: pytest.CaptureFixture[str]) -> None:
    rows = report(capsys, "plan", *TINY, "strategy=all")["rows"]
    assert [row["strategy"] for row in rows] == list(ROWS) == list(TABLE1)
    needed = {row["strategy"]: row["memory_bytes"]["optimizer"] for row in rows}
    assert needed["full"] > needed["frozen_vision"] > needed["last_layer"]
    assert needed["lora_r64"] == 2 * needed["lora_r32"]
    _, _, *lines = table(rows).splitlines()
    assert [line.split()[0] for line in lines] == list(ROWS)
    assert len({len(line) for line in lines}) == 1


def test_more_gpus_checkpointing_and_fewer_logits_each_need_less(capsys: pytest.CaptureFixture[str]) -> None:
    def needs(*words: str) -> int:
        return report(capsys, "plan", *TINY, "strategy=full", "batch_size=64", *words)["memory_bytes"]["peak"]

    plain = needs()
    assert needs("sharding=2") < plain
    assert needs("checkpointing=true") < plain < needs("logits=all")
    assert plain < needs("precision=bf16-mixed") < needs("precision=32-true")


def test_the_figures_compared_with_are_table_1s() -> None:
    ours = yaml.safe_load((conf_root() / "plan.yaml").read_text())["table1"]
    theirs = {name: {"gb": row["vram_gb"], "gpus": row.get("vram_sharded_over", 1)} for name, row in TABLE1.items()}
    assert ours == theirs


def test_errors_against_table_1_are_those_of_the_printed_figures(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("model=tiny", "against=table1", "~table1.full", "~table1.sandwich", "~table1.lora_r64")
    rows = report(capsys, "plan", *words)["rows"]
    assert [(row["strategy"], row["paper_gb"]) for row in rows] == [
        (name, TABLE1[name]["vram_gb"]) for name in ("last_layer", "frozen_vision", "lora_r32")
    ]
    for row in rows:
        assert row["memory_bytes"]["batch_size"] * row["gpus"] == PAPER_BATCH
        assert row["error_percent"] < -90  # the tiny model is not the paper's


def test_the_original_trains_adapters_on_bf16_and_the_rest_sharded_with_checkpointing() -> None:
    lora, kept = original("lora_r32", 1)
    full, again = original("full", 2)
    assert lora.numerics.stored == torch.bfloat16
    assert not lora.fsdp
    assert (full.numerics.stored, full.gpus, full.fsdp) == (torch.float32, 2, True)
    assert again.checkpointing > kept.checkpointing
    assert again.all_logits
    assert kept.all_logits


@pytest.mark.slow
def test_table_1_is_met_within_a_quarter_from_below(capsys: pytest.CaptureFixture[str]) -> None:
    rows = report(capsys, "plan", "against=table1")["rows"]
    errors = {row["strategy"]: row["error_percent"] for row in rows}
    assert all(-25 < error < 0 for error in errors.values()), errors
    assert max(abs(errors[name]) for name in ("full", "frozen_vision")) < 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_measuring_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs a CUDA GPU" in complaint(capsys, "plan", *TINY, "measure=true")


@pytest.mark.gpu
def test_a_real_step_takes_what_was_planned(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "plan", "model=tiny", "batch_size=512", "measure=true")
    assert found["measured_bytes"]["allocated"] == pytest.approx(found["memory_bytes"]["peak"], rel=0.15)


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("precision=bf16", "bf16-true"),
        ("logits=most", "labelled"),
        ("against=table2", "table1"),
        ("batch_size=0", "from 1 to"),
        ("sharding=0", "from 1 to"),
        ("format=yaml", "json"),
    ],
)
def test_a_value_that_cannot_be_planned_is_refused(word: str, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "plan", *TINY, word)
    assert word.partition("=")[2] in said
    assert remedy in said
