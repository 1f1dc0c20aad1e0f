"""What a policy expects of its surroundings, and eight frames with the answers it gave when it was saved.

Most failures between training and a robot are silent differences of preparation; replaying the frames makes them loud.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from typing import Any, TypeGuard

import numpy as np
import torch

from vlakit import __version__
from vlakit.errors import CheckpointMismatch, InvalidData, PartMissing, StatisticsMissing, VlakitError
from vlakit.models.cpu import use_onednn
from vlakit.models.network import Likelihood, Network
from vlakit.processing.images import decode_jpeg
from vlakit.processing.normalizer import bounds_of, mask_of, with_constants
from vlakit.processing.processor import Processor
from vlakit.schema import DatasetStatistics, Float32, Observation, Sample

log = logging.getLogger(__name__)
CONTRACT_FILE = "contract.json"
N_FRAMES = 8
FAR = 0.2  # mean normalised error of a quantised policy that is none any more: the mean action's is hardly larger
FAR_IN_ONE = 0.6  # of one dimension alone, such as a gripper that is turned round
TOLERANCE = 2 / 255 + 1e-4  # one bin of 256, normalised: another machine's arithmetic may move an answer so far
_LIBRARIES = ("torch", "timm", "transformers", "peft", "numpy", "simplejpeg")
_CONVENTION = "end-effector deltas a control step: metres, radians; gripper 0 closed to 1 open"


class ContractBroken(CheckpointMismatch):
    """A policy that no longer answers its golden frames as it did when it was saved."""


def with_new_answers(contract: Mapping[str, Any], network: Network, processor: Processor) -> dict[str, Any]:
    """The same frames with what `network` answers now: for a copy of the policy in another precision."""
    use_onednn(network)  # as a policy answers
    return {**contract, "versions": _versions(), "frames": _answered(contract["frames"], network, processor)}


def make_contract(network: Network, processor: Processor, samples: Sequence[Sample]) -> dict[str, Any]:
    """Plain JSON: the fields that decide what the policy sees, and `samples` with the actions it answers now."""
    frames = [_frame(sample, processor) for sample in samples]
    return {**fields_of(processor), "versions": _versions(), "frames": _answered(frames, network, processor)}


def fields_of(processor: Processor) -> dict[str, Any]:
    """What must not differ between the policy's training and its use."""
    settings = processor.description
    settings.pop("tokenizer_path", None)
    return {
        **settings,
        "rotation_degrees": 0,
        "datasets": sorted(processor.statistics),
        "statistics": {
            name: _fingerprint(one, processor.settings.normalization)
            for name, one in sorted(processor.statistics.items())
        },
        "action_convention": _CONVENTION,
        "control_hz": None,  # not known: RLDS does not say
    }


def check_contract(
    contract: Mapping[str, Any] | None,
    network: Network,
    processor: Processor,
    *,
    where: str,
    strict: bool | None = None,
) -> None:
    """Replay the golden frames; an answer off by more than one bin raises ContractBroken, or warns if strict is False.

    The error names the fields and library versions that differ from those at saving. No golden frames are a warning,
    and refused if strict is True: released models have none.
    """
    if not _has_frames(contract, where=where, strict=strict):
        return
    with _readable(where):
        frames = contract["frames"]
        observations = [observation_of(frame, processor) for frame in frames]
        broken = _broken(frames, _replayed(network, processor, observations, strict is not False), processor)
        changed = differences(contract, processor) if broken else ""
    if broken is None:
        return
    do = "use the fields and versions of the contract; strict=false goes on with a warning"
    _report(ContractBroken(broken, where=f"{where}; {changed}", do=do), refused=strict is not False)


def check_near(
    contract: Mapping[str, Any] | None,
    network: Network,
    processor: Processor,
    *,
    where: str,
    strict: bool | None = None,
) -> dict[str, float]:
    """`agreement` of a policy that is quantised, and so answers otherwise.

    Beyond FAR it raises ContractBroken, or warns if strict is False; without golden frames as check_contract.
    """
    if not _has_frames(contract, where=where, strict=strict):
        return {}
    try:
        with _readable(where):
            near = agreement(contract, network, processor)
    except (CheckpointMismatch, StatisticsMissing) as error:
        _report(ContractBroken(error.what, where=where, do=error.do), refused=strict is not False)
        return {}
    if not (near["l1"] <= FAR and near["worst"] <= FAR_IN_ONE):
        do = "another scheme, or spare a part; strict=false goes on with a warning"
        what = f"quantised, the policy's answers to its golden frames are off by {near['l1']:.3f}, normalised"
        what += f" ({near['worst']:.3f} in the worst dimension): it is another policy"
        _report(ContractBroken(what, where=where, do=do), refused=strict is not False)
    return near


