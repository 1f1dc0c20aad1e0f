"""Starting Hydra for train: its own options, and its complaints as errors of vlakit's."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vlakit.cli.configuration import check_run, hydra_root, whole
from vlakit.cli.typed import as_text, refuse_commas
from vlakit.errors import ConfigError

_ASKED = (  # options with which Hydra tells something and trains nothing
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--resolve", "--package", "-p"),
    *("--shell-completion", "-sc"),
)


def run_hydra(job: Callable[[Any], Any], words: Sequence[str]) -> None:
    """Compose conf/train.yaml with the words and call `job`, once or for each run of a sweep. Raises ConfigError."""
    if any(word.split("=")[0] in _ASKED for word in words):
        logging.getLogger().handlers.clear()  # Hydra prints by a handler of its own: with ours everything comes twice
    else:
        check_run("train", [word for word in words if not word.startswith("-")])
    sys.argv = [sys.argv[0], *sweep_first(whole(as_text("train", words)))]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints what it meets itself, with a traceback
    try:
        hydra.main(version_base="1.3", config_path=hydra_root(), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        if str(error).startswith("Ambiguous value"):
            refuse_commas("train", [word for word in words if not word.startswith("-")])
        lines = str(error).splitlines() or [type(error).__name__]
        do = " ".join(lines[1:]) or "vlakit train --help shows what there is to choose from"
        raise ConfigError(lines[0], where="command line", do=do) from error


def sweep_first(words: Sequence[str]) -> list[str]:
    """`-m` in front: Hydra's parser takes no further key=value behind an option that stands between two of them."""
    return sorted(words, key=lambda word: word not in ("-m", "--multirun"))
