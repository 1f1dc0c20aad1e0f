"""Octo's released weights: their Flax folder is refused with the way out, the parameters in an .npz begin a run."""

from __future__ import annotations

import logging
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vlakit.errors import CheckpointMismatch
from vlakit.models.network import Network, begin
from vlakit.models.octo.flax import load_flax

log = logging.getLogger(__name__)
FLAX_FILES = (
    *("example_batch.msgpack", "_CHECKPOINT_METADATA", "_METADATA", "checkpoint", "manifest.ocdbt"),
    *("default/checkpoint", "default/manifest.ocdbt"),
)
RECIPE = (
    "in Octo's own environment: params = OctoModel.load_pretrained(FOLDER).params;"
    ' numpy.savez("octo.npz", **flax.traverse_util.flatten_dict(params, sep="/"));'
    " then begin a run from it: model=octo_small model.weights=octo.npz"
)


def refuse_flax(place: Path) -> None:
    """Raise CheckpointMismatch for a Flax folder, or its parameters alone: they are no policy without settings."""
    if place.is_dir() and any((place / name).exists() for name in FLAX_FILES):
        raise CheckpointMismatch("a Flax checkpoint, which JAX alone can read", where=str(place), do=RECIPE)
    if place.suffix == ".msgpack" or (place.name == "checkpoint" and place.is_file()):
        raise CheckpointMismatch("a Flax file, which JAX alone can read", where=str(place), do=RECIPE)
    if place.suffix == ".npz":
        raise CheckpointMismatch(
            "parameters alone, without the processor and the statistics of a policy",
            where=str(place),
            do="begin a run from them: vlakit train experiment=octo_ft model=octo_small model.weights=FILE.npz",
        )


def filled(network: Network, file: Path) -> Network:
    """A network with the parameters of an .npz by their Flax names. Raises CheckpointMismatch."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            parameters = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise CheckpointMismatch(f"the parameters cannot be read: {error}", where=str(file), do=RECIPE) from error
    without = load_flax(network, parameters, where=str(file), part=True)
    new = [name for name, tensor in network.state_dict().items() if tensor.is_meta]
    begin(network, new, like=next(one for one in network.parameters() if not one.is_meta))
    out = len(without)
    log.info("%s: %d parameters loaded, %d left out (frozen T5, absent senses)", file, len(parameters) - out, out)
    if new:
        log.warning("%s: not in the file and begun anew: %s, ...", file, ", ".join(new[:3]))
    return network
