"""The console script: what it says without words, and to words it does not know."""

import sys

import pytest
from commands import complaint, run

from vlakit import __version__
from vlakit.cli.app import VERBS, main
from vlakit.cli.errors import readable_errors
from vlakit.cli.moved import MOVED
from vlakit.errors import InvalidData


def say(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vlakit", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=str)
def test_vlakit_alone_lists_every_verb(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in VERBS)


def test_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"vlakit {__version__}\n"


def test_an_unknown_verb_names_the_nearest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(monkeypatch, "evalaute", "ckpt=x") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no verb called 'evalaute'" in captured.err
    assert "did you mean evaluate?" in captured.err


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_help_of_a_verb_explains_its_keys(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, ["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"vlakit {verb} key=value")
    assert "--config-dir DIR" in out
    assert "#" in out


def test_help_of_train_lists_what_there_is_to_choose_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", ["--help"]) == 0
    out = capsys.readouterr().out
    assert "--config-dir DIR" in out
    assert "\nexperiment: " in out
    assert "frozen_vision, full" in out


@pytest.mark.parametrize("word", ["old.key=1", "+old=1"])
@pytest.mark.parametrize("verb", ["train", "explain", "shards"])
def test_a_word_of_before_is_refused_with_the_one_of_now(
    verb: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MOVED, "* old", "write new=VALUE")
    message = complaint(capsys, verb, word)
    assert f"takes no {word[:-2].lstrip('+')} any more" in message
    assert "do:    write new=VALUE" in message


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("shards", ["verify=DIR"]),
        ("evaluate", ["ckpt=x", "suite=y"]),
        ("score", ["ckpt=x"]),
        ("compare", []),
        ("explain", ["model=tiny"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unknown_format_is_refused_before_any_work(
    verb: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, verb, *words, "format=yaml")
    assert "format=yaml is unknown" in said
    assert "json" in said


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLAKIT_DEBUG", "1")
    with pytest.raises(InvalidData), readable_errors():
        raise InvalidData("torn", where="here", do="mend it")


def test_an_error_in_a_cause_is_the_one_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    torn = InvalidData("torn", where="here", do="mend it")
    with pytest.raises(SystemExit) as end, readable_errors():
        raise RuntimeError("worker died") from torn
    assert end.value.code == 1
    assert capsys.readouterr().err == "InvalidData: torn\n  in:    here\n  do:    mend it\n"


def test_what_a_user_cannot_mend_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), readable_errors():
        _ = 1 / 0


def test_ctrl_c_ends_with_the_shells_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, readable_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert "interrupted" in capsys.readouterr().err
