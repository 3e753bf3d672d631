"""A disk that fails, at each single operation of saving: the previous checkpoint is never lost."""

import errno
import io
import os
from pathlib import Path

import pytest

from agents import checkpoint
from agents.callbacks import SaveEvery
from agents.ppo import TextPPO
from reward_models import files
from tests.agents.helpers import letters_env, small_lm
from tests.agents.test_resume import Run, assert_same


class Disk:
    """Lets `fails_at - 1` operations pass and fails at the next one: a full disk, which took half of what was written."""

    def __init__(self, monkeypatch, fails_at: int | None = None, number: int = errno.ENOSPC):
        self.fails_at, self.number, self.done = fails_at, number, list[str]()
        monkeypatch.setattr(files, "open", self._open, raising=False)
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def count(self, operation: str) -> None:
        self.done.append(operation)
        if len(self.done) == self.fails_at:
            raise OSError(self.number, os.strerror(self.number))

    def _counted(self, name, function):
        def counted(*args, **kwargs):
            self.count(name)
            return function(*args, **kwargs)

        return counted

    def _open(self, path, mode):
        self.count("open")
        return FailingFile(self, path, mode)


class FailingFile(io.FileIO):
    def __init__(self, disk: Disk, path, mode):
        super().__init__(path, mode)
        self.disk = disk

    def write(self, data):
        try:
            self.disk.count("write")
        except OSError:
            super().write(bytes(data)[: len(data) // 2])
            raise
        return super().write(data)

    def flush(self):
        if not self.closed:
            self.disk.count("flush")
        return super().flush()

    def close(self):
        if not self.closed:
            try:
                self.disk.count("close")
            finally:
                super().close()


@pytest.fixture(scope="module")
def two_states(tmp_path_factory):
    """A model, the checkpoint of an earlier state of it, and the checkpoint of the present one, as bytes."""
    folder = tmp_path_factory.mktemp("states")
    model = TextPPO(
        "CausalLMPolicy", letters_env(), n_episodes=4, n_epochs=1, seed=0, device="cpu",
        policy_kwargs=dict(model=small_lm()),
    )  # fmt: skip
    model.learn(20).save(folder / "old.zip")
    model.learn(20, reset_num_timesteps=False).save(folder / "new.zip")
    return model, (folder / "old.zip").read_bytes(), (folder / "new.zip").read_bytes()


def operations_of_a_save(model, path, monkeypatch) -> list[str]:
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        model.save(path)
    return disk.done


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_no_failing_operation_loses_the_previous_checkpoint(two_states, tmp_path, monkeypatch, number):
    model, old, new = two_states
    path = tmp_path / "last.zip"
    operations = operations_of_a_save(model, path, monkeypatch)
    assert {"open", "write", "flush", "fsync", "close", "replace"} <= set(operations) and len(operations) > 30
    renamed = operations.index("replace") + 1
    for n in range(1, len(operations) + 1):
        path.write_bytes(old)
        with monkeypatch.context() as patch, pytest.raises(OSError):
            Disk(patch, n, number)
            model.save(path)
        # What fails after the rename is the flush of the folder: the new file is whole, and in place.
        assert path.read_bytes() == (old if n <= renamed else new), operations[n - 1]
        assert os.listdir(tmp_path) == ["last.zip"]


def test_one_file_is_always_loadable_where_there_was_none(two_states, tmp_path, monkeypatch):
    model, _, new = two_states
    path = tmp_path / "last.zip"
    for n in (1, 5, 30):
        with monkeypatch.context() as patch, pytest.raises(OSError):
            Disk(patch, n)
            model.save(path)
        assert os.listdir(tmp_path) == []
    model.save(path)
    assert path.read_bytes() == new and checkpoint.read(path)


def test_a_run_whose_disk_was_full_goes_on_when_it_is_not(tmp_path, monkeypatch):
    def saving(folder: Path):
        return lambda: [SaveEvery(1, folder / "last.zip")]

    def result(run: Run):
        result = run.result()
        del result["moment"]["callbacks"]["SaveEvery 0"]
        return result

    whole = result(Run(tmp_path / "whole", callbacks=saving(tmp_path / "whole")).learn())
    for n in (100,):  # in the second checkpoint
        run = Run(tmp_path / str(n), callbacks=saving(tmp_path / str(n)))
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            Disk(patch, n)
            run.learn()
        run.load(tmp_path / str(n) / "last.zip")
        assert 0 < run.model.num_timesteps < run.total
        assert_same(result(run.learn()), whole)
