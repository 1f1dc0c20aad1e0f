"""Answers replayed as CUDA graphs: the same as those that are not, and refused where there can be none."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlakit.errors import PartMissing
from vlakit.models.network import Graphed, capability
from vlakit.models.openvla import graphs
from vlakit.models.openvla.decoding import Choice, Decoded, generate
from vlakit.models.openvla.graphs import Graphs, Read, Recorded
from vlakit.models.openvla.vla import OpenVLA
from vlakit.models.quantize import quantize
from vlakit.processing.tokens import TokenProcessor

N_TOKENS = 7
LENGTHS = [(9,), (9, 9), (9, 5, 12), (5, 6)]
Prompts = list[list[int]]


def observed(processor: TokenProcessor, lengths: Sequence[int], seed: int = 0, pad_to: int = 0) -> tuple[Read, Prompts]:
    """Rows of noise whose prompts have these lengths."""
    made = torch.Generator().manual_seed(seed)
    blank = processor.blank(len(lengths), prompt_tokens=max(lengths), answer_tokens=0)
    pixels = {name: torch.randn(frames.shape, generator=made) for name, frames in blank.pixels.items()}
    prompts: Prompts = [[1, *torch.randint(40, 60, (n - 1,), generator=made).tolist()] for n in lengths]
    return Read.of(replace(blank, pixels=pixels), prompts, pad_to), prompts


def alone(model: OpenVLA, read: Read, prompts: Prompts, pad_to: int = 0) -> Decoded:
    return generate(model, model.context(read.inputs), prompts, N_TOKENS, Choice(model.allowed), pad_to=pad_to)


def same(one: Decoded | None, other: Decoded) -> bool:
    return one is not None and torch.equal(one.ids, other.ids) and torch.equal(one.log_probs, other.log_probs)


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    """What was recorded, where a graph is played by what it would do: read its own inputs, write its own answer."""
    made: list[Read] = []

    def record(model: OpenVLA, read: Read, n_tokens: int, choice: Choice, *_: Any) -> Recorded:
        held, rows = read.held(), len(read.prompts)
        written = Decoded(torch.zeros(rows, n_tokens, dtype=torch.int64), torch.zeros(rows, n_tokens))

        def replay() -> None:
            fresh = held.answered(model, n_tokens, choice)
            written.ids.copy_(fresh.ids)
            written.log_probs.copy_(fresh.log_probs)

        made.append(held)
        graph: Any = SimpleNamespace(replay=replay, pool=lambda: (0, 0))
        return Recorded(graph, held, written)

    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "a stream")
    return made


@torch.inference_mode()
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("pad_to", [0, 15])
def test_what_is_recorded_answers_as_generate_to_the_bit(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, lengths: Sequence[int], pad_to: int
) -> None:
    read, prompts = observed(tiny_processor, lengths, pad_to=pad_to)
    recorded = read.answered(tiny_vla, N_TOKENS, Choice(tiny_vla.allowed))
    assert same(recorded, alone(tiny_vla, read, prompts, pad_to))


@torch.inference_mode()
def test_each_answer_is_that_of_its_own_pictures_and_prompts(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, recordings: list[Read]
) -> None:
    choice, replayed = Choice(tiny_vla.allowed), Graphs()
    for seed, lengths in enumerate([(9, 5), (9, 5), (5, 9), (8, 9), (9, 7)]):
        read, prompts = observed(tiny_processor, lengths, seed)
        answer = replayed(tiny_vla, read, N_TOKENS, choice)
        assert answer is None if seed == 0 else same(answer, alone(tiny_vla, read, prompts))
    assert len(recordings) == 1


@torch.inference_mode()
def test_a_graph_is_of_one_shape_and_the_oldest_are_let_go(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, recordings: list[Read]
) -> None:
    replayed, most = Graphs(), graphs.KEPT + 2
    reads = [observed(tiny_processor, (4 + n,))[0] for n in range(most)]
    for read in [one for one in reads for _ in range(2)]:
        replayed(tiny_vla, read, N_TOKENS, Choice(tiny_vla.allowed))
    assert len(recordings) == most
    assert len(replayed.recorded) == graphs.KEPT
    for choice, n_more in ((Choice(tiny_vla.allowed), 0), (Choice(), 1)):  # which ids are open is of the shape
        for _ in range(2):
            replayed(tiny_vla, reads[-1], N_TOKENS, choice)
        assert len(recordings) == most + n_more


@torch.inference_mode()
def test_without_memory_for_a_graph_answers_come_kernel_by_kernel(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, recordings: list[Read], monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed, choice = Graphs(), Choice(tiny_vla.allowed)
    known, other = (observed(tiny_processor, (n,))[0] for n in (5, 6))
    for _ in range(2):
        replayed(tiny_vla, known, N_TOKENS, choice)

    def full(*_: Any) -> Recorded:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(graphs, "record", full)
    assert [replayed(tiny_vla, other, N_TOKENS, choice) for _ in range(3)] == [None] * 3
    assert replayed(tiny_vla, known, N_TOKENS, choice) is not None


def test_a_network_that_is_moved_or_copied_has_no_graphs_of_the_old_weights(tiny_vla: OpenVLA) -> None:
    tiny_vla.graphs = Graphs()
    tiny_vla.graphs.recorded[graphs.Shape((), False, 7, None)] = None
    twin: Any = copy.deepcopy(tiny_vla)
    assert not twin.graphs.recorded
    tiny_vla.to(torch.float64).to(torch.float32)
    assert tiny_vla.graphs is None


def test_a_cpu_records_nothing(tiny_vla: OpenVLA) -> None:
    with pytest.raises(PartMissing, match="no CUDA graphs on cpu"):
        tiny_vla.record()
    assert tiny_vla.graphs is None


def test_a_network_without_graphs_says_so() -> None:
    with pytest.raises(PartMissing, match="cuda_graphs needs Graphed"):
        capability(torch.nn.Linear(2, 2), Graphed, purpose="cuda_graphs")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
@pytest.mark.parametrize("lengths", LENGTHS)
def test_on_a_gpu_a_replay_gives_the_same_bits(
    tiny_vla: OpenVLA, tiny_processor: TokenProcessor, lengths: Sequence[int]
) -> None:
    model, replayed = tiny_vla.cuda(), Graphs()
    for seed in range(4):
        read, prompts = observed(tiny_processor, lengths, seed)
        read = Read.of(read.inputs.to("cuda"), prompts, 0)
        answer = replayed(model, read, N_TOKENS, Choice(model.allowed))
        assert answer is None if seed == 0 else same(answer, alone(model, read, prompts))
    quantize(model, "int8")
    with pytest.raises(PartMissing, match="outliers"):
        model.record()
