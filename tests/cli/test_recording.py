"""What a run notes of itself before it trains."""

from pathlib import Path

from omegaconf import OmegaConf
from tiny_runs import built, saved

from vlakit.cli.recording import build_logger
from vlakit.files import content_hash
from vlakit.processing.tokens import TokenProcessor
from vlakit.strategies.full import Full


def test_a_run_notes_the_hash_of_its_start_and_one_that_resumes_the_first_starts(
    tiny_processor: TokenProcessor, tmp_path: Path
) -> None:
    start = saved(built(Full, tiny_processor), tmp_path / "last.ckpt")
    run = built(Full, tiny_processor, weights=str(tmp_path))  # a run's folder
    assert build_logger(OmegaConf.create({"ckpt_path": None, "logger": {}}), "run", None, run) is None
    noted = content_hash(start)
    last = saved(run, tmp_path / "run.ckpt")
    saved(built(Full, tiny_processor, seed=1), start)
    assert content_hash(start) != noted
    again = built(Full, tiny_processor, weights=str(tmp_path))
    build_logger(OmegaConf.create({"ckpt_path": str(last), "logger": {}}), "run", None, again)
    assert run.run_record["weights_sha256"] == again.run_record["weights_sha256"] == noted
