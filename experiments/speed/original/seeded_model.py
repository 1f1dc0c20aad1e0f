"""vlakit's model of the shape, with the fixture's seeded weights, ready to run."""

from __future__ import annotations

from pathlib import Path

import torch
from shape import seeded

from vlakit.checkpoints.hf_config import read_description
from vlakit.checkpoints.weights import load_weights, released_name
from vlakit.data.shards.statistics import statistics_from_json
from vlakit.models.cpu import use_onednn
from vlakit.models.network import build_empty
from vlakit.models.openvla.vla import OpenVLA
from vlakit.processing.tokens import TokenProcessor


def loaded(fixture: Path, folder: Path, dtype: torch.dtype = torch.float32) -> tuple[OpenVLA, TokenProcessor]:
    """The model that `folder`'s config.json describes, and its processor."""
    description = read_description(folder)
    statistics = statistics_from_json(description.statistics or {}, where=str(folder))
    processor = TokenProcessor(description.processor, statistics)
    model = build_empty(description.model.description, processor)
    if not isinstance(model, OpenVLA):
        raise SystemExit(f"{folder}: no OpenVLA model")
    shapes = [(released_name(name), tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    load_weights(model, seeded(fixture, shapes), where=str(folder), dtype=dtype)
    use_onednn(model)
    return model, processor
