"""What a policy expects of its surroundings, and eight frames with the answers it gave when it was saved.

Most failures between training and a robot are silent differences of preparation; replaying the frames makes them loud.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from vlakit.errors import CheckpointMismatch, InvalidData, PartMissing, StatisticsMissing, VlakitError
from vlakit.models.openvla.decoding import Choice, generate
from vlakit.models.openvla.vla import OpenVLA
from vlakit.processing.images import decode_jpeg
from vlakit.processing.processor import VLAProcessor
from vlakit.schema import DatasetStatistics, Observation, Sample

log = logging.getLogger(__name__)
CONTRACT_FILE = "contract.json"
N_FRAMES = 8
_LIBRARIES = ("vlakit", "torch", "timm", "transformers", "peft", "numpy", "simplejpeg")
_CONVENTION = "end-effector deltas a control step: metres, radians; gripper 0 closed to 1 open"


class ContractBroken(CheckpointMismatch):
    """A policy that no longer answers its golden frames as it did when it was saved."""


def with_new_answers(contract: Mapping[str, Any], model: OpenVLA, processor: VLAProcessor) -> dict[str, Any]:
    """The same frames with what `model` answers now: for a copy of the policy in another precision."""
    observations, _ = golden_frames(contract)
    pairs = zip(contract["frames"], _answers(model, processor, observations), strict=True)
    frames = [{**frame, **_recorded(ids, frame["dataset"], processor)} for frame, ids in pairs]
    return {**contract, "versions": _versions(), "frames": frames}


def make_contract(model: OpenVLA, processor: VLAProcessor, samples: Sequence[Sample]) -> dict[str, Any]:
    """Plain JSON: the fields that decide what the policy sees, and `samples` with the action ids it answers now."""
    camera = processor.names.camera
    observations = [_observation(sample.images[camera][-1], sample.instruction, sample.dataset) for sample in samples]
    frames = [
        {
            "image": base64.b64encode(sample.images[camera][-1]).decode(),
            "instruction": sample.instruction,
            "dataset": sample.dataset,
            **_recorded(ids, sample.dataset, processor),
        }
        for sample, ids in zip(samples, _answers(model, processor, observations), strict=True)
    ]
    return {**fields_of(processor), "versions": _versions(), "frames": frames}


def fields_of(processor: VLAProcessor) -> dict[str, Any]:
    """What must not differ between the policy's training and its use."""
    names = processor.names.to_dict()
    names.pop("tokenizer_path")
    return {
        **names,
        "cameras": [names.pop("camera")],
        "rotation_degrees": 0,
        "datasets": sorted(processor.statistics),
        "statistics": {name: _digest(one) for name, one in sorted(processor.statistics.items())},
        "action_convention": _CONVENTION,
        "control_hz": None,  # not known: RLDS does not say
    }


def check_contract(
    contract: Mapping[str, Any], model: OpenVLA, processor: VLAProcessor, *, where: str, strict: bool = True
) -> None:
    """Replay the golden frames; an answer off by more than one bin raises ContractBroken, or warns if not strict.

    The error names the fields and library versions that differ from those at saving.
    """
    try:
        observations, expected = golden_frames(contract)
        broken = _broken(expected, _replayed(model, processor, observations, strict))
        broken = broken or _other_actions(contract["frames"], processor)
        changed = differences(contract, processor) if broken else ""
    except (KeyError, TypeError, ValueError, AttributeError, InvalidData) as error:
        reason = error.what if isinstance(error, InvalidData) else error
        raise CheckpointMismatch(
            f"the contract lacks or garbles {reason}", where=where, do="restore contract.json, or remove it"
        ) from error
    if broken is None:
        return
    error = ContractBroken(
        broken,
        where=f"{where}; {changed}",
        do="use the fields and versions of the contract; strict=false goes on with a warning",
    )
    if strict:
        raise error
    log.warning("%s", error)


def golden_frames(contract: Mapping[str, Any]) -> tuple[list[Observation], list[list[int]]]:
    """The observations that a contract stores, and the action ids it expects for each."""
    frames = contract["frames"]
    observations = [_observation(base64.b64decode(f["image"]), f["instruction"], f["dataset"]) for f in frames]
    return observations, [[int(number) for number in frame["ids"]] for frame in frames]


