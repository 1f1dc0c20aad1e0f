"""Answers replayed as CUDA graphs: the same as those that are not, and refused where there can be none."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlakit.errors import PartMissing
from vlakit.models.network import Graphed, capability
from vlakit.models.openvla import graphs
from vlakit.models.openvla.decoding import Choice, Decoded, generate
from vlakit.models.openvla.graphs import Graphs, Recorded
from vlakit.models.openvla.vla import OpenVLA
from vlakit.models.quantize import quantize
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import Inputs

N_TOKENS = 7


def observed(processor: TokenProcessor, seed: int, prompt_tokens: int = 9) -> Inputs:
    batch = processor.blank(1, prompt_tokens=prompt_tokens, answer_tokens=0)
    made = torch.Generator().manual_seed(seed)
    pixels = {name: torch.randn(frames.shape, generator=made) for name, frames in batch.pixels.items()}
    assert batch.text is not None
    ids = torch.randint(40, 60, (1, prompt_tokens), generator=made)
    text = replace(batch.text, ids=ids, mask=torch.ones_like(ids), labels=torch.full_like(ids, -100))
    return replace(batch, pixels=pixels, text=text)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Inputs]:
    """What was recorded, where a graph is played by what it would do: read its own inputs, write its own answer."""
    made: list[Inputs] = []

    def record(model: OpenVLA, inputs: Inputs, n_tokens: int, choice: Choice) -> Recorded:
        text: Any = inputs.text
        held = replace(
            inputs,
            pixels={name: frames.clone() for name, frames in inputs.pixels.items()},
            text=replace(text, ids=text.ids.clone()),
        )
        written = Decoded(torch.zeros(1, n_tokens, dtype=torch.int64), torch.zeros(1, n_tokens))

        def replay() -> None:
            ids: Any = held.text
            fresh = generate(model, model.context(held), ids.ids.tolist(), n_tokens, choice)
            written.ids.copy_(fresh.ids)
            written.log_probs.copy_(fresh.log_probs)

        made.append(held)
        graph: Any = SimpleNamespace(replay=replay)
        return Recorded(graph, held, written)

    monkeypatch.setattr(graphs, "_record", record)
    return made


@torch.inference_mode()
def test_each_answer_is_that_of_its_own_picture_and_prompt(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, recordings: list[Inputs]
) -> None:
    choice, replayed = Choice(tiny_vla.allowed), Graphs()
    shown = [observed(tiny_processor, seed) for seed in range(4)]
    answers = [replayed(tiny_vla, one, N_TOKENS, choice) for one in shown]
    for one, answer in zip(shown, answers, strict=True):
        text: Any = one.text
        alone = generate(tiny_vla, tiny_vla.context(one), text.ids.tolist(), N_TOKENS, choice)
        assert torch.equal(answer.ids, alone.ids)
        assert torch.equal(answer.log_probs, alone.log_probs)
    assert len(recordings) == 1


@torch.inference_mode()
def test_a_graph_is_of_one_length_and_the_oldest_are_let_go(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, recordings: list[Inputs]
) -> None:
    choice, replayed = Choice(tiny_vla.allowed), Graphs()
    for length in range(5, 5 + graphs.KEPT + 2):
        replayed(tiny_vla, observed(tiny_processor, 0, length), N_TOKENS, choice)
    assert len(recordings) == graphs.KEPT + 2
    assert len(replayed.recorded) == graphs.KEPT
    replayed(tiny_vla, observed(tiny_processor, 1, 5 + graphs.KEPT + 1), N_TOKENS, choice)
    assert len(recordings) == graphs.KEPT + 2
    replayed(tiny_vla, observed(tiny_processor, 1, 5 + graphs.KEPT + 1), N_TOKENS, Choice())
    assert len(recordings) == graphs.KEPT + 3  # other ids are allowed


def test_a_cpu_records_nothing(tiny_vla: OpenVLA) -> None:
    with pytest.raises(PartMissing, match="no CUDA graphs on cpu"):
        tiny_vla.record()
    assert tiny_vla.graphs is None


def test_a_network_without_graphs_says_so() -> None:
    with pytest.raises(PartMissing, match="cuda_graphs needs Graphed"):
        capability(torch.nn.Linear(2, 2), Graphed, purpose="cuda_graphs")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_on_a_gpu_a_replay_gives_the_same_bits(tiny_vla: OpenVLA, tiny_processor: TokenProcessor) -> None:
    model = tiny_vla.cuda()
    shown = [observed(tiny_processor, seed).to("cuda") for seed in range(4)]
    eager = [model.sample(one, temperature=0.0) for one in shown]
    model.record()
    for one, before in zip(shown, eager, strict=True):
        replayed = model.sample(one, temperature=0.0)
        assert torch.equal(replayed.ids, before.ids)
        assert torch.equal(replayed.log_probs, before.log_probs)
    quantize(model, "int8")
    with pytest.raises(PartMissing, match="outliers"):
        model.record()
