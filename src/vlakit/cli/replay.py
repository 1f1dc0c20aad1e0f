"""`vlakit replay suite=NAME ckpt=...`: demonstrations' own actions, through a policy's tokens, in their suite."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.cli.configuration import verb_config
from vlakit.cli.here import check_device
from vlakit.cli.output import check_format, emit
from vlakit.cli.policies import load_policy
from vlakit.cli.suites import split_words, suite_settings
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from vlakit.evaluation.suite import Suite
    from vlakit.processing.processor import Processor


def main(overrides: Sequence[str]) -> None:
    """Say how many demonstrations succeed again; exits with 1 below 95 %."""
    words, suite_words = split_words(overrides)
    cfg = verb_config("replay", words)
    check_format(cfg["format"])
    check_device(cfg["device"])
    from vlakit.evaluation.building import build_suite
    from vlakit.evaluation.demonstration_replay import replay_demonstrations
    from vlakit.evaluation.gate import replay_gate, training_path
    from vlakit.evaluation.rollout import Options
    from vlakit.evaluation.starts import shared_states

    suite = build_suite(suite_settings(cfg["suite"], suite_words))
    codec = training_path(_processor(cfg, suite), suite.dataset)
    options = Options(cfg["slots"], cfg["workers"])
    if cfg["demonstrations"] is None:
        result = replay_gate(suite, shared_states(suite, cfg["episodes"], cfg["tasks"]), codec, options)
    else:
        result = replay_demonstrations(suite, Path(cfg["demonstrations"]), codec, cfg["episodes"], options)
    lost = f"\nlost: {', '.join(result.lost[:20])}" if result.lost else ""
    emit({**result.to_dict(), "suite": suite.name}, f"{result}{lost}", cfg["format"])
    if not result.passed:
        sys.exit(1)


def _processor(cfg: dict[str, Any], suite: Suite) -> Processor | None:
    """Whose tokens: the checkpoint's, or the usual 256 with the statistics of a shard folder; None: no tokens."""
    if cfg["ckpt"] is not None and cfg["data"] is not None:
        raise ConfigError("ckpt and data are both given", where="command line", do="give one of them")
    if cfg["ckpt"] is not None:
        return load_policy(cfg).processor
    if cfg["data"] is None:
        return None
    from vlakit.data.shards.reader import ShardFolder
    from vlakit.processing.processor import build_processor

    folder = ShardFolder.open(cfg["data"])
    usual = {"image_size": 64, "channel_statistics": ["half"], "tokenizer": "words"}
    return build_processor(usual, {suite.dataset: folder.statistics})
