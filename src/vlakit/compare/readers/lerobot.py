"""lerobot-eval's eval_info.json. It names episodes by their order alone: whether they began alike, it does not say.

Source: github.com/huggingface/lerobot, lerobot/scripts/lerobot_eval.py (eval_policy: per_episode, with seeds;
eval_policy_all, as of August 2026: per_task, without, beside per_group and overall with their counts of episodes).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlakit.compare.episodes import Episodes, Outcome, Start, columns, digest_of, outcome_of
from vlakit.compare.foreign import field_of, list_of, load_json
from vlakit.compare.readers import Reader
from vlakit.errors import InvalidData

NAME = "eval_info.json"
DOUBT = f"{NAME} does not say from which environment, seed or initial state an episode began"


def find(path: Path) -> list[Path]:
    """The file, or the one of a folder."""
    file = path if path.name == NAME else path / NAME
    return [file] if file.is_file() else []


def read(path: Path, files: list[Path]) -> Episodes:
    """All tasks. Raises InvalidData for another layout, CorruptRecord."""
    file = files[0]
    content = file.read_bytes()
    info = load_json(file, content)
    starts, success, credit = columns(
        _several_tasks(info, file) if isinstance(info, dict) and "per_task" in info else _one_task(info, file)
    )
    if isinstance(info, dict):
        _check_count(info, len(starts), file)
    return Episodes(file.resolve().parent.name, path, starts, success, credit, digest_of([content]), doubt=DOUBT)


def _several_tasks(info: Any, file: Path) -> Iterator[Outcome]:
    for task in list_of(info, "per_task", file):
        suite, name = str(field_of(task, "task_group", file)), str(field_of(task, "task_id", file))
        for i, value in enumerate(list_of(field_of(task, "metrics", file), "successes", file)):
            success = outcome_of(value, str(file))
            yield Outcome(Start(suite, f"task {name}", f"episode {i:05d}"), success, float(success))


def _one_task(info: Any, file: Path) -> Iterator[Outcome]:
    for record in list_of(info, "per_episode", file):
        success = outcome_of(field_of(record, "success", file), str(file))
        seed = field_of(record, "seed", file)
        unit = f"episode {field_of(record, 'episode_ix', file)}" if seed is None else f"seed {seed}"
        yield Outcome(Start("lerobot", "task", unit), success, float(success))


def _check_count(info: dict[str, Any], n_found: int, file: Path) -> None:
    """What the file says of itself as a whole must be what its tasks hold; older ones say nothing."""
    overall = info.get("overall")
    n_said = overall.get("n_episodes", n_found) if isinstance(overall, dict) else n_found
    if n_said != n_found:
        what = f"it says {n_said} episodes, and its tasks hold {n_found}"
        raise InvalidData(what, where=str(file), do="give the file as lerobot-eval wrote it")


READER = Reader("lerobot", NAME, find, read)