def _replayed(
    model: OpenVLA, processor: VLAProcessor, observations: Sequence[Observation], strict: bool
) -> list[list[int]] | VlakitError:
    """The answers now, or the reason why there are none."""
    towers = model.vision_backbone
    made, needed = (processor.names.image_size, len(processor.scale)), (towers.image_size, len(towers.towers))
    try:
        if observations and made != needed:
            raise CheckpointMismatch(f"(image size, towers) is {made}, the model needs {needed}")
        return _answers(model, processor, observations)
    except (CheckpointMismatch, StatisticsMissing, InvalidData) as error:
        return error
    except PartMissing as error:
        if strict:
            raise
        return error


def _broken(expected: list[list[int]], answered: list[list[int]] | VlakitError) -> str | None:
    """How the answers differ by more than a bin, in words; None when they do not."""
    if isinstance(answered, VlakitError):
        return f"the policy cannot answer its golden frames: {answered.what}"
    pairs = list(zip(answered, expected, strict=True))
    if any(len(a) != len(b) for a, b in pairs):
        return f"the policy answers with {len(answered[0])} numbers, not {len(expected[0])}"
    off = max((abs(i - j) for a, b in pairs for i, j in zip(a, b, strict=True)), default=0)
    wrong = sum(a != b for a, b in pairs)
    if off <= 1:
        return None
    return f"the policy answers {wrong} of {len(pairs)} golden frames otherwise, by up to {off} bins"


def _recorded(ids: list[int], dataset: str, processor: VLAProcessor) -> dict[str, Any]:
    """An answer as tokens and as the action (H, A) in physical units that they stand for."""
    return {"ids": ids, "actions": processor.decode_actions(np.array([ids]), dataset)[0].tolist()}


def _other_actions(frames: Sequence[Mapping[str, Any]], processor: VLAProcessor) -> str | None:
    """How the recorded tokens would act otherwise now, which is what changed statistics do; None if they would not."""
    first, last = processor.actions.begin, processor.actions.padding_id - 1
    for frame in (frame for frame in frames if "actions" in frame):
        neighbours = np.clip(np.array([frame["ids"]]) + np.array([[1], [-1]]), first, last)  # larger id, smaller action
        below, above = processor.decode_actions(neighbours, frame["dataset"]).astype(np.float64)
        recorded = np.array(frame["actions"])
        if not ((below - 1e-6 <= recorded) & (recorded <= above + 1e-6)).all():
            return f"the same tokens now mean other actions of {frame['dataset']}: other statistics or bins"
    return None


def differences(contract: Mapping[str, Any], processor: VLAProcessor) -> str:
    """The fields and versions that differ now, each with both values; says so when none does."""
    now = {**fields_of(processor), **{f"version of {k}": v for k, v in _versions().items()}}
    then = {**contract, **{f"version of {k}": v for k, v in contract["versions"].items()}}
    changed = [f"{name} was {then.get(name)}, is {value}" for name, value in now.items() if then.get(name) != value]
    return "; ".join(changed) or "no field differs, so the weights or the device's arithmetic do"


def _observation(jpeg: bytes, instruction: str, dataset: str) -> Observation:
    return Observation(decode_jpeg(jpeg, where="golden frame"), instruction, dataset)


@torch.inference_mode()
def _answers(model: OpenVLA, processor: VLAProcessor, observations: Sequence[Observation]) -> list[list[int]]:
    """Greedy action ids, in evaluation mode; the model's mode is put back."""
    if not observations:
        return []
    was_training = model.training
    model.eval()
    try:
        parameter = next(model.vision_backbone.parameters())
        pixels, prompts = processor.encode_observations(observations)
        size = len(processor.statistics_of(observations[0].dataset).q01) * processor.names.chunk
        allowed = (processor.actions.begin, processor.actions.padding_id)
        return generate(
            model, pixels.to(parameter.device, parameter.dtype), prompts, size, Choice(allowed)
        ).ids.tolist()
    finally:
        model.train(was_training)


def _digest(statistics: DatasetStatistics) -> str:
    """Short hash of what turns tokens into actions."""
    numbers = [statistics.q01, statistics.q99, statistics.mask.astype(np.float64)]
    return sha256(np.stack(numbers).tobytes()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES}
