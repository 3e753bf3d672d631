"""The run folder: nothing is overwritten by accident, every line is JSON, the result is whole or absent."""

import errno
import io
import json
import os

import numpy as np
import pytest
import torch

from agents.rlhf import Loop
from agents.runs import MetricsWriter, Progress, RunFolder, clock
from agents.settings import LoopSettings


def test_a_folder_with_files_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty.*--overwrite"):
        RunFolder(tmp_path)


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    for name in ("thesis.tex", "metrics.jsonl", "result.json"):
        (tmp_path / name).write_text("old")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.zip").write_text("old")
    RunFolder(tmp_path, overwrite=True).start("seed: 1\n")
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "config.yaml"}
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        RunFolder(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match=r"file is a file: .* Name another one"):
        RunFolder(tmp_path / "file" / "below")
    with pytest.raises(NotADirectoryError, match="is a file"):
        Loop(LoopSettings(), tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_named():
    with pytest.raises(OSError, match=r"The folder /proc/run cannot be made: .* Name another one"):
        RunFolder("/proc/run").start("")


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.start("")
    return folder


def test_result_is_strict_json(run):
    run.write_result({"score": np.float32(0.5), "kl": float("nan"), "seeds": (np.int64(1), 2)})
    assert json.loads(run.result.read_text(), parse_constant=pytest.fail) == {
        "score": 0.5,
        "kl": None,
        "seeds": [1, 2],
    }


def test_a_result_that_json_cannot_hold_is_an_error_and_leaves_no_file(run):
    with pytest.raises(TypeError, match="set"):
        run.write_result({"score": {1}})
    assert list(run.path.iterdir()) == [run.config]


def test_a_full_disk_leaves_the_old_result(run, monkeypatch):
    run.write_result({"score": 1})

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        run.write_result({"score": 2})
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "result.json"}
    assert json.loads(run.result.read_text()) == {"score": 1}


def test_each_dump_is_one_line_of_numbers(run):
    logger = run.logger(tensorboard=False)
    for step in (10, 20):
        logger.record("objective/scores", np.float32(0.5))
        logger.record("train/loss", torch.tensor([2.0]))
        logger.record("train/explained_variance", float("nan"))
        logger.record("train/n_updates", 4, exclude="tensorboard")
        logger.record("note", "words")
        logger.dump(step)
        line = run.metrics.read_text().splitlines()[-1]  # flushed already
        row = json.loads(line, parse_constant=pytest.fail)
        assert row.pop("wall_time") >= 0
        assert row == {
            "num_timesteps": step,
            "n_updates": 4,
            "objective/scores": 0.5,
            "train/loss": 2.0,
            "train/explained_variance": None,
            "train/n_updates": 4,
        }


def test_metrics_are_appended(tmp_path):
    for _ in range(2):
        writer = MetricsWriter(tmp_path / "metrics.jsonl")
        writer.write({"a": 1}, {"a": ()}, 1)
        writer.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_tensorboard_events_are_written(run):
    logger = run.logger()
    logger.record("objective/scores", 0.5)
    logger.dump(1)
    logger.close()
    assert [path.name.split(".")[0] for path in run.tensorboard.iterdir()] == ["events"]


def test_progress_says_the_first_line_and_the_last_and_few_between():
    file = io.StringIO()
    progress = Progress(100, seconds=60, file=file)
    for step in (10, 20, 30):
        values = {"objective/scores": 0.5, "objective/kl": 1.25}
        progress.write(values, dict.fromkeys(values, ()), step)
    progress.close()
    first, last = file.getvalue().splitlines()
    assert first.startswith("update    1    10% of 100 tokens   score 0.50   KL 1.25   ")
    assert last.startswith("update    3    30% of 100 tokens")


@pytest.mark.parametrize(
    "seconds, text", [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (float("nan"), "?")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
