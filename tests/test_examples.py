"""Each example runs, on a budget of seconds."""

import importlib.util
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
BUDGET = dict(n_episodes=4, batch_size=2, n_epochs=1, device="cpu")


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_01_random_policy(capsys):
    scores = load("01_random_policy").main(episodes=2)
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)
    assert capsys.readouterr().out.count("ended by") == 2


def test_02_custom_reward(capsys):
    example = load("02_custom_reward")
    model = example.main(total_timesteps=1, **BUDGET)
    last = model.rollout_buffer.episodes[-1]
    assert last.score == example.brief_apology([last.completion])[0]
    assert "score" in capsys.readouterr().out  # the table


def test_03_text_ppo(tmp_path):
    reply = load("03_text_ppo").main(str(tmp_path), total_timesteps=1, **BUDGET)
    assert isinstance(reply, str)
    assert (tmp_path / "checkpoint.zip").is_file() and (tmp_path / "config.json").is_file()


def test_07_stock_sb3():
    assert 0 <= load("07_stock_sb3").main(total_timesteps=512) <= 1
