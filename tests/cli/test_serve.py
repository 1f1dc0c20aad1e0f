"""`vlakit serve`: what cannot be served is said before a weight is read; a real process serves and ends on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from fake_suite import FakeSuite, Seeker, states_of
from pages import CHROMIUM, chromium
from places import ROOT
from servers import FACTS, Mean, service_of

from vlakit.cli.configuration import verb_config
from vlakit.cli.serve import cameras_of, check_request, dialects_of, elsewhere, main, ports_of, subject_of
from vlakit.cli.serve import service_of as configured
from vlakit.errors import ConfigError, UnknownName, VlakitError
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.rollout import Options, rollout
from vlakit.serving.subjects import Facts, PolicySubject, RecordedSubject

WRONG = {
    "nothing to serve": [],
    "two things to serve": ["ckpt=tiny", "policy=expert"],
    "an expert without a suite": ["policy=expert"],
    "a policy that is none": ["policy=oracle"],
    "no rows": ["ckpt=tiny", "rows=0"],
    "half a row": ["ckpt=tiny", "batch_rows=1.5"],
    "text for a number": ["ckpt=tiny", "timeout_s=soon"],
    "a queue and an ensemble": ["ckpt=tiny", "queue=2", "ensemble=0.1"],
    "a generation that is none": ["ckpt=tiny", "generation=n2"],
    "no question in a second": ["ckpt=tiny", "rate=0"],
    "fewer bits of an expert": ["policy=expert", "suite=tabletop_d0", "quantize=int8"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_what_cannot_be_served_is_said_before_a_weight_is_read(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        check_request(verb_config("serve", words))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["dialect=openpy"], "openpi"),
        (["dialect={openpi: 70000}"], "port 70000"),
        (["dialect=[openpi, openvla]"], "port 8000 is given twice"),
        (["dialect={openpi: 1, openvla: 2}", "port=3"], "port=3 beside"),
        (["dialect={openpi: 1}", "port=3"], "port=3 beside"),
        (["dialect=[openpi, openvla]", "port=3"], "port=3 beside"),
        (["dialect=[openpi, openpi]"], "each once"),
        (["dialect={}"], "name one"),
    ],
)
def test_ports_and_dialects_that_cannot_be_are_said(words: list[str], what: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=what) as raised:
        ports_of(verb_config("serve", words))
    assert isinstance(raised.value, VlakitError)


def test_each_dialect_has_the_port_where_its_own_client_looks() -> None:
    assert ports_of(verb_config("serve", [])).ports == {"openpi": 8000}
    words = ["dialect={openvla: 8000, gr00t: 5555}"]
    assert ports_of(verb_config("serve", words)).ports == {"openvla": 8000, "gr00t": 5555}
    assert ports_of(verb_config("serve", ["dialect=[gr00t, starvla]"])).ports == {"gr00t": 5555, "starvla": 10093}
    assert verb_config("serve", [])["host"] == "127.0.0.1"


def test_cameras_are_as_given_else_as_the_dialects_client_names_them_else_their_own_name() -> None:
    facts, usual = Facts("x", ("primary", "wrist", "left")), {"primary": "image", "wrist": "wrist_image"}
    assert cameras_of(None, "openvla", usual, facts) == {"primary": "image", "wrist": "wrist_image", "left": "left"}
    assert cameras_of({"primary": "front"}, "openvla", usual, facts)["primary"] == "front"
    assert cameras_of({"openvla": {"left": "l"}, "openpi": {"left": "r"}}, "openvla", usual, facts)["left"] == "l"
    with pytest.raises(ConfigError, match="no camera 'primry'") as raised:
        cameras_of({"primry": "front"}, "openvla", usual, facts)
    assert "primary" in raised.value.do
    with pytest.raises(ConfigError, match="two cameras of the policy look at 'image'"):
        cameras_of({"left": "image"}, "openvla", usual, facts)
    with pytest.raises(UnknownName, match="openpii"):
        cameras_of({"openpii": {"left": "l"}}, "openvla", usual, facts)
    for wrong in ({"left": None}, {"openvla": {"left": "l"}, "primary": "image"}):
        with pytest.raises((ConfigError, UnknownName)):
            cameras_of(wrong, "openvla", usual, facts)


def test_the_first_camera_is_the_clients_main_one_whatever_it_is_called() -> None:
    aloha = Facts("x", ("primary", "left_wrist", "right_wrist"))
    assert list(cameras_of(None, "starvla", {"primary": "0", "wrist": "1"}, aloha).values()) == ["0", "1", "2"]
    droid = Facts("x", ("exterior", "wrist"))
    usual = {"primary": "observation/image", "wrist": "observation/wrist_image"}
    assert list(cameras_of(None, "openpi", usual, droid).values()) == list(usual.values())
    assert cameras_of(None, "gr00t", {}, droid) == {"exterior": "exterior", "wrist": "wrist"}


def test_a_queue_longer_than_the_chunk_is_refused() -> None:
    with pytest.raises(ConfigError, match="queue=4 of chunks of 3"):
        configured(verb_config("serve", ["ckpt=x", "queue=4"]), PolicySubject(Mean(), FACTS))


def test_several_datasets_want_one_named_where_clients_cannot() -> None:
    several = PolicySubject(Mean(), Facts("x", datasets=("a", "b")))
    cfg = verb_config("serve", [])
    with pytest.raises(ConfigError, match="whose statistics") as raised:
        dialects_of(cfg, service_of(several), ["openpi"])
    assert "a, b" in raised.value.do
    assert set(dialects_of(cfg, service_of(several), ["openvla", "starvla"])) == {"openvla", "starvla"}


def test_recorded_episodes_are_read_from_an_evaluation(tmp_path: Path) -> None:
    records = list(rollout(FakeSuite(), Seeker(), states_of(FakeSuite(), 1), Options(1)))
    lines = "".join(json.dumps(vars(one)) + "\n" for one in records)
    (tmp_path / "episodes.jsonl").write_text(lines)
    (tmp_path / "evaluation.json").write_text(json.dumps({"settings": {}}))
    subject: Any = subject_of(verb_config("serve", ["policy=recorded", f"recording={tmp_path}"]))
    assert isinstance(subject, RecordedSubject)
    assert [type(one) for one in subject.records] == [EpisodeRecord] * 2


def started(tmp_path: Path, *words: str) -> tuple[subprocess.Popen[str], dict[str, int]]:
    command = [sys.executable, "-m", "vlakit", "serve", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    line = server.stdout.readline() if server.stdout else ""
    assert line.startswith("serving"), (tmp_path / "log").read_text()
    places = line.split(": ", 1)[1].split(", ")
    return server, {one.split()[0]: int(one.rpartition(":")[2]) for one in places}


WORKERS = """
import sys, time, psutil, torch
from vlakit.cli.serve import elsewhere
threads = psutil.Process().num_threads
before = threads()
compute = lambda: float(torch.ones(1 << 22).exp().sum())
elsewhere(compute) if sys.argv[1] == "elsewhere" else compute()
until = time.monotonic() + 5
while threads() > before and time.monotonic() < until:
    time.sleep(0.01)
