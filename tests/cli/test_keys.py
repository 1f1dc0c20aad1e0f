"""The table of keys: it knows every key, takes every default, and refuses every wrong value of every kind."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from commands import complaint, says
from omegaconf import OmegaConf

from vlakit.cli.app import VERBS
from vlakit.cli.configuration import compose_config, leaves, verb_config
from vlakit.cli.here import check_device, check_writable
from vlakit.cli.keys import keys
from vlakit.cli.typed import as_text, expected
from vlakit.configs import conf_root
from vlakit.errors import ConfigError, PartMissing, VlakitError

COMPOSED = ("train", "explain", "plan", "bench")  # by Hydra, from groups
PLAIN = [verb for verb in VERBS if verb not in COMPOSED]
SCRIPT = Path(__file__).parents[2] / "experiments" / "reliability" / "bad_input.py"


@pytest.fixture(scope="module")
def bad_input() -> ModuleType:
    """The script that makes bad_input.csv."""
    spec = importlib.util.spec_from_file_location("bad_input", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bad_input"] = module  # where a dataclass looks for its types
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("verb", PLAIN)
def test_the_table_holds_every_key_of_a_verb_and_no_other(verb: str) -> None:
    known = OmegaConf.create(yaml.safe_load((conf_root() / f"{verb}.yaml").read_text()))
    assert set(leaves(known)) == set(keys(verb))


@pytest.mark.parametrize("verb", COMPOSED)
def test_the_table_holds_every_own_key_of_a_composed_verb(verb: str) -> None:
    own = yaml.safe_load((conf_root() / f"{verb}.yaml").read_text())
    del own["defaults"]
    known = {name for key in keys(verb) for name in (key, key.partition(".")[0])}
    assert [key for key in own if key not in known] == []


@pytest.mark.parametrize(("verb", "more"), [("evaluate", ["suite=tabletop_d0"]), ("score", [])])
def test_a_run_may_be_judged_without_a_word_on_its_record(verb: str, more: list[str]) -> None:
    assert verb_config(verb, ["ckpt=tiny", *more, "tracking_uri=null"])["tracking_uri"] is None


@pytest.mark.parametrize("verb", VERBS)
def test_whatever_a_key_must_not_hold_is_refused_before_any_work(verb: str, bad_input: ModuleType) -> None:
    names = {
        name: f"/nowhere/{name}" for name in ("no", "file", "empty", "fifo", "loop", "below", "long", "proc", "work")
    }
    base = [word.format(**names) for word in bad_input.BASE[verb]]
    cases = [case for case in bad_input.cases(verb, names) if case.must_be_refused and "=" in case.word.strip("=")]
    taken: list[str] = []
    for case in cases[:: 40 if verb in COMPOSED else 5]:  # the script runs them all
        head = case.word.partition("=")[0]
        error = refusal(verb, [*(word for word in base if word.partition("=")[0] != head), case.word])
        if error is None or not (error.where and error.do):
            taken.append(case.word)
    assert cases
    assert taken == []


def refusal(verb: str, words: list[str]) -> VlakitError | None:
    """What a verb says to its words before it begins."""
    try:
        (compose_config if verb in COMPOSED else verb_config)(verb, words)
    except VlakitError as error:
        return error
    return None


@pytest.mark.parametrize("word", ["out=123", "out=1e3", "out=true", "ckpt=0"])
def test_a_number_is_a_name_where_a_key_holds_text(word: str) -> None:
    key, _, text = word.partition("=")
    assert verb_config("evaluate", ["ckpt=x", "suite=tabletop", word])[key] == text


@pytest.mark.parametrize("text", ['what, where\'s the "cube"?', "où est le cube?", "a b = [c, {d", "it's \\ 'so' \\"])
def test_a_sentence_is_a_text_as_it_was_typed(text: str) -> None:
    assert verb_config("ask", ["ckpt=x", f"question={text}"])["question"] == text


def test_what_holds_numbers_keeps_them() -> None:
    assert as_text("evaluate", ["episodes=3", "strict=true", "out=[a]"]) == ["episodes=3", "strict=true", "out=[a]"]


@pytest.mark.parametrize(
    ("verb", "word", "instead"),
    [
        ("compare", "runs=a,b", "runs=[a,b]"),
        ("evaluate", "out=a,b", "\"out='a,b'\""),
        ("evaluate", "episodes=1,2", "episodes=1"),
        ("score", "trusted=a,b", "trusted=[a,b]"),
        ("explain", "model=tiny,siglip_7b", "\"model='tiny,siglip_7b'\""),
    ],
)
def test_a_comma_without_quotes_is_refused_with_what_to_type(
    verb: str, word: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    says(complaint(capsys, verb, "suite=fake" if verb == "evaluate" else "format=text", word), word, instead)


def test_an_error_names_the_word_as_it_was_typed_and_what_may_stand_there() -> None:
    for word, do in (
        ("lr.full=abc", "a number of at least 0"),
        ("seed=-1", "a whole number from 0 to"),
        ("trainer.accelerator=cpuu", "did you mean cpu?"),
        ("steps=1e3", "steps=1000"),
        ("evaluate.suite=tabeltop", "did you mean tabletop"),
        ("+evaluate.strict=banana", "true or false"),
    ):
        with pytest.raises(ConfigError) as caught:
            compose_config("train", [word])
        assert caught.value.where == f"command line: {word}"
        assert do in caught.value.do


def test_keys_of_a_class_of_somebody_else_are_free() -> None:
    words = ["strategy=lora", "strategy._target_=json.loads", "strategy.rank=many", "+strategy.mine=nan"]
    assert compose_config("train", words).strategy.rank == "many"


def test_every_key_can_say_what_it_holds() -> None:
    said = {expected(verb, key) for verb in VERBS for key in keys(verb)}
    assert "" not in said


def test_a_folder_that_cannot_be_written_is_said_before_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("/proc/nothing/here", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(ConfigError):
            check_writable(place)
    assert check_writable(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("verb", ["shards", "evaluate", "score", "demonstrate", "export", "passport", "reproduce"])
def test_no_verb_works_for_a_folder_that_it_cannot_write(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "shards": ["dataset=bridge_orig", "source=sample"],
        "evaluate": ["ckpt=tiny", "suite=tabletop"],
        "score": ["ckpt=tiny"],
        "demonstrate": ["suite=tabletop", "episodes=1"],
        "export": ["ckpt=tiny"],
        "passport": [f"run={tmp_path}"],
        "reproduce": [f"passport={tmp_path}"],
    }[verb]
    said = complaint(capsys, verb, *words, "out=/proc/nothing/here")
    says(said, "/proc" if verb != "reproduce" else tmp_path)


def test_a_gpu_that_is_not_here_is_said() -> None:
    check_device("cpu")
    with pytest.raises(PartMissing, match="is not here"):
        check_device("cuda:99")


def test_a_suite_without_such_starts_names_those_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("policy=expert", "suite=tabletop", "episodes=1")
    says(complaint(capsys, "evaluate", *words, "suite.split=tset"), "no split 'tset'", "did you mean test")
    says(complaint(capsys, "evaluate", *words, "suite.split=train"), "suite.split=train", "strict=false")
