"""Three policies that need no model, on every tabletop: the expert must win, doing nothing and random moves must not.

python experiments/tabletop/controls.py 500 > experiments/tabletop/controls.csv     (6 minutes on one core)
"""

import csv
import json
import subprocess
import sys
import tempfile

EMBODIMENTS = ("d0", "d1", "d2", "d3", "d4", "target")
POLICIES = ("expert", "nothing", "random")
COLUMNS = ("suite", "policy", "task", "episodes", "successes", "success", "low", "high", "credit", "steps")


def evaluate(suite: str, policy: str, episodes: str) -> list[dict[str, object]]:
    """One row a task, and one for all."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"suite={suite}", f"policy={policy}", f"episodes={episodes}", f"out={folder}/out", "format=json"]
        program = [sys.executable, "-c", "from vlakit.cli.app import main; main()", "evaluate", *words]
        pooled = json.loads(subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return [{**row, "suite": suite, "policy": policy} for row in (*pooled["tasks"], pooled)]


def main(episodes: str) -> None:
    """Print the table as CSV."""
    table = csv.DictWriter(sys.stdout, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for embodiment in EMBODIMENTS:
        for policy in POLICIES:
            table.writerows(
                {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                for row in evaluate(f"tabletop_{embodiment}", policy, episodes)
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
