"""No file that came from elsewhere runs anything: each door is opened with a planted target, name, tag or pickle."""

import io
import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import run
from evaluations import foundry, lerobot, vla_eval, write_own
from fake_suite import FakeSuite
from tiny_folders import released_folder
from tiny_runs import built, saved

from vlakit.checkpoints.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from vlakit.checkpoints.card import CARD
from vlakit.checkpoints.export import ExportOptions, export
from vlakit.checkpoints.formats import load
from vlakit.cli.reproduce import Repeat
from vlakit.cli.sweep import continued
from vlakit.cli.targets import check_keys, known_targets, own_targets
from vlakit.compare.readers import read
from vlakit.data.rlds.features import read_features
from vlakit.data.shards.frames import parse_lowdim
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.specs.spec import load_spec
from vlakit.errors import ConfigError, VlakitError
from vlakit.policy import TrainedPolicy
from vlakit.processing.tokens import TokenProcessor
from vlakit.reports.passport.passport import PASSPORT
from vlakit.reports.tables.folder import from_folder
from vlakit.reports.tables.spec import load_table
from vlakit.schema import DatasetStatistics
from vlakit.strategies import saving
from vlakit.strategies.full import Full
from vlakit.strategies.lora import Lora

TRAP = "planted_trap"
SPRING = f"{TRAP}.spring"


class Payload:
    """Unpickling it springs the trap."""

    def __reduce__(self) -> tuple[object, ...]:
        return __import__, (TRAP,)


@pytest.fixture(autouse=True)
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that nothing may import; whatever a door says of the file, it was not."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / f"{TRAP}.py").write_text("def spring(*args, **kwargs): pass\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield
    assert sys.modules.pop(TRAP, None) is None, "the trap was sprung"


def planted(tree: Any) -> Iterator[Any]:
    """The tree with a target in every mapping, then with each of its texts a name of code."""
    yield _with_targets(tree)
    yield from _replaced(tree, f"{TRAP}:spring")