print(threads() - before)
"""


@pytest.mark.parametrize(("where", "left"), [("here", True), ("elsewhere", False)])
def test_a_policy_that_was_read_elsewhere_leaves_no_worker_beside_those_that_answer(where: str, left: bool) -> None:
    words = [sys.executable, "-c", WORKERS, where]
    said = subprocess.check_output(words, env={**os.environ, "OMP_NUM_THREADS": "4"}, text=True)
    assert (int(said) > 0) == left


@pytest.mark.parametrize(("verb", "policy"), [("serve", "None"), ("evaluate", "PASSIVE"), ("", "PASSIVE")])
def test_openmp_workers_of_a_server_wait_for_work_and_those_of_other_commands_sleep(verb: str, policy: str) -> None:
    script = "import vlakit.cli, os; print(os.environ.get('OMP_WAIT_POLICY'))"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    said = subprocess.check_output([sys.executable, "-c", script, *verb.split()], text=True, env=environment)
    assert said.strip() == policy


def test_what_reading_a_policy_raises_is_raised_where_it_was_asked_for() -> None:
    def no_weights() -> None:
        raise ConfigError("no weights", where="somewhere", do="look elsewhere")

    with pytest.raises(ConfigError, match="no weights"):
        elsewhere(no_weights)
    assert elsewhere(lambda: 3) == 3


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_shipped_policy_serves_two_dialects_and_ends_in_good_order(tmp_path: Path) -> None:
    server, ports = started(tmp_path, "ckpt=tiny", "dialect={openpi: 0, openvla: 0}", "dataset=tabletop_d0")
    try:
        for port in ports.values():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/info", timeout=30) as reply:
                assert json.loads(reply.read())["dataset"] == "tabletop_d0"
        with pytest.raises(ConfigError, match=f"port {ports['openpi']} is in use"):
            main(["ckpt=no_such_checkpoint", f"port={ports['openpi']}"])
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_the_page_shows_the_last_questions_live_in_a_real_browser(tmp_path: Path) -> None:
    import numpy as np

    from vlakit.serving.arrays import to_json

    server, ports = started(tmp_path, "ckpt=tiny", "dialect=openvla", "port=0", "dataset=tabletop_d0")
    try:
        hostile = "<img src=x onerror='window.spoilt = 1'> lift the pot"
        asked = {"image": np.full((64, 64, 3), 90, np.uint8), "instruction": hostile}
        url = f"http://127.0.0.1:{ports['openvla']}"
        with chromium(tmp_path / "profile") as browser:
            browser.open(f"{url}/", 390)
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/act", to_json(asked).encode()), timeout=60
            ) as one:
                assert one.status == 200
            end = time.monotonic() + 15
            while hostile.lower() not in str(browser.value("document.body.innerText")) and time.monotonic() < end:
                time.sleep(0.3)
            assert hostile.lower() in str(browser.value("document.body.innerText"))
            assert browser.value("document.querySelectorAll('#recent img').length") == 1
            assert browser.value("document.querySelectorAll('#latency tr').length") == 1
            assert not browser.value("window.spoilt || 0")
            assert browser.value("document.documentElement.scrollWidth") <= 390
            assert browser.complaints == []
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def test_help_says_what_each_key_means(capsys: pytest.CaptureFixture[str]) -> None:
    from vlakit.cli.app import run_verb

    run_verb("serve", ["--help"])
    printed = capsys.readouterr().out
    assert "dialect: openpi" in printed
    with pytest.raises(ConfigError, match="'dialekt' is no key"):
        main(["dialekt=openpi"])
