"""Spellings of the command line that were, and what to write instead: one table for every verb."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vlakit.errors import ConfigError

# (Open loop is refused in cli.evaluate, which writes the whole command anew.)
# "VERB KEY", or "* KEY" for every verb, -> what to write now. A key stands for those below it too: a.b for a.
MOVED = {
    "* model.names": "write model.network: model.network.vision=NAME",
    "* model.processor.camera": "write model.processor.cameras=[NAME]",
    "* data.window": "write model.processor.window=N",
    "* data.chunk": "write model.processor.chunk=N",
    "table png": "write svg=FILE",
    "shards look": "write vlakit data init SOURCE: it looks, and drafts the spec too",
    **dict.fromkeys(
        (f"passport card.{key}" for key in ("key", "curator", "paper", "weight_type")),
        "leave it out: a passport has no leaderboard row any more",
    ),
}


def refuse_moved(verb: str, words: Iterable[str], moved: Mapping[str, str] = MOVED) -> None:
    """Raise ConfigError for a word that was once right, with the one that is right now.

    >>> refuse_moved("train", ["a.b=1"], {"* a": "write c"})
    Traceback (most recent call last):
    vlakit.errors.ConfigError: ConfigError: vlakit train takes no a.b any more
      in:    command line: a.b=1
      do:    write c
    """
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        for old, instead in moved.items():
            where, _, name = old.partition(" ")
            if where in ("*", verb) and (key == name or key.startswith(f"{name}.")):
                raise ConfigError(f"vlakit {verb} takes no {key} any more", where=f"command line: {word}", do=instead)