def _with_targets(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {"_target_": SPRING, **{key: _with_targets(value) for key, value in tree.items()}}
    return [_with_targets(value) for value in tree] if isinstance(tree, list) else tree


def _replaced(tree: Any, text: str) -> Iterator[Any]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from ({**tree, key: other} for other in _replaced(value, text))
    elif isinstance(tree, list):
        for i, value in enumerate(tree[:1]):
            yield from ([*tree[:i], other, *tree[i + 1 :]] for other in _replaced(value, text))
    elif isinstance(tree, str):
        yield text


def opened(door: Callable[[], object]) -> bool:
    """Whether the door let the file in; what it says otherwise is other tests' affair."""
    try:
        door()
    except Exception:  # a text in place of a number may fail in any way, but runs nothing
        return False
    return True


def through(file: Path, door: Callable[[], object]) -> None:
    """Plant in a JSON file, one place at a time; as it is the door opens."""
    whole = file.read_text()
    assert opened(door)
    for tree in planted(json.loads(whole)):
        file.write_text(json.dumps(tree))
        opened(door)
    file.write_text(whole)


@pytest.fixture
def released(tmp_path: Path, bridge_statistics: DatasetStatistics) -> Path:
    return released_folder(tmp_path / "released", bridge_statistics)


def test_a_released_folders_json_runs_nothing(released: Path) -> None:
    (released / "preprocessor_config.json").write_text('{"means": [[0.5, 0.5, 0.5]]}')
    for name in ("config.json", "dataset_statistics.json", "preprocessor_config.json"):
        through(released / name, lambda: load(released))


@pytest.mark.slow
def test_an_exported_folder_and_an_adapter_run_nothing(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    base = saved(built(Full, tiny_processor), tmp_path / "base.ckpt")
    export(load(base), tmp_path / "hf", "hf", ExportOptions())
    policy = load(saved(built(Lora, tiny_processor, rank=1), tmp_path / "lora.ckpt"))
    export(policy, tmp_path / "adapter", "adapter", ExportOptions(base=str(base)))
    for folder, name in (("hf", "config.json"), ("adapter", ADAPTER_CONFIG)):
        through(tmp_path / folder / name, lambda folder=folder: load(tmp_path / folder))
    through(tmp_path / "hf" / "contract.json", lambda: TrainedPolicy.from_checkpoint(tmp_path / "hf"))


def test_a_card_chooses_no_code(tiny_processor: TokenProcessor, tmp_path: Path) -> None:
    file = saved(built(Full, tiny_processor), tmp_path / "base.ckpt")
    content = torch.load(file, weights_only=True)
    for name in ("network", "processor"):
        for tree in planted(content[CARD][name]):
            torch.save({**content, CARD: {**content[CARD], name: tree}}, file)
            opened(lambda: load(file))


@pytest.mark.parametrize("wrapped", [True, False], ids=["torch", "bare pickle"])
def test_no_file_of_tensors_is_unpickled(wrapped: bool, released: Path, tmp_path: Path) -> None:
    sink = io.BytesIO()
    torch.save({"model": {"a": Payload()}, CARD: Payload(), "state_dict": {}}, sink)
    evil = sink.getvalue() if wrapped else pickle.dumps(Payload())
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / ADAPTER_CONFIG).write_text(
        json.dumps({"r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "base_model_name_or_path": str(released)})
    )
    places = [tmp_path / "x.ckpt", tmp_path / "x.pt", *(tmp_path / "adapter" / name for name in ADAPTER_WEIGHTS)]
    for file in places:
        file.write_bytes(evil)
        with pytest.raises(VlakitError):
            load(file if file.parent == tmp_path else file.parent)
        file.unlink()
    (released / "model.safetensors").write_bytes(evil)
    with pytest.raises(VlakitError):
        load(released)


def test_shards_run_nothing(bridge_shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(bridge_shards, folder)
    first = SampleRef("bridge_orig", 0, 0)
    for name in ("shardindex.json", "statistics.json"):
        through(folder / name, lambda: ShardFolder.open(folder).read_sample(first))
    assert list(folder.rglob("*.npy"))
    for file in folder.rglob("*.npy"):
        np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)
    assert not opened(lambda: ShardFolder.open(folder).read_sample(first))  # not what was written
    for digest in folder.rglob("*.npy.sha256"):
        digest.unlink()
    assert opened(lambda: ShardFolder.open(folder).read_sample(first))  # from the tar: columns only save time
    sink = io.BytesIO()
    np.savez(sink, action=np.array([Payload()], dtype=object), allow_pickle=True)
    assert not opened(lambda: parse_lowdim(sink.getvalue()))


def test_a_spec_and_a_declaration_of_features_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "features.json"
    file.write_text(json.dumps({"pythonClassName": SPRING, "featuresDict": {"features": {"steps": {}}}}))
    assert not opened(lambda: read_features(file))
    for group in ("dataset", "suite", "table", "mixture", "embodiment", "experiment"):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "evil.yaml").write_text(f"a: !!python/object/apply:{SPRING} []\n")
    monkeypatch.setenv("VLAKIT_CONFIG_DIR", str(tmp_path / "conf"))
    assert not opened(lambda: load_spec("evil"))
    assert not opened(lambda: load_table("evil"))
    for words in (
        ["train", "experiment=evil"],
        ["explain", "experiment=evil"],
        ["evaluate", "policy=expert", "suite=evil"],
    ):
        assert run(words[0], words[1:]) != 0


def test_foreign_episodes_run_nothing(tmp_path: Path) -> None:
    through(
        foundry(tmp_path, "s", "m", {"t": "01"}) / "t/rollouts/2026-04-18T00-00-00/results.json",
        lambda: read(tmp_path / "s/m"),
    )
    through(lerobot(tmp_path / "l", {("g", 0): [True]}) / "eval_info.json", lambda: read(tmp_path / "l"))
    through(vla_eval(tmp_path / "v.json", {"t": [True]}), lambda: read(tmp_path / "v.json"))
    own = write_own(tmp_path / "own", [1])
    through(own / "evaluation.json", lambda: read(own))
    through(own / "episodes.jsonl", lambda: read(own))


def test_saved_tables_run_nothing(tmp_path: Path) -> None:
    spec = load_table("table1")
    shutil.copytree(spec.folder / "runs", tmp_path / "runs")
    file = tmp_path / "runs" / "runs.csv"
    text = file.read_text().replace('""mujoco"": ""3.3.0""', f'""_target_"": ""{SPRING}"", ""mujoco"": ""3.3.0""')
    assert SPRING in text
    file.write_text(text.replace("last.ckpt", f"{TRAP}:spring"))
    assert opened(lambda: from_folder(spec, tmp_path / "runs"))


CONFIG: dict[str, Any] = {
    "name": "full",
    "strategy": {"_target_": "vlakit.strategies.full.Full", "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3}},
    "model": {"network": {"kind": "openvla", "vision": "tiny_dinosiglip"}, "processor": {"resize": "resize-naive"}},
    "trainer": {"_target_": "lightning.Trainer", "plugins": [{"_target_": f"{saving.__name__}.AtomicCheckpointIO"}]},
    "tags": {"robot": "widowx"},
    "data": {"mixture": {"my_robot": 1.0}},
}  # fmt: skip


def test_a_configuration_of_elsewhere_holds_plain_values_of_keys_that_conf_has() -> None:
    known = known_targets()
    assert own_targets(CONFIG, "x", known) == CONFIG
    check_keys(CONFIG, "x")
    for tree in planted(CONFIG):
        with pytest.raises(ConfigError):
            own_targets(tree, "x", known)
    for tree in _replaced(CONFIG, "${oc.create:'{_target_: " + SPRING + "}'}"):
        with pytest.raises(ConfigError, match="unresolved"):
            own_targets(tree, "x", known)
    for word in ("_args_", "_partial_", "_recursive_", "_convert_", "defaults", "hydra", "logger_factory"):
        for tree in ({**CONFIG, word: [1]}, {**CONFIG, "trainer": {**CONFIG["trainer"], word: [1]}}):
            with pytest.raises(ConfigError, match=f"{word}' is no key of conf/"):
                check_keys(tree, "x")
    for value in ("${hydra:runtime.cwd}", "${oc.env:HOME}", "${paths.runs}"):
        with pytest.raises(ConfigError, match="unresolved"):
            own_targets({**CONFIG, "tags": {"a": [value]}}, "x", known)


def test_a_sweeps_file_names_no_code(tmp_path: Path) -> None:
    for word in (f"strategy._target_={SPRING}", "+callbacks={x: {_target_: " + SPRING + "}}", "name=${oc.env:HOME}"):
        content = {"hydra": {"overrides": {"task": [word], "hydra": []}, "runtime": {"config_sources": []}}}
        (tmp_path / "multirun.yaml").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match="names code"):
            continued([f"continue={tmp_path}"])


def test_a_passport_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "suite").mkdir(parents=True)
    fake = f"_target_: {FakeSuite.__module__}.FakeSuite\nname: fake\ndataset: fake_dots\nlimit: 4\n"
    (tmp_path / "conf" / "suite" / "fake.yaml").write_text(fake)
    monkeypatch.setenv("VLAKIT_CONFIG_DIR", str(tmp_path / "conf"))
    assert run("evaluate", ["suite=fake", "policy=expert", "episodes=2", f"out={tmp_path / 'e'}"]) == 0
    assert run("passport", [f"run={tmp_path / 'e'}"]) == 0
    file = tmp_path / "e" / "passport" / PASSPORT
    passport = json.loads(file.read_text())
    (evaluation,) = passport["evaluations"]
    assert opened(lambda: Repeat.of(evaluation, (), "x", 0))
    for settings in planted(evaluation["settings"]):
        opened(lambda settings=settings: Repeat.of({**evaluation, "settings": settings}, (), "x", 0))
    evaluation["settings"]["policy"]["control"] = f"{TRAP}:spring"
    training = {"config": _with_targets(CONFIG), "record": {}, "weights": None, "shards": {}}
    for changed in ({**passport, "evaluations": [evaluation]}, {**passport, "training": training}):
        file.write_text(json.dumps(changed))
        assert run("reproduce", [f"passport={file}", f"out={tmp_path / 'again'}"]) == 1
    assert not (tmp_path / "again").exists()
