"""Each example runs, on a budget of seconds."""

import importlib.util
from pathlib import Path

import pytest

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


def test_04_reward_from_preferences(tmp_path):
    found = load("04_reward_from_preferences").main(
        None, str(tmp_path / "reward"), n=40, steps=1, epochs=1, **BUDGET
    )
    assert 0 <= found.accuracy.value <= 1
    assert (tmp_path / "reward" / "model.safetensors").is_file()


def test_05_people_in_the_loop(tmp_path):
    from reward_models import make
    from reward_models.preferences.client import HTTPClient
    from reward_models.preferences.raters import SimulatedRater

    def rate(address):
        with HTTPClient(address, "Ann") as desk:
            SimulatedRater(make("length", target=20), name="Ann").rate(desk)

    export = load("05_people_in_the_loop").main(3, str(tmp_path), port=0, raters=rate)
    assert 0 < export.rows <= 3 and (tmp_path / "comparisons.jsonl").is_file()


def test_06_whole_loop(tmp_path, capsys):
    from agents.settings import EvaluationSettings, PPOSettings, RewardSettings, SampleSettings

    result = load("06_whole_loop").main(
        str(tmp_path),
        rounds=1,
        samples=SampleSettings(prompts=20),
        reward=RewardSettings(epochs=1),
        ppo=PPOSettings(total_timesteps=100, n_episodes=4),
        evaluation=EvaluationSettings(prompts=8),
        device="cpu",
    )
    assert 0 <= result["stages"]["round-1/evaluate"]["scores"]["gold"]["mean"] <= 1
    assert "gold score" in capsys.readouterr().out and (tmp_path / "report.html").is_file()


def test_08_trl_grpo_with_our_reward(tmp_path):
    pytest.importorskip("trl")
    rewards = load("08_trl_grpo_with_our_reward").main(
        str(tmp_path), steps=1, per_device_train_batch_size=4, num_generations=2, max_completion_length=8
    )
    assert len(rewards) == 1 and (tmp_path / "model.safetensors").is_file()


def test_09_trl_reward_from_our_preferences(tmp_path):
    pytest.importorskip("trl")
    score = load("09_trl_reward_from_our_preferences").main(None, str(tmp_path), n=20, max_steps=1)
    assert isinstance(score, float) and score != 0
    assert (tmp_path / "model.safetensors").is_file()


def test_10_reward_for_openrlhf(tmp_path):
    good, bad = load("10_reward_for_openrlhf").main(path=str(tmp_path / "reward_func.py"))["rewards"].tolist()
    assert good > 0 > bad


def test_the_loop_s_files_describe_runs():
    import yaml

    from agents.options.loop import settings_from_yaml

    assert settings_from_yaml(EXAMPLES / "loop.yaml").feedback.rater == "web"
    assert settings_from_yaml(EXAMPLES / "loop_stories.yaml").judge == {"name": "vader"}
    assert settings_from_yaml(EXAMPLES / "loop_coffee.yaml").feedback.votes == 0
    assert yaml.safe_load((EXAMPLES / "loop.yaml").read_text())["rounds"] == 2


def test_preferences_from_labels(tmp_path):
    rows = [{"prompt": "a", "response": "good", "reward": 1}, {"prompt": "a", "response": "bad", "reward": 0}]
    (comparison,) = load("loop_coffee").comparisons(rows)
    assert (comparison.chosen, comparison.rejected) == ("good", "bad")
