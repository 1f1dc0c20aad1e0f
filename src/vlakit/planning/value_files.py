"""A file of learnt values: the network, the skills in its order, whose features it reads, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from vlakit.errors import CheckpointMismatch, CorruptRecord
from vlakit.files import write_atomically
from vlakit.planning.skills import Library
from vlakit.planning.values import Fitted, ValueNetwork, codes


def save_values(file: Path, fitted: Fitted, skills: Library, policy: str, look: str) -> None:
    """policy: the content hash of the policy whose rollouts and features these are; look: see planning.looks."""
    content = {
        "network": fitted.network.state_dict(),
        "n_features": fitted.network.key.in_features,
        "skills": skills.options[:-1],
        "policy": policy,
        "look": look,
        "held_out": asdict(fitted.held_out),
    }
    stream = BytesIO()
    torch.save(content, stream)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, stream.getvalue())


def load_values(file: Path, skills: Library, policy: str) -> tuple[ValueNetwork, str]:
    """The network, and what it looks at.

    Raises CorruptRecord, or CheckpointMismatch for values of other skills or another policy.
    """
    try:
        content: Mapping[str, Any] = torch.load(file, weights_only=True)
        theirs, whose = list(content["skills"]), str(content["policy"])
    except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise CorruptRecord(
            f"no file of values: {type(error).__name__}", where=str(file), do="make one: vlakit affordances ckpt=CKPT"
        ) from error
    if theirs != skills.options[:-1]:
        what = f"values of other skills ({len(theirs)}) than the suite's ({len(skills)})"
        raise CheckpointMismatch(what, where=str(file), do="make them anew for this suite: vlakit affordances")
    if whose != policy:
        what = "values of another policy: they say how often that one's skills succeed"
        raise CheckpointMismatch(what, where=str(file), do="make them anew for this one: vlakit affordances ckpt=CKPT")
    network = ValueNetwork(codes(skills), int(content["n_features"]))
    if any(name.startswith("ended.") for name in content["network"]):
        network.ended = ValueNetwork(codes(skills), int(content["n_features"]))
    network.load_state_dict(content["network"])
    return network.eval(), str(content.get("look", "patches"))
