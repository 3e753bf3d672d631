"""Samples that people can read safely, and a stop that keeps what was learned."""

import io
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.callbacks import SampleTable, SaveEvery, stop_on_signals, visible


def episode(prompt, response, score, kl):
    completion = SimpleNamespace(prompt=prompt, response=response, finish_reason="eos")
    return SimpleNamespace(completion=completion, score=score, kl=kl)


def run(callback, rollouts, folder):
    """Drive the callback as `learn` does, over lists of episodes; returns what it printed."""
    console = Console(file=io.StringIO(), width=120)
    callback.console = console
    logger = Logger(str(folder), [TensorBoardOutputFormat(str(folder))])
    model = SimpleNamespace(
        num_timesteps=0, logger=logger, get_env=lambda: None, rollout_buffer=SimpleNamespace(episodes=[])
    )
    callback.init_callback(model)
    callback.on_training_start({}, {})
    for episodes in rollouts:
        model.rollout_buffer.episodes = episodes
        model.num_timesteps += 10
        callback.num_timesteps = model.num_timesteps
        callback.on_rollout_end()
    callback.on_training_end()
    logger.close()
    return console.file.getvalue()


def test_samples_go_to_the_terminal_the_file_and_tensorboard(tmp_path):
    path = tmp_path / "samples.jsonl"
    printed = run(
        SampleTable(n=1, path=path), [[episode("Hi |", "[red]yo[/]", 0.5, 1.25)] * 3], tmp_path / "tb"
    )
    for word in ("Hi |", "[red]yo[/]", "0.500", "1.25", "rollout 1, 10 tokens"):
        assert word in printed
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "rollout": 1,
            "num_timesteps": 10,
            "prompt": "Hi |",
            "response": "[red]yo[/]",
            "finish_reason": "eos",
            "score": 0.5,
            "kl": 1.25,
        }
    ]
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    (text,) = events.Tensors("samples/text_summary")
    assert b"| Hi &#124; | [red]yo[/] | 0.500 | 1.25 |" in text.tensor_proto.string_val[0]


def test_every_second_rollout_and_always_the_last(tmp_path):
    path = tmp_path / "samples.jsonl"
    rollouts = [[episode("p", f"r{i}", 0.0, 0.0)] for i in range(1, 5)]
    run(SampleTable(every=2, path=path, show=False), rollouts, tmp_path / "tb")
    assert [json.loads(line)["response"] for line in path.read_text().splitlines()] == ["r1", "r3", "r4"]


def test_broken_unicode_is_written_and_shown(tmp_path):
    path = tmp_path / "samples.jsonl"
    printed = run(SampleTable(path=path), [[episode("p", "a\ud800\x1b[31mb", 0.0, 0.0)]], tmp_path / "tb")
    assert "a��[31mb" in printed
    assert json.loads(path.read_text())["response"] == "a\ud800\x1b[31mb"


def test_visible_keeps_lines_and_letters():
    assert visible("é\n日本\t\u202eabc\x00") == "é\n日本\t�abc�"


def test_no_samples_to_show_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        SampleTable(every=0)


class Model:
    stops = 0
    interruptible = False

    def stop(self):
        self.stops += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_the_model_to_stop(number):
    model, before = Model(), signal.getsignal(number)
    with stop_on_signals(model) as stopped:
        assert not stopped
        os.kill(os.getpid(), number)
        assert stopped.number == number and model.stops == 1
    assert signal.getsignal(number) == before


def test_the_second_ctrl_c_interrupts():
    model = Model()
    with pytest.raises(KeyboardInterrupt), stop_on_signals(model):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert model.stops == 1


def test_what_waits_longer_than_patience_is_interrupted():
    model = Model()
    model.interruptible = True
    with stop_on_signals(model, patience=0.01) as stopped:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(3600)
    assert stopped.number == signal.SIGTERM and model.stops == 1


def test_it_is_interrupted_only_where_that_does_no_harm():
    model, done = Model(), []
    with stop_on_signals(model, patience=0.01):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.3)
        done.append("optimiser step")
        model.interruptible = True
        time.sleep(3600)
        done.append("never")
    assert done == ["optimiser step"]


def test_errors_pass_and_the_handlers_are_restored():
    before, n_threads = signal.getsignal(signal.SIGTERM), threading.active_count()
    with pytest.raises(ZeroDivisionError), stop_on_signals(Model()):
        1 / 0  # noqa: B018
    assert signal.getsignal(signal.SIGTERM) == before and threading.active_count() == n_threads


def test_the_model_is_saved_between_rollouts(tmp_path):
    saved = []
    callback = SaveEvery(2, tmp_path / "last.zip")
    callback.model = SimpleNamespace(save=saved.append)
    for rollout in range(1, 6):
        callback.on_rollout_start()
        assert len(saved) == {1: 0, 2: 0, 3: 1, 4: 1, 5: 2}[rollout]  # after two whole rollouts, after four
    assert saved == [tmp_path / "last.zip"] * 2
