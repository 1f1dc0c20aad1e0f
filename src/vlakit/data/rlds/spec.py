"""What an RLDS folder to be written holds: a small nested spec, written down or taken from one episode.

It becomes the features.json that TFDS would write, so that every reader of such folders knows the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from vlakit.data.rlds.images import decode_image
from vlakit.errors import InvalidData

MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8"}
_CORE = "tensorflow_datasets.core.features."
_RAW_IMAGE_NDIM = 3


@dataclass(frozen=True, slots=True)
class Feature:
    """One value of a step: dtype ("string" for text) and shape; image "png" or "jpeg": bytes already encoded so."""

    dtype: str
    shape: tuple[int, ...] = ()
    image: str | None = None


Spec: TypeAlias = "Mapping[str, Spec | Feature]"  # {"steps": {...}, "episode_metadata": {...}}


def infer_spec(episode: Mapping[str, Any]) -> Spec:
    """The spec of an episode's first step and its metadata; text and encoded images are told apart by their bytes.

    Raises InvalidData for an episode without steps and for a value that has no natural feature.
    """
    steps = episode["steps"]
    if not steps:
        raise InvalidData("no feature can be inferred from an episode without steps", do="give features=...")
    metadata = episode.get("episode_metadata")
    return {"steps": _infer("steps", steps[0])} | ({"episode_metadata": _infer("", metadata)} if metadata else {})


def _infer(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _infer(f"{key}/{name}", child) for name, child in value.items()}
    if isinstance(value, str):
        return Feature("string")
    if isinstance(value, bytes):
        kind = next((kind for kind, magic in MAGIC.items() if value.startswith(magic)), None)
        return Feature("uint8", decode_image(value).shape, kind) if kind else Feature("string")
    if isinstance(value, float) and not isinstance(value, np.generic):
        return Feature("float32")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InvalidData(f"{key} is a {type(value).__name__}", do="give arrays, numbers, bools, bytes or str")
    if array.dtype == np.uint8 and array.ndim == _RAW_IMAGE_NDIM:
        raise InvalidData(f"{key} is an image of raw pixels", do="encode it as PNG or JPEG first")
    return Feature(array.dtype.name, array.shape)


def features_tree(spec: Spec) -> dict[str, Any]:
    """The contents of features.json."""
    below = {name: _node(child) for name, child in spec.items()}
    below["steps"] = {
        "pythonClassName": f"{_CORE}dataset_feature.Dataset",
        "sequence": {"feature": below["steps"], "length": "-1"},
    }
    return {"pythonClassName": f"{_CORE}features_dict.FeaturesDict", "featuresDict": {"features": below}}


def _node(spec: Any) -> dict[str, Any]:
    if isinstance(spec, Mapping):
        below = {name: _node(child) for name, child in spec.items()}
        return {"pythonClassName": f"{_CORE}features_dict.FeaturesDict", "featuresDict": {"features": below}}
    shape = {"dimensions": [str(size) for size in spec.shape]} if spec.shape else {}
    if spec.image:
        content = {"shape": shape, "dtype": spec.dtype, "encodingFormat": spec.image}
        return {"pythonClassName": f"{_CORE}image_feature.Image", "image": content}
    if spec.dtype == "string" and not spec.shape:
        return {"pythonClassName": f"{_CORE}text_feature.Text", "text": {}}
    kind = "tensor_feature.Tensor" if spec.shape else "scalar.Scalar"
    return {"pythonClassName": _CORE + kind, "tensor": {"shape": shape, "dtype": spec.dtype, "encoding": "none"}}
