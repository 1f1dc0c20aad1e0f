from __future__ import annotations

import json
import random
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from parity.check_rlds import compare
from places import FIXTURES
from rlds_writer import dataset, example, floats, integers, record, strings, tensor, write_folder

from vlakit.data.rlds.features import parse_features
from vlakit.data.rlds.reader import open_rlds, parse_episode, read_record, read_records, record_headers
from vlakit.errors import CorruptRecord, FeatureMissing, UnknownName, VlakitError

ODD = FIXTURES / "odd_rlds" / "1.0.0"
BRIDGE = Path(str(files("vlakit"))) / "assets" / "bridge_dataset"
TREE = dataset({"action": tensor("float32", 2), "text": {"text": {}}, "empty": tensor("float32", 0)})
EPISODE = {"steps/action": floats(1, 2, 3, 4), "steps/text": strings(b"a", b"b"), "steps/empty": floats()}


@pytest.mark.parametrize(("folder", "name"), [(ODD, "odd_rlds"), (BRIDGE, "bridge_dataset")])
def test_every_value_is_what_tfds_returns(folder, name):
    expected = json.loads((FIXTURES / "rlds" / f"{name}.json").read_bytes())
    found, n_values = compare(open_rlds(folder), expected)
    assert found == []
    assert n_values == {"odd_rlds": 4271, "bridge_dataset": 6850}[name]


def test_the_comparison_notices_one_wrong_value():
    expected = json.loads((FIXTURES / "rlds" / "odd_rlds.json").read_bytes())
    expected["train"][2]["steps"]["reward"][36] = "0" * 16
    expected["val"].pop()
    found, _ = compare(open_rlds(ODD), expected)
    assert found == ["train/2/steps/reward: differs in step 36", "val/2: not expected"]


def test_values_come_in_their_declared_dtype_with_the_steps_first():
    folder = open_rlds(BRIDGE)
    _, payload = next(read_records(folder.splits["train"][0]))
    episode = parse_episode(payload, folder.features)
    assert episode.n_steps == 10
    assert (episode.steps["action"].shape, episode.steps["action"].dtype) == ((10, 7), np.float32)
    assert episode.steps["is_first"].tolist() == [True] + [False] * 9
    assert [image[:2] for image in episode.steps["observation/image_0"]] == [b"\xff\xd8"] * 10
    assert isinstance(episode.metadata["episode_metadata/file_path"], bytes)


def test_values_outlive_their_record_and_can_be_written_to():
    episode = parse_episode(example(EPISODE), parse_features(TREE))
    assert episode.steps["action"].flags.owndata or episode.steps["action"].base.flags.owndata
    episode.steps["action"][0, 0] = 9
    assert episode.steps["action"].tolist() == [[9, 2], [3, 4]]


def test_only_the_chosen_steps_are_decoded():
    features = parse_features(TREE)
    damaged = example({**EPISODE, "steps/text": integers(1)})
    episode = parse_episode(damaged, features, only=["empty"])
    assert (list(episode.steps), episode.steps["empty"].shape, episode.n_steps) == (["empty"], (2, 0), 2)
    assert parse_episode(damaged, features, only=[]).n_steps == 2
    with pytest.raises(UnknownName, match="did you mean action"):
        parse_episode(damaged, features, only=["actoin"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps/action": floats(1, 2, 3)}, "3 values"),
        ({"steps/action": floats(1, 2)}, "2 steps, other features 1|1 steps, other features 2"),
        ({"steps/action": integers(1, 2, 3, 4)}, "int64 list where float32"),
        ({"steps/empty": floats(1)}, "1 values"),
    ],
    ids=["not a multiple", "too few", "wrong list", "too many"],
)
def test_a_wrong_number_or_kind_of_values_raises(changed, message):
    with pytest.raises(CorruptRecord, match=message) as caught:
        parse_episode(example({**EPISODE, **changed}), parse_features(TREE), where="file, record 3, byte 40")
    assert caught.value.where.startswith("file, record 3, byte 40")
    assert caught.value.do


def test_a_feature_that_the_record_lacks_is_named():
    episode = {key: value for key, value in EPISODE.items() if key != "steps/text"}
    with pytest.raises(FeatureMissing, match="'steps/text'") as caught:
        parse_episode(example(episode), parse_features(TREE), where="a.tfrecord, record 3, byte 40")
    assert "a.tfrecord, record 3" in caught.value.where


def test_garbage_in_an_intact_record_raises():
    with pytest.raises(CorruptRecord, match=r"no tf\.train\.Example|wire type|number 0"):
        parse_episode(b"this is no example", parse_features(TREE), where="here")


@pytest.mark.parametrize("folder", [ODD, BRIDGE], ids=["odd", "bridge"])
def test_damaged_records_raise_nothing_but_our_errors(folder):
    opened = open_rlds(folder)
    _, payload = min(read_records(opened.splits["val"][0]), key=lambda item: len(item[1]) or 1 << 40)
    dice = random.Random(7)
    for turn in range(400):
        damaged = bytearray(payload[: dice.randrange(len(payload))] if turn % 2 else payload)
        for _ in range(dice.randrange(1, 6) if damaged else 0):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            parse_episode(bytes(damaged), opened.features, where="fuzz")
        except VlakitError:
            continue


def test_a_record_of_several_files_is_named_and_found_again(tmp_path):
    payloads = [example(EPISODE) for _ in range(3)]
    names = [f"demo-train.tfrecord-{part:05}-of-00002" for part in range(2)]
    write_folder(tmp_path / "demo" / "1.0.0", TREE, {names[1]: payloads[:1], names[0]: payloads})
    folder = open_rlds(tmp_path / "demo")
    assert folder.name == "demo"
    assert [file.name for file in folder.splits["train"]] == names
    headers = list(record_headers(folder.splits["train"][0]))
    assert [header.index for header in headers] == [0, 1, 2]
    assert headers == [header for header, _ in read_records(folder.splits["train"][0])]
    assert [read_record(header) for header in headers] == payloads
    assert headers[1].offset == len(record(payloads[0]))
