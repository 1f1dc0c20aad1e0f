"""Videos and contact sheets show what the records say, drawn again from the recorded actions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_suite import FakeSuite, Seeker, states_of
from PIL import Image

from vlakit.errors import InvalidData
from vlakit.evaluation.gallery import CAPTION, chosen, contact_sheet, films, gallery, headline, video
from vlakit.evaluation.records import EpisodeRecord
from vlakit.evaluation.rollout import Options, rollout

SUITE = FakeSuite()
STATES = {state.name: state for state in states_of(SUITE, 4)}
RECORDS = sorted(rollout(SUITE, Seeker(), list(STATES.values()), Options(4)), key=lambda record: record.number)


def test_a_film_is_the_recorded_episode_again() -> None:
    (film,) = films(SUITE, RECORDS[2:3], STATES, size=48)
    assert len(film.pictures) == RECORDS[2].steps + 1
    environment = SUITE.environment()
    environment.reset(STATES[RECORDS[2].initial_state])
    assert np.array_equal(film.pictures[0], environment.picture(48))
    for action in RECORDS[2].trace:
        environment.step(action)
    assert np.array_equal(film.pictures[-1], environment.picture(48))


def test_a_replay_that_ends_otherwise_is_said(caplog: pytest.LogCaptureFixture) -> None:
    films(SUITE, [replace(RECORDS[0], credit=0.5)], STATES, size=16)
    assert "credit 1.0 on replay, 0.5 recorded" in caplog.text


def test_what_is_chosen_shows_all_tasks_whatever_became_of_the_starts() -> None:
    numbers = [record.number for record in chosen(RECORDS, 3)]
    for won in range(len(RECORDS)):
        ends = [replace(record, success=record.number == won) for record in RECORDS]
        assert [record.number for record in chosen(ends, 3)] == numbers
    assert [record.task for record in chosen(RECORDS, 2)] == ["reach", "far"]
    assert len(chosen(RECORDS, 100)) == len(RECORDS)


def test_a_sheet_says_how_its_films_were_chosen_and_how_often_all_succeed(tmp_path: Path) -> None:
    ends = [replace(record, success=record.number < 1) for record in RECORDS[:4]]
    assert headline(ends) == "first starts of each task, however they ended; success of all 4 episodes: 25.0 %"
    shown = films(SUITE, RECORDS[:1], STATES, size=32)
    bare, said = (
        contact_sheet(shown, tmp_path / "a.png"),
        contact_sheet(shown, tmp_path / "b.png", title=headline(ends)),
    )
    with Image.open(bare) as one, Image.open(said) as other:
        assert other.size == (one.size[0], one.size[1] + CAPTION)
        assert np.array_equal(np.asarray(other)[CAPTION + 22 :], np.asarray(one)[22:])
        assert np.asarray(other)[: CAPTION + 4].min() < 100


def test_captions_say_what_was_asked_and_how_it_ended() -> None:
    ends: list[tuple[EpisodeRecord, str]] = [
        (RECORDS[0], f"move to the square  [success, {RECORDS[0].steps} steps]"),
        (replace(RECORDS[0], success=False, credit=0.5), "[failure, credit 0.5"),
        (replace(RECORDS[0], success=False, error="the policy raised X"), "[failed: the policy raised X"),
    ]
    for record, said in ends:
        assert said in films(SUITE, [record], STATES, size=16)[0].caption


def test_the_contact_sheet_has_a_row_an_episode(tmp_path: Path) -> None:
    shown = films(SUITE, RECORDS[:3], STATES, size=32)
    with Image.open(contact_sheet(shown, tmp_path / "sheet.png", columns=5)) as sheet:
        assert sheet.size == (5 * 36 + 4, 3 * 54 + 4)
        pixels = np.asarray(sheet)
    assert np.array_equal(pixels[22:54, 4:36], shown[0].pictures[0])
    assert np.array_equal(pixels[-36:-4, -36:-4], shown[2].pictures[-1])


def test_a_video_plays_the_pictures_in_order(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (film,) = films(SUITE, RECORDS[1:2], STATES, size=64)
    file = video(film, tmp_path / "one.mp4", fps=5)
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == len(film.pictures) + 5
    for frame, picture in zip(frames, film.pictures, strict=False):
        assert np.abs(frame.astype(int) - picture).mean() < 10


def test_the_gallery_names_its_files_by_number_task_and_outcome(tmp_path: Path) -> None:
    pytest.importorskip("av")
    records = [RECORDS[0], replace(RECORDS[1], success=False)]
    files = gallery(films(SUITE, records, STATES, size=32), tmp_path / "videos", 5)
    assert [file.name for file in files] == ["contact_sheet.png", "0000_reach_success.mp4", "0001_far_failure.mp4"]
    assert all(file.stat().st_size > 500 for file in files)


def test_records_of_another_suite_are_refused() -> None:
    with pytest.raises(InvalidData, match="no initial state 'elsewhere'"):
        films(SUITE, [replace(RECORDS[0], initial_state="elsewhere")], STATES)
