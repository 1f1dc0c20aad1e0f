"""What a training says when it ends."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vlakit.cli.closing import last_words


def test_a_recipe_whose_data_are_in_no_shards_ends_in_words_too(tmp_path: Path) -> None:
    data: Any = SimpleNamespace(processor=SimpleNamespace(settings=None))
    assert list(last_words({}, data, tmp_path, None)) == [f"next: vlakit evaluate ckpt={tmp_path} suite=SUITE"]
