"""Questions about pictures are samples beside those of shards: read from LLaVA's JSON, mixed by weight, never lost."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from question_folders import TALK, question_folder
from tiny_runs import data_of

from vlakit.data.questions import QUESTIONS_FILE, QuestionFolder, held_out
from vlakit.data.shards.reader import SampleRef
from vlakit.data.stream.datamodule import VLADataModule
from vlakit.data.stream.mixture import MixtureEntry, MixtureOrder, with_share
from vlakit.errors import CheckpointMismatch, ConfigError, InvalidData, UnknownName
from vlakit.processing.processor import Processor
from vlakit.processing.prompts import question_builder
from vlakit.processing.settings import ProcessorSettings
from vlakit.processing.tokens import TokenProcessor
from vlakit.schema import NO_LOSS, Batch

ROBOT = (MixtureEntry("left", ((0, 300), (1, 100)), weight=0.5), MixtureEntry("right", ((0, 900),)))
ASKED = (MixtureEntry("short", ((0, 50),)), MixtureEntry("long", ((0, 150),)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return question_folder(tmp_path_factory.mktemp("questions") / "asked")


@pytest.fixture
def mixed(bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path) -> VLADataModule:
    options: dict[str, Any] = {"questions": {"asked": str(folder)}, "mix": {"robot": 0.5}, "val_fraction": 0.2}
    return data_of(bridge_shards, tiny_processor, batch_size=16, **options)


def order(share: float, **ranks: int) -> MixtureOrder:
    return MixtureOrder(with_share(ROBOT, ASKED, share), seed=3, batch_size=40, **ranks)


def drawn(order: MixtureOrder, n_batches: int) -> Iterator[str]:
    return (ref.dataset for batch in islice(order, n_batches) for ref in batch)


def within(n: int, total: int, share: float) -> bool:
    """Three standard deviations of a share."""
    return abs(n - share * total) <= 3 * (total * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("share", [0.66, 0.5, 0.33])
def test_the_sources_have_the_shares_that_were_asked_for(share: float) -> None:
    names = list(drawn(order(share), 250))
    assert within(sum(name in ("left", "right") for name in names), 10_000, share)
    assert within(names.count("left"), 10_000, share * 200 / 1100)  # within the robots as they were
    assert within(names.count("long"), 10_000, (1 - share) * 0.75)


def test_two_ranks_and_a_resumed_run_draw_what_one_run_draws() -> None:
    whole = list(islice(order(0.5), 60))
    halves = [list(islice(order(0.5, rank=rank, world_size=2), 60)) for rank in (0, 1)]
    assert [[*a, *b] for a, b in zip(*halves, strict=True)] == whole
    assert within(sum(ref.dataset in ("left", "right") for batch in halves[0] for ref in batch), 1200, 0.5)
    begun, resumed = order(0.5), order(0.5)
    list(islice(begun, 25))
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert list(islice(resumed, 35)) == whole[25:]


def test_robot_data_alone_are_drawn_as_without_questions() -> None:
    alone = MixtureOrder(ROBOT, seed=3, batch_size=40)
    assert order(1.0).fingerprint == alone.fingerprint
    assert list(islice(order(1.0), 20)) == list(islice(alone, 20))


def test_a_share_of_nothing_draws_questions_alone() -> None:
    assert set(drawn(order(0.0), 20)) == {"short", "long"}


def test_the_robots_frames_come_in_the_order_they_have_without_questions() -> None:
    """So that arms of a comparison see the same demonstrations first, whatever is mixed in."""
    names = [
        [ref[:3] for batch in islice(order(share), 40) for ref in batch if ref.dataset == "right"] for share in (1, 0.5)
    ]
    n = min(map(len, names))
    assert names[0][:n] == names[1][:n]


def test_every_pair_of_a_conversation_is_a_question_of_its_own(folder: Path) -> None:
    asked = QuestionFolder.open(folder, "asked", val_fraction=0.25)
    assert len(list(asked.texts())) == 36
    assert {(one.question, one.answer) for one in asked.texts()} == set(TALK)
    assert asked.shards("val") == [(1, 9)]
    assert not {one.image for one in asked.questions[0]} & {one.image for one in asked.questions[1]}


def test_held_out_pictures_are_the_same_in_every_order() -> None:
    names = [f"{i}.jpg" for i in range(50)]
    assert held_out(names, 0.1) == held_out(names[::-1], 0.1)
    assert [len(held_out(names, fraction)) for fraction in (0, 0.001, 0.1, 1)] == [0, 1, 5, 49]


def test_a_sample_shows_one_picture_to_every_camera_and_has_no_action(folder: Path) -> None:
    asked = QuestionFolder.open(folder, "asked")
    sample = asked.read_sample(SampleRef("asked", 0, 1, 77), window=2, chunk=3, cameras=["primary", "wrist"])
    assert (sample.instruction, sample.answer, sample.position) == (*TALK[1], 77)
    assert {len(frames) for frames in sample.images.values()} == {2}
    assert not sample.chunk_mask.any()
    assert sample.window_mask.tolist() == [False, True]


def test_a_picture_of_another_format_is_read_too(tmp_path: Path) -> None:
    place = question_folder(tmp_path / "asked", n=3)
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(place / "0.jpg", "PNG")  # grey
    asked = QuestionFolder.open(place, "asked", val_fraction=0)
    assert asked.read_sample(SampleRef("asked", 0, 0)).images["primary"][0][:2] == b"\xff\xd8"


def test_a_question_becomes_its_prompt_and_its_answer_with_eos(mixed: VLADataModule) -> None:
    reading = mixed.processor
    assert isinstance(reading, TokenProcessor)
    example = reading.encode(mixed.questions["asked"].read_sample(SampleRef("asked", 0, 0)))
    question, answer = TALK[0]
    assert example.prompt is not None
    assert example.answer is not None
    assert reading.text.decode(example.prompt[1:].tolist()) == reading.text.decode(
        reading.text.encode(f"In: {question}\nOut:")
    )
    assert example.answer.tolist() == [*reading.text.encode(answer), reading.text.eos_id]
    assert example.normalized.shape == (1, 7)
    assert not example.chunk_mask.any()


def test_a_policy_of_two_cameras_and_proprioception_takes_questions_too(
    tiny_processor: TokenProcessor, folder: Path
) -> None:
    settings = replace(tiny_processor.settings, cameras=("primary", "wrist"), proprio=5, chunk=4)
    processor = TokenProcessor(settings, tiny_processor.statistics)
    asked = QuestionFolder.open(folder, "asked")
    sample = asked.read_sample(SampleRef("asked", 0, 0), chunk=4, cameras=settings.cameras)
    batch = processor.collate([processor.encode(sample)])
    assert torch.equal(batch.pixels["primary"], batch.pixels["wrist"])
    assert batch.proprio is not None
    assert batch.proprio.shape == (1, 1, 5)
    assert batch.actions.shape == (1, 4, 7)


def batches(data: VLADataModule, n: int) -> list[Batch]:
    return list(islice(data.train_dataloader(), n))


def test_a_mixed_batch_weighs_every_row_alike_and_a_plain_one_every_id(mixed: VLADataModule) -> None:
    (batch,) = batches(mixed, 1)
    assert batch.text is not None
    assert batch.text.weights is not None
    assert {"asked", "bridge_orig"} == set(batch.datasets)
    assert torch.allclose(batch.text.weights.sum(dim=1), torch.full((16,), 1 / 16))
    assert not batch.text.weights[batch.text.labels == NO_LOSS].any()
    assert batch.chunk_mask.any(dim=1).tolist() == [name == "bridge_orig" for name in batch.datasets]


@pytest.mark.parametrize("mix", [{"robot": 1.0}, {"robot": 0.5, "loss": "token"}])
def test_no_weights_where_none_were_asked_for(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path, mix: dict[str, Any]
) -> None:
    data = data_of(bridge_shards, tiny_processor, questions={"asked": str(folder)}, mix=mix)
    (batch,) = batches(data, 1)
    assert batch.text is not None
    assert batch.text.weights is None


def test_pictures_of_questions_are_never_augmented(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path
) -> None:
    plain, shifted = (
        data_of(bridge_shards, tiny_processor, questions={"asked": str(folder)}, mix={"robot": 0.5}, augment=augment)
        for augment in (False, "shift")
    )
    one, other = (
        data.processor.encode(data.questions["asked"].read_sample(SampleRef("asked", 0, 0, 9)))
        for data in (plain, shifted)
    )
    assert torch.equal(one.pixels["primary"], other.pixels["primary"])


def test_held_out_questions_follow_the_held_out_frames_whatever_is_mixed(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path
) -> None:
    options: dict[str, Any] = {"questions": {"asked": str(folder)}, "val_fraction": 0.2}
    names = [
        name for batch in data_of(bridge_shards, tiny_processor, **options).val_dataloader() for name in batch.datasets
    ]
    assert names[-6:] == ["asked"] * 6  # two pictures of twelve
    assert set(names[:-6]) == {"bridge_orig"}


def test_a_mixed_stream_goes_on_where_it_was_and_refuses_other_questions(
    mixed: VLADataModule, bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    next(iter(mixed.train_dataloader()))
    other = data_of(
        bridge_shards,
        tiny_processor,
        batch_size=16,
        questions={"asked": str(question_folder(tmp_path / "asked", n=5))},
        mix={"robot": 0.5},
    )
    assert mixed._sampler is not None
    other.load_state_dict(mixed._sampler.state_after(1))
    with pytest.raises(CheckpointMismatch):
        other.train_dataloader()


def items(image: str, *turns: tuple[str, str]) -> str:
    """The JSON of one item."""
    talk = [{"from": who, "value": words} for who, words in turns]
    return json.dumps([{"image": image, "conversations": talk}])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no JSON"),
        ("{}", "not a list"),
        ("[]", "0 picture"),
        ("[3]", "item 0"),
        ('["junk"]', "item 0"),
        ("[[]]", "item 0"),
        ('[{"image": "0.jpg", "conversations": []}]', "item 0"),
        ('[{"image": "0.jpg"}]', "conversations"),
        (items("0.jpg", ("human", "a?")), "item 0"),
        (items("0.jpg", ("gpt", "a"), ("human", "b")), "human"),
        (items("0.jpg", ("human", "<image>"), ("gpt", "b")), "empty"),
        (items("0.jpg", ("human", "a?")), "a question without an answer"),
        ('["words"]', "an item is no object but 'words'"),
        ('[{"image": "0.jpg"}]', "'conversations' is missing"),
        (items("../0.jpg", ("human", "a?"), ("gpt", "b")), "outside"),
        (items("/0.jpg", ("human", "a?"), ("gpt", "b")), "outside"),
        (items("gone.jpg", ("human", "a"), ("gpt", "b")), "gone.jpg"),
        (items("0.jpg", ("human", "a"), ("gpt", "b")), "1 picture"),
    ],
)
def test_a_file_that_holds_no_questions_says_where(tmp_path: Path, content: str, words: str) -> None:
    place = question_folder(tmp_path / "asked", n=2)
    (place / QUESTIONS_FILE).write_text(content)
    with pytest.raises(InvalidData) as caught:
        QuestionFolder.open(place, "asked")
    assert words in str(caught.value)
    assert str(place) in caught.value.where


def test_no_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        QuestionFolder.open(tmp_path, "asked")
    assert "vlakit demonstrate" in caught.value.do


def test_items_without_a_picture_are_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = question_folder(tmp_path / "asked", n=2)
    whole = json.loads((place / QUESTIONS_FILE).read_text())
    (place / QUESTIONS_FILE).write_text(json.dumps([*whole, {"conversations": whole[0]["conversations"]}]))
    with caplog.at_level(logging.WARNING):
        assert len(list(QuestionFolder.open(place, "asked").texts())) == 6
    assert "1 of 3 items" in caplog.text


def test_a_picture_that_is_none_says_so(tmp_path: Path) -> None:
    place = question_folder(tmp_path / "asked", n=2)
    (place / "0.jpg").write_bytes(b"no picture")
    (place / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(InvalidData, match="no picture"):
        QuestionFolder.open(place, "asked").read_sample(SampleRef("asked", 0, 0))


def test_an_answer_of_unknown_words_is_refused_before_training(
    bridge_shards: Path, tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    place = question_folder(tmp_path / "asked", talk=[("what is it?", "un château 東京")])
    with pytest.raises(InvalidData) as caught:
        data_of(bridge_shards, tiny_processor, questions={"asked": str(place)})
    assert "東京" in caught.value.what
    assert QUESTIONS_FILE in caught.value.where


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(bridge_shards: Path, tiny_processor: TokenProcessor, share: float) -> None:
    with pytest.raises(ConfigError, match="robot"):
        data_of(bridge_shards, tiny_processor, mix={"robot": share})


def test_a_mixture_without_questions_and_a_name_taken_twice_are_refused(
    bridge_shards: Path, tiny_processor: TokenProcessor, folder: Path
) -> None:
    with pytest.raises(ConfigError, match="no questions"):
        data_of(bridge_shards, tiny_processor, mix={"robot": 0.5})
    with pytest.raises(ConfigError, match="one name"):
        data_of(bridge_shards, tiny_processor, questions={"bridge_orig": str(folder)})


def test_a_policy_without_words_takes_no_questions(bridge_shards: Path, folder: Path) -> None:
    processor: Any = Processor(ProcessorSettings(image_size=64, channel_statistics=("half",)))
    with pytest.raises(CheckpointMismatch, match=r"data\.questions"):
        data_of(bridge_shards, processor, questions={"asked": str(folder)})


def test_questions_have_a_prompt_where_instructions_have_one_of_vlakits() -> None:
    assert question_builder("openvla")("Is it open?") == "In: Is it open?\nOut:"
    assert question_builder("openvla_v01")("Is it open?").endswith("USER: Is it open? ASSISTANT:")
    with pytest.raises(UnknownName, match="questions"):
        question_builder("my.prompts:mine")
