"""A robot set-up is one YAML file: what it may hold is checked, and it comes back as it was written."""

import shutil
from pathlib import Path

import pytest
import yaml

from vlakit.configs import FOLDERS, conf_root
from vlakit.errors import ConfigError, UnknownName
from vlakit.evaluation.suites.tabletop.embodiment import load_embodiment
from vlakit.evaluation.suites.tabletop.stored import fingerprint

D0 = conf_root() / "embodiment" / "d0.yaml"
ALL = sorted(file.stem for file in (conf_root() / "embodiment").glob("*.yaml"))
FINGERPRINTS = {  # of version 0.1.0, which drew the stored starts
    "d0": "cf92444012877903",
    "d1": "025cb1dd77e7079b",
    "d2": "1e976e9fc4cadae0",
    "d3": "f4af25880042b903",
    "d4": "1b31bc73cf4ece6f",
    "narrow": "cec01bc4aeea25b9",  # came after that version
    "target": "44fe6a122cf2d9e2",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own beside conf/."""
    (tmp_path / "embodiment").mkdir()
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    return tmp_path / "embodiment"


@pytest.mark.parametrize("name", ALL)
def test_numbers_come_back_as_they_were_written(name: str) -> None:
    assert fingerprint(load_embodiment(name)) == FINGERPRINTS[name]


@pytest.mark.parametrize(
    ("changes", "what", "do"),
    [
        ({"colors": ["red"]}, "unknown key 'colors'", "colours"),
        ({"step_m": "6 cm"}, "key 'step_m'", "number"),
        ({"view": {"azimuth": 0, "elevation": -45}}, "key 'view': key 'distance' is missing", "distance"),
        ({"colours": ["red", "bleu"]}, "no colour 'bleu'", "blue"),
        ({"look": 3}, "key 'look'", "key: value"),
    ],
    ids=str,
)
def test_what_is_no_embodiment_is_refused_with_the_key(
    changes: dict[str, object], what: str, do: str, folder: Path
) -> None:
    content = yaml.safe_load(D0.read_text())
    (folder / "mine.yaml").write_text(yaml.safe_dump({**content, **changes}))
    with pytest.raises(ConfigError) as caught:
        load_embodiment("mine")
    assert what in caught.value.what
    assert do in caught.value.do
    assert caught.value.where == str(folder / "mine.yaml")


def test_an_embodiment_of_ones_own_is_one_more_file_and_an_unknown_one_names_the_nearest(folder: Path) -> None:
    shutil.copy(D0, folder / "mine.yaml")
    assert load_embodiment("mine").name == "mine"
    with pytest.raises(UnknownName, match=r"no embodiment.* 'mien'") as caught:
        load_embodiment("mien")
    assert "mine" in caught.value.do
