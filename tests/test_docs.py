"""What the README tells people to type is possible."""

import re
import shlex

import pytest
from places import ROOT

from vlakit.cli.app import VERBS
from vlakit.cli.configuration import check_run, compose_config, verb_config
from vlakit.cli.own_data import with_own_data
from vlakit.cli.suites import split_words
from vlakit.cli.trainings import split_train
from vlakit.cli.words import own_folders
from vlakit.errors import ConfigError

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPOSED = {"train", "explain", "plan", "bench"}  # the other verbs read their file alone


def commands(text: str) -> list[list[str]]:
    """The words of each command in fenced blocks and `code`, without prompt, comment, variables and placeholders."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()] + inline
    found = []
    variables = dict(re.findall(r"^([A-Z])='?\"?([^'\"\n#]*)", text, re.MULTILINE))  # C="--config-dir DIR"
    for line in lines:
        for name, value in variables.items():
            line = line.replace(f"${name} ", f"{value.strip()} ")  # noqa: PLW2901
        part = re.split(r"\s{2,}(?:#|->)|\s#\s|\s{3,}", line.strip().removeprefix("$ "))[0]
        for command in re.split(r"&&|;", part):
            words = _words(command)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                found.append([words[0].removeprefix(".venv/bin/"), *words[1:]])
    return found


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # prose with an apostrophe
        return []


def check(words: list[str]) -> None:
    program, *rest = words
    if program == "python" and rest[0] == "-m":
        verb, rest = rest[2], rest[3:]
    elif program == "python":
        assert (ROOT / rest[0]).is_file()
        if rest[0] != "train.py":
            compile((ROOT / rest[0]).read_text(encoding="utf-8"), rest[0], "exec")
            return
        verb, rest = "train", rest[1:]
    else:
        verb, rest = rest[0], rest[1:]
    assert verb in VERBS
    with own_folders(verb, rest) as given:
        check_verb(verb, with_own_data(given) if verb == "train" else given)


def check_verb(verb: str, given: list[str]) -> None:
    words, _ = split_words(split_train(given)[0] if verb == "select" else given)
    overrides = [
        word for word in words if not word.startswith("-") and word not in {"key=value", "...", "strategy=all"}
    ]
    if verb == "train":
        check_run("train", overrides)
    elif verb in COMPOSED:
        compose_config(verb, overrides)
    else:
        needed = {"ckpt": "ckpt=CKPT", "suite": "suite=SUITE"} if verb == "evaluate" else {}
        given = {word.partition("=")[0] for word in overrides}
        missing = [word for key, word in needed.items() if key not in given]
        verb_config(verb, [*overrides, *missing])


COMMANDS = commands(README)
OURS = [words for words in COMMANDS if (words[0] == "vlakit" and len(words) > 1) or words[:2] == ["python", "train.py"]]
PAGES = sorted([*(ROOT / "experiments").rglob("README.md"), *(ROOT / "docs").glob("*.md")])
ELSEWHERE = {
    f"{page.parent.relative_to(ROOT)}: {' '.join(words)}": words
    for page in PAGES
    for words in commands(page.read_text(encoding="utf-8"))
    if (words[0] == "vlakit" and len(words) > 1 and words[1] in VERBS) or (words[0] == "python" and len(words) > 1)
}
RECIPES = [words[1] for words in COMMANDS if words[0] == "just" and len(words) > 1]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_readme_names_the_commands_that_matter() -> None:
    assert {"demo", "test"} <= set(RECIPES)
    assert any("experiment=lora_r32" in words for words in OURS)


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_every_command_of_the_readme_parses(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize("words", ELSEWHERE.values(), ids=ELSEWHERE)
def test_every_command_of_the_other_pages_parses(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "experiments" / "tiny_pretraining")  # as its page says: PYTHONPATH
    check(words)


@pytest.mark.parametrize("recipe", sorted(set(RECIPES)))
def test_every_recipe_of_the_readme_exists(recipe: str) -> None:
    assert re.search(rf"^{re.escape(recipe)}\b[^\n=]*:(?!=)", (ROOT / "Justfile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_a_configuration_file_that_explains_itself(verb: str) -> None:
    assert (ROOT / "conf" / f"{verb}.yaml").read_text().startswith("# ")


def test_a_wrong_command_would_be_noticed() -> None:
    text = (
        "```bash\n$ VLAKIT_RUNS=x python train.py experiment=lora_r23   # a comment\njust demo && vlakit compare\n```"
    )
    wrong, just, compare = commands(text)
    assert (just, compare) == (["just", "demo"], ["vlakit", "compare"])
    with pytest.raises(ConfigError, match="lora_r23 does not exist"):
        check(wrong)
