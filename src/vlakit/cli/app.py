"""The console script: `vlakit <verb> key=value ...`. A verb is a module here and a YAML file of the same name."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module

from vlakit import __version__
from vlakit.cli.errors import readable_errors
from vlakit.cli.words import ABOUT, own_folders
from vlakit.configs import conf_root
from vlakit.errors import UnknownName, nearest

VERBS = {
    "train": "run one experiment, or a sweep with -m",
    "data": "init SOURCE drafts a spec, show SHARDS draws what a model will see, mixture=NAME counts shares",
    "shards": "RLDS, LeRobot, HDF5, Zarr... -> WebDataset shards; verify=DIR checks",
    "evaluate": "a checkpoint or a control in a suite: closed loop",
    "score": "a checkpoint against held-out episodes: open loop",
    "ask": "a question about a picture to a checkpoint; or how many of a folder it answers right",
    "serve": "a checkpoint behind a port, in the dialect of clients that robots have: openpi, OpenVLA, GR00T, ...",
    "replay": "demonstrations' own actions in their suite: the gate before any evaluation",
    "demonstrate": "a suite's scripted expert -> RLDS folder",
    "select": "which demonstrations to collect next: rounds of training and acquiring over a pool",
    "collect": "a policy's own rollouts, several from each start, with the tokens that it drew",
    "pairs": "rollouts -> preferred and rejected episodes, for train experiment=dpo",
    "affordances": "how likely a checkpoint is to succeed at each skill of a suite, learnt from its own tries",
    "compare": "runs=[A,B]: episodes paired, with a verdict; parent=last: recorded runs in one table",
    "table": "name=table1: a table of the paper filled by recorded runs, with a verdict",
    "passport": "a finished run as model card, leaderboard row, and what it takes to make it again",
    "reproduce": "a run again from its passport, and whether it is the same",
    "export": "a checkpoint as a Hugging Face folder, or its adapter alone; demonstrations as a LeRobot dataset",
    "explain": "who trains, who learns, what the optimizer holds",
    "plan": "memory, time and disk of a run before it starts; what fits on which GPU",
    "bench": "rates on this machine: loader, training step",
    "doctor": "what is here, what is missing for which extra, and whether the demo can run",
}

MODULES = {"select": "selecting"}  # cli/select.py would stand before the standard library's for a script run beside it


def main() -> None:
    """Dispatch to `vlakit.cli.<verb>:main`; logs go to standard error, reports to standard output."""
    words = sys.argv[1:]
    with readable_errors():
        if not words or words[0] in {"-h", "--help"}:
            print(usage())
            return
        if words[0] == "--version":
            print(f"vlakit {__version__}")
            return
        if words[0] not in VERBS:
            near = nearest(words[0], VERBS, cutoff=0.0, n=1)
            raise UnknownName(f"no verb called {words[0]!r}", do=f"{near} (vlakit alone lists them)")
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        run_verb(words[0], words[1:])


def console() -> None:
    """`main` in a process of its own; after counting that ends at once: taking the libraries apart costs 3 s."""
    main()
    if sys.argv[1:2] in (["explain"], ["plan"]):  # they have nothing open but these two
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def run_verb(verb: str, overrides: list[str]) -> None:
    """Run one verb on `key=value` words; `--help` prints its configuration file, which says what each key means."""
    if verb != "train" and {"-h", "--help"} & set(overrides):
        print(f"vlakit {verb} key=value ...\n{ABOUT}\n")
        print((conf_root() / f"{verb}.yaml").read_text(encoding="utf-8").rstrip())
        return
    with own_folders(verb, overrides) as words:
        import_module(f"vlakit.cli.{MODULES.get(verb, verb)}").main(words)


def usage() -> str:
    """The list of verbs."""
    lines = [f"  {verb:<12}{what}" for verb, what in VERBS.items()]
    usage = "usage: vlakit <verb> [--config-dir DIR] key=value ..."
    return "\n".join([usage, "", *lines, "", "vlakit <verb> --help shows its keys"])
