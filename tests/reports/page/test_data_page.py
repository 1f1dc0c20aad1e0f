"""The page of what a model will see: its numbers are those of the data, its pictures those of the processor."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import complaint, report, says
from data.array_cases import robomimic
from pages import CHROMIUM, chromium

from vlakit.data.shards.convert import convert
from vlakit.data.shards.reader import SampleRef, ShardFolder
from vlakit.data.shards.summary import BINS, near_duplicates
from vlakit.data.specs.spec import load_spec
from vlakit.processing.images import decode_jpeg
from vlakit.processing.normalizer import normalize
from vlakit.processing.tokens import TokenProcessor
from vlakit.reports.page.data_page import DataPage, write_data_page

HOSTILE = "<script>window.spoilt = 1</script><img src=x onerror='window.spoilt = 1'>"
HOSTILE += "A" * 300


@pytest.fixture(scope="module")
def written(bridge_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, DataPage, ShardFolder]:
    from vlakit.processing.settings import TokenSettings

    folder, file = ShardFolder.open(bridge_shards), tmp_path_factory.mktemp("page") / "deep/page.html"
    settings = TokenSettings(image_size=64, channel_statistics=("imagenet", "half"), tokenizer="words")
    page = write_data_page(file, folder, TokenProcessor(settings), model="tiny", n_frames=5)
    return file.read_text(), page, folder


def all_actions(folder: ShardFolder) -> np.ndarray:
    refs = [(row.shard, row.first_frame, row.n_frames) for split in folder.splits for row in folder.episodes(split)]
    samples = [folder.read_sample(SampleRef(folder.dataset, s, f), chunk=n, cameras=()) for s, f, n in refs]
    return np.concatenate([sample.actions for sample in samples])


def test_it_loads_nothing_and_shows_what_it_was_asked_for(written: tuple[str, DataPage, ShardFolder]) -> None:
    text, page, _ = written
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "<script" not in text
    assert text.isascii()
    assert text.count("data:image/jpeg;base64") == len(page.frames) == 5
    for heading in ("Frames", "Histograms of the action", "Lengths of the episodes", "Near-duplicate instructions"):
        assert f"<h2>{heading}</h2>" in text
    assert all(frame.instruction in text and frame.ids in text for frame in page.frames)


def test_histograms_count_every_frame_and_clipping_is_what_lies_beyond_the_quantiles(
    written: tuple[str, DataPage, ShardFolder],
) -> None:
    _, page, folder = written
    found, actions, statistics = page.summary, all_actions(folder), folder.statistics
    assert found.n_frames == len(actions) == 200
    assert found.counts.shape == (7, BINS)
    assert found.counts.sum(axis=1).tolist() == [200] * 7
    beyond = ((actions < statistics.q01) | (actions > statistics.q99)) & statistics.mask
    assert found.outside.tolist() == pytest.approx(beyond.mean(axis=0).tolist())
    lost = np.abs(actions - np.clip(actions, statistics.q01, statistics.q99))[:, :6].max(axis=0)
    assert found.lost[:6].tolist() == pytest.approx(lost.tolist())
    assert (found.lengths.sum(), len(found.lengths)) == (200, 25)
    assert sum(found.instructions.values()) == 25


def test_tokens_stand_beside_the_actions_that_they_come_back_as(written: tuple[str, DataPage, ShardFolder]) -> None:
    _, page, folder = written
    width = (folder.statistics.q99 - folder.statistics.q01)[:6] / 255
    for frame in page.frames:
        assert len(frame.ids.split()) == 7
        inside = np.abs(normalize(frame.action, folder.statistics))[:6] < 1
        assert (np.abs(frame.decoded - frame.action)[:6][inside] <= width[inside]).all()
    most = width + page.summary.outside[:6] * page.summary.lost[:6]  # of a token, and of what is clipped
    assert (page.summary.error[:6] <= most).all()
    assert (page.summary.worst[:6] <= page.summary.lost[:6] + width).all()


def test_a_picture_is_what_the_first_tower_gets(tiny_processor: TokenProcessor, bridge_shards: Path) -> None:
    folder = ShardFolder.open(bridge_shards)
    sample = folder.read_sample(SampleRef(folder.dataset, 0, 3))
    image = decode_jpeg(sample.images["primary"][0])
    seen = tiny_processor.shown(tiny_processor.observed_pixels(image))
    assert np.array_equal(seen, tiny_processor.resize(image, 64, tiny_processor.fills[0]))


def test_texts_that_may_be_one_are_paired_and_others_are_not() -> None:
    texts = ["Put the carrot on the plate.", "put the carrot on the  plate", "put the carrots on the plate", "fold it"]
    found = {(pair.a, pair.b): pair.differ for pair in near_duplicates(texts)}
    assert found == {
        (texts[0], texts[1]): "case, spaces or punctuation",
        (texts[0], texts[2]): "carrot / carrots",
        (texts[1], texts[2]): "carrot / carrots",
    }


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose instructions are markup: two that differ in a dot."""
    folder = tmp_path_factory.mktemp("hostile")
    source = robomimic(folder / "source", told=None)
    with h5py.File(source / "low_dim.hdf5", "r+") as file:
        for dot, demo in zip(("", ".", ""), file["data"].values(), strict=True):  # type: ignore[union-attr]
            demo.attrs["language_instruction"] = HOSTILE + dot
    (folder / "mine.yaml").write_text(
        "images: {primary: agentview_image}\nlanguage: language_instruction\naction: [action]\n"
    )
    convert(source, folder / "shards", load_spec(folder / "mine.yaml"), val_fraction=0.0)
    return folder / "shards"


def test_text_of_others_stays_text(hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    found = report(capsys, "data", "show", hostile, f"out={out}", "frames=3")
    assert (found["frames"], found["episodes"], len(found["near_duplicates"])) == (18, 3, 1)
    text = out.read_text()
    assert "<script" not in text
    assert "onerror='" not in text
    assert "&lt;script&gt;window.spoilt" in text
    assert text.count("data:image/jpeg;base64") == 6  # as seen, and as training augments it


def test_what_is_no_shard_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says(complaint(capsys, "data", "show", tmp_path), tmp_path)
    assert not (tmp_path / "data.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_a_browser_loads_nothing_complains_of_nothing_and_scrolls_no_page_sideways(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(capsys, "data", "show", hostile, f"out={tmp_path / 'page.html'}", "frames=3")
    with chromium(tmp_path / "profile") as browser:
        for width in (1280, 500, 390):
            browser.open(tmp_path / "page.html", width)
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert browser.complaints == []
            assert sum(url.startswith("file") for url in browser.asked) == 1
            assert {url.partition(":")[0] for url in browser.asked} == {"file", "data"}
            assert browser.value("window.spoilt === undefined")
            sizes = "[...document.querySelectorAll('text, td')].map(e => parseFloat(getComputedStyle(e).fontSize))"
            assert min(browser.value(sizes)) >= 11