def _has_frames(contract: Mapping[str, Any] | None, *, where: str, strict: bool | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether there are golden frames; none are a warning, and refused if strict is True."""
    if contract and contract.get("frames") != []:
        return True
    _report(
        CheckpointMismatch(
            "no contract: nothing shows that the policy answers as it did when it was saved",
            where=where,
            do="try it on frames whose answers you know; strict=true refuses it",
        ),
        refused=strict is True,
    )
    return False


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Raise CheckpointMismatch for a contract that cannot be read."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, InvalidData) as error:
        reason = error.what if isinstance(error, InvalidData) else error
        raise CheckpointMismatch(
            f"the contract lacks or garbles {reason}", where=where, do="restore contract.json, or remove it"
        ) from error


def agreement(contract: Mapping[str, Any], network: Network, processor: Processor) -> dict[str, float]:
    """How near the answers to golden frames are to the recorded ones: of a policy that is meant to answer otherwise.

    frames, l1 (normalised, mean), worst (l1 of the worst dimension), and for policies that answer in ids
    token_agreement, in [0, 1].
    """
    frames = contract["frames"]
    answers = _answers(network, processor, [observation_of(frame, processor) for frame in frames])
    recorded = np.stack([_recorded_actions(frame, processor) for frame in frames]).astype(np.float32)
    before = np.stack([processor.normalized_actions(a, f["dataset"]) for a, f in zip(recorded, frames, strict=True)])
    now = [processor.physical(a[None], [f["dataset"]])[0] for a, f in zip(answers, frames, strict=True)]
    after = np.stack([processor.normalized_actions(a, f["dataset"]) for a, f in zip(now, frames, strict=True)])
    errors = np.abs(after - before)
    near = {"frames": len(frames), "l1": float(errors.mean()), "worst": float(errors.mean(axis=(0, 1)).max())}
    spelled = [processor.spelled(answer).get("ids") for answer in answers]
    if isinstance(network, Likelihood) and spelled[0] is not None and "ids" in frames[0]:
        same = np.array(spelled) == np.array([frame["ids"] for frame in frames])
        near["token_agreement"] = float(same.mean())
    return near


def _report(error: CheckpointMismatch, *, refused: bool) -> None:
    if refused:
        raise error
    log.warning("%s", error)


def observation_of(frame: Mapping[str, Any], processor: Processor) -> Observation:
    """What a golden frame shows; frames of 0.1.0 have one `image`, of the policy's only camera."""
    encoded = frame["images"] if "images" in frame else {processor.settings.cameras[0]: [frame["image"]]}
    images = {
        camera: np.stack([decode_jpeg(base64.b64decode(one), where="golden frame") for one in window])
        for camera, window in encoded.items()
    }
    proprio, mask = frame.get("proprio"), frame.get("window_mask")
    return Observation(
        images,
        frame["instruction"],
        frame["dataset"],
        None if proprio is None else np.array(proprio, np.float32),
        None if mask is None else np.array(mask, np.bool_),
    )


def differences(contract: Mapping[str, Any], processor: Processor) -> str:
    """The fields and versions that differ now, each with both values; says so when none does."""
    now = {**fields_of(processor), **{f"version of {k}": v for k, v in _versions().items()}}
    then = {**contract, **{f"version of {k}": v for k, v in contract["versions"].items()}}
    changed = [
        f"{name} was {then[name]}, is {value}" for name, value in now.items() if name in then and then[name] != value
    ]
    return "; ".join(changed) or "no field differs, so the weights or the device's arithmetic do"


def _frame(sample: Sample, processor: Processor) -> dict[str, Any]:
    """A sample as plain JSON, as far as the policy sees it."""
    return {
        "images": {
            camera: [base64.b64encode(image).decode() for image in sample.images[camera]]
            for camera in processor.settings.cameras
        },
        "instruction": sample.instruction,
        "dataset": sample.dataset,
        "proprio": sample.proprio.tolist() if sample.proprio is not None and processor.settings.proprio else None,
        "window_mask": sample.window_mask.tolist(),
    }


def _replayed(
    network: Network, processor: Processor, observations: Sequence[Observation], strict: bool
) -> Float32 | VlakitError:
    """The answers (B, H, A) now, or the reason why there are none."""
    try:
        return _answers(network, processor, observations)
    except (CheckpointMismatch, StatisticsMissing, InvalidData) as error:
        return error
    except PartMissing as error:
        if strict:
            raise
        return error


def _broken(frames: Sequence[Mapping[str, Any]], answered: Float32 | VlakitError, processor: Processor) -> str | None:
    """How the answers differ by more than a bin, in words; None when they do not."""
    if isinstance(answered, VlakitError):
        return f"the policy cannot answer its golden frames: {answered.what}"
    distances: list[float] = []
    for frame, answer in zip(frames, answered, strict=True):
        recorded = _recorded_actions(frame, processor)  # (H, A)
        if recorded.shape != answer.shape:
            return f"the policy answers with {answer.size} numbers, not {recorded.size}"
        statistics = processor.statistics_of(frame["dataset"])
        recorded = with_constants(recorded, statistics)  # as 0.1.0 did not answer them
        physical = processor.physical(answer[None], [frame["dataset"]])[0].astype(np.float64)
        low, high = bounds_of(statistics, processor.settings.normalization)
        # In normalised units of today's statistics: so other statistics, which change what an answer means, show too.
        half_span = np.where(mask_of(statistics, processor.settings.normalization), (high - low) / 2, 1.0)
        distances.append(float((np.abs(physical - recorded) / np.maximum(half_span, 1e-8)).max()))
    wrong = [distance for distance in distances if distance > TOLERANCE]
    if not wrong:
        return None
    return (
        f"the policy answers {len(wrong)} of {len(distances)} golden frames otherwise,"
        f" by up to {max(wrong) * 255 / 2:.0f} bins"
    )


def _recorded_actions(frame: Mapping[str, Any], processor: Processor) -> np.ndarray:
    """The recorded answer (H, A) in physical units; the first checkpoints of 0.1.0 kept its tokens alone."""
    if "actions" in frame:
        return np.array(frame["actions"], np.float64)
    size = len(processor.statistics_of(frame["dataset"]).q01)
    normalized = processor.from_ids(np.array(frame["ids"])).reshape(1, -1, size)
    return processor.physical(normalized, [frame["dataset"]])[0].astype(np.float64)


def _answered(frames: Sequence[Mapping[str, Any]], network: Network, processor: Processor) -> list[dict[str, Any]]:
    """The frames with today's answers (H, A) in physical units, and in the form in which they came if it is another."""
    answers = _answers(network, processor, [observation_of(frame, processor) for frame in frames])
    physical = (processor.physical(a[None], [f["dataset"]])[0].tolist() for f, a in zip(frames, answers, strict=True))
    triples = zip(frames, answers, physical, strict=True)
    return [{**frame, "actions": actions, **processor.spelled(answer)} for frame, answer, actions in triples]


@torch.inference_mode()
def _answers(network: Network, processor: Processor, observations: Sequence[Observation]) -> Float32:
    """Normalised actions (B, H, A), in evaluation mode; the network's mode is put back."""
    if not observations:
        return np.zeros((0, 0, 0), np.float32)
    was_training = network.training
    network.eval()
    try:
        inputs = processor.observe(observations).like(next(network.parameters()))
        return network.predict(inputs).float().cpu().numpy()
    finally:
        network.train(was_training)


def _fingerprint(statistics: DatasetStatistics, normalization: str) -> str:
    """Short hash of what turns normalised actions into physical ones."""
    numbers = [*bounds_of(statistics, normalization), mask_of(statistics, normalization).astype(np.float64)]
    return sha256(np.stack(numbers).tobytes()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {"vlakit": __version__, **{name: version(name) for name in _LIBRARIES}}
