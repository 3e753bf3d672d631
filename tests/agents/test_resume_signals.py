"""SIGTERM and Ctrl-C while generating, learning, judging, evaluating, waiting: training ends, and goes on exactly."""

import os
import signal
import threading
import time

import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from agents.callbacks import SaveEvery
from agents.commands import train
from agents.envs import as_vec_env
from reward_models import make
from tests.agents.helpers import letters_env
from tests.agents.test_resume import Run, StopAt, assert_same


def letters_a(completions):
    return [float(c.response.count("a")) for c in completions]


class HangsOnce:
    """The reward of `letters_env`, which sends SIGTERM and then hangs at one of its batches."""

    def __init__(self, batch: int, hangs: bool = True):
        self.batch, self.hangs, self.seen = batch, hangs, 0

    def __call__(self, completions):
        self.seen += 1
        if self.hangs and self.seen == self.batch:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(3600)
        return letters_a(completions)


class SignalAt(StopAt):
    """Sends a signal where `StopAt` stops; what is then done may take an hour."""

    def __init__(self, point: str, n: int, number=signal.SIGTERM, hangs: bool = False):
        super().__init__(point, n)
        self.number, self.hangs = number, hangs

    def _count(self, point: str) -> None:
        self.seen += point == self.point
        if point == self.point and self.seen == self.n:
            self.reached = True
            signal.raise_signal(self.number)
            time.sleep(3600 * self.hangs)


def learn(run: Run, callbacks=()):
    """`agents.commands.train` on the run; the signal that ended it."""
    run.model.set_logger(run.folder.logger(tensorboard=False))
    chosen = [*run.callbacks(), *callbacks]
    stopped, _ = train(run.model, run.total, chosen, run.folder.last_checkpoint)
    return stopped.number


def result(run: Run):
    run.folder.samples.touch()
    result = run.result()
    names = [name for name in result["moment"]["callbacks"] if name.startswith(("Signal", "CallbackList"))]
    for name in names:
        del result["moment"]["callbacks"][name]
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("whole"))
    assert learn(run) is None
    return result(run)


@pytest.mark.parametrize(
    "point, n, hangs, number",
    [
        ("token", 9, False, signal.SIGINT),
        ("token", 9, False, signal.SIGTERM),
        ("token", 14, True, signal.SIGTERM),
        ("loss", 8, False, signal.SIGTERM),
        ("loss", 11, True, signal.SIGTERM),
        ("rollout end", 2, True, signal.SIGTERM),
    ],
)
def test_a_signal_while_generating_and_learning(whole, tmp_path, point, n, hangs, number):
    run = Run(tmp_path)
    callback = SignalAt(point, n, number, hangs)
    assert learn(run, [callback]) == number and callback.reached
    run.load(run.folder.last_checkpoint)
    assert learn(run) is None
    assert_same(result(run), whole)


def test_a_signal_while_a_reward_hangs(whole, tmp_path):
    run = Run(tmp_path, env=lambda: letters_env(reward_model=HangsOnce(3)))
    assert learn(run) == signal.SIGTERM
    run.make_env = letters_env
    assert learn(run.load(run.folder.last_checkpoint)) is None
    assert_same(result(run), whole)


def test_a_signal_while_a_guarded_reward_hangs(tmp_path):
    guarded = make({"name": "guarded", "reward": lambda _: __import__("time").sleep(3600), "timeout": 3600.0})
    run = Run(tmp_path, env=lambda: letters_env(reward_model=guarded))

    def kill_when_it_waits():
        while guarded._worker is None or not guarded._was_made:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill_when_it_waits)
    killer.start()
    assert learn(run) == signal.SIGTERM
    killer.join()
    assert guarded._worker is None, "its process is ended"
    whole = Run(tmp_path / "whole")
    learn(whole)
    run.make_env = letters_env
    assert learn(run.load(run.folder.last_checkpoint)) is None
    assert_same(result(run)["weights"], result(whole)["weights"])


def test_a_signal_while_evaluating(tmp_path):
    def callbacks(hangs: bool):
        env = as_vec_env(letters_env(reward_model=HangsOnce(7, hangs)), 2)
        env.seed(3)
        return [EvalCallback(env, n_eval_episodes=3, eval_freq=5, deterministic=False, verbose=0, warn=False)]

    whole = Run(tmp_path / "whole", callbacks=lambda: callbacks(hangs=False))
    assert learn(whole) is None
    run = Run(tmp_path / "run", callbacks=lambda: callbacks(hangs=True))
    assert learn(run) == signal.SIGTERM
    run.callbacks = lambda: callbacks(hangs=False)
    assert learn(run.load(run.folder.last_checkpoint)) is None
    assert_same(result(run), result(whole))


class SignalWhileSaving(BaseCallback):
    def __init__(self, monkeypatch):
        super().__init__()
        self.monkeypatch = monkeypatch

    def _on_step(self) -> bool:
        return True

    def _on_training_start(self) -> None:
        fsync = os.fsync

        def interrupted(handle):
            if not interrupted.done:
                interrupted.done = True
                signal.raise_signal(signal.SIGTERM)
            return fsync(handle)

        interrupted.done = False
        self.monkeypatch.setattr(os, "fsync", interrupted)


def test_a_signal_while_saving(whole, tmp_path, monkeypatch):
    run = Run(tmp_path, callbacks=lambda: [SaveEvery(1, tmp_path / "every.zip")])
    with monkeypatch.context() as patch:
        assert learn(run, [SignalWhileSaving(patch)]) == signal.SIGTERM
    for path in (tmp_path / "every.zip", run.folder.last_checkpoint):
        again = Run(tmp_path / path.stem)
        assert again.load(path).model.num_timesteps > 0
    assert learn(run.load(run.folder.last_checkpoint)) is None
    assert_same(result(run)["weights"], whole["weights"])


def test_a_signal_while_the_last_checkpoint_is_written(whole, tmp_path, monkeypatch):
    run = Run(tmp_path)
    save = run.model.save

    def interrupted(path):
        signal.raise_signal(signal.SIGTERM)
        save(path)

    monkeypatch.setattr(run.model, "save", interrupted)
    assert learn(run) == signal.SIGTERM
    run.load(run.folder.last_checkpoint)
    assert run.model.num_timesteps >= run.total
    assert_same(result(run)["weights"], whole["weights"])
