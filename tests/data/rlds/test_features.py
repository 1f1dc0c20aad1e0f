from __future__ import annotations

import pytest
from rlds_writer import dataset, sequence, tensor

from vlakit.data.rlds.features import Leaf, parse_features, read_features
from vlakit.errors import InvalidData


def only_step(feature: dict) -> Leaf:
    (leaf,) = parse_features(dataset({"x": feature})).steps.values()
    return leaf


def test_a_tree_becomes_paths_with_the_steps_apart():
    inner = {"featuresDict": {"features": {"b": tensor("int8"), "c": sequence(tensor("bool"))}}}
    features = parse_features(dataset({"a": inner}, {"meta": inner, "steps_taken": tensor("int32")}))
    assert list(features.steps) == ["a/b", "a/c"]
    assert list(features.metadata) == ["meta/b", "meta/c", "steps_taken"]
    assert features.steps["a/c"] == Leaf("steps/a/c", "number", "bool", (), (None, None))
    assert features.metadata["meta/b"].levels == ()


KINDS = {
    "scalar": (tensor("float64"), Leaf("steps/x", "number", "float64", (), (None,))),
    "text": ({"text": {}}, Leaf("steps/x", "string", "string", (), (None,))),
    "label": ({"classLabel": {"numClasses": "5"}}, Leaf("steps/x", "number", "int64", (), (None,))),
    "box": ({"boundingBox": {"bboxFormat": "yxyx"}}, Leaf("steps/x", "number", "float32", (4,), (None,))),
    "image": ({"image": {"dtype": "uint8"}}, Leaf("steps/x", "image", "uint8", (None, None, 3), (None,))),
    "zlib": (tensor("int16", -1, -1, encoding="zlib"),
             Leaf("steps/x", "encoded", "int16", (None, None), (None,), "zlib")),
    "fixed length": (sequence(tensor("int8"), 3), Leaf("steps/x", "number", "int8", (), (None, 3))),
    "video": ({"video": {"dtype": "uint8", "shape": {"dimensions": ["-1", "8", "8", "3"]}}},
              Leaf("steps/x", "image", "uint8", (8, 8, 3), (None, None))),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_feature_is_known(kind):
    feature, leaf = KINDS[kind]
    assert only_step(feature) == leaf


def test_a_translation_is_one_text_a_language():
    features = parse_features(dataset({"x": {"translation": {"languages": ["en", "de"]}}}))
    assert list(features.steps) == ["x/en", "x/de"]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"pythonClassName": "a.b.Odd", "jsonFeature": {"json": "{}"}}, "'steps/x' is of the kind Odd"),
        (tensor("quint8"), "dtype 'quint8'"),
        (tensor("complex64"), "dtype 'complex64'"),
        (tensor("int8", encoding="lzma"), "encoding 'lzma'"),
        ({"tensor": {}}, "not the features.json that TFDS writes"),
        ({"image": {"shape": {"dimensions": ["big"]}}}, "not the features.json that TFDS writes"),
    ],
)
def test_what_is_not_read_is_named(feature, message):
    with pytest.raises(InvalidData, match=message) as caught:
        parse_features(dataset({"x": feature}), where="features.json")
    assert caught.value.where == "features.json"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"featuresDict": {}}', '{"featuresDict": 3}', "\x00"])
def test_a_file_that_is_no_features_json_raises(tmp_path, text):
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(InvalidData):
        read_features(tmp_path / "features.json")
