"""What a run is told is checked before anything is computed: ranges, models, demonstrations, preferences."""

import json
import logging
from types import SimpleNamespace

import pytest

from agents.learning_stages import examine_reward, learn_reward
from agents.settings import LoopSettings
from agents.stages import answer
from agents.world import make_world, read_demos
from reward_models.preferences.formats import write
from reward_models.preferences.records import Comparison
from tests.agents.helpers import letters_env
from tests.agents.looping import small_settings, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize(
    "name, value, range_",
    [
        ("seed", -1, "at least 0"),
        ("threads", 0, "at least 1"),
        ("max_new_tokens", 0, "at least 1"),
        ("samples.prompts", 1, "at least 2"),
        ("samples.temperature", 0.0, "above 0"),
        ("feedback.flip", 2.0, "at most 1"),
        ("feedback.votes", -1, "at least 0"),
        ("feedback.overlap", 0, "at least 1"),
        ("reward.held_out", 1.5, "below 1"),
        ("reward.held_out", 0.0, "above 0"),
        ("reward.ensemble", 0, "at least 1"),
        ("reward.max_length", 1, "at least 2"),
        ("ppo.total_timesteps", 0, "at least 1"),
        ("ppo.batch_size", 0, "at least 1"),
        ("ppo.checkpoint_every", 0, "at least 1"),
        ("evaluation.prompts", 0, "at least 1"),
    ],
)
def test_a_number_outside_its_range_is_named_with_it(inputs, name, value, range_):
    settings = small_settings(inputs)
    section, _, field = name.rpartition(".")
    setattr(getattr(settings, section) if section else settings, field, value)
    with pytest.raises(ValueError, match=rf"^{name} is {value}\. It must be {range_}\.$"):
        settings.check()


def test_the_defaults_are_within_their_ranges():
    LoopSettings(env="text_envs/SupportReply-v0").check()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(model="nowhere/at/all"), r"^model nowhere/at/all does not exist"),
        (dict(model="EMPTY"), r"^model .* is no folder with a config\.json"),
        (dict(reward_model="nowhere"), "There is no reward model named 'nowhere'"),
        (dict(preferences="nowhere.jsonl"), r"nowhere\.jsonl does not exist"),
        (dict(preferences="DEMOS"), "holds no preferences"),
        (dict(env="CartPole-v1", prompts=None), r"CartPole-v1 cannot be made with these options"),
        (
            dict(env="CartPole-v1", prompts=None, max_new_tokens=None),
            "CartPole-v1 is no environment of texts",
        ),
    ],
)
def test_what_cannot_be_used_is_named_at_the_start(inputs, tmp_path, change, message):
    files = {"EMPTY": str(tmp_path), "DEMOS": str(inputs / "demos.jsonl")}
    change = {
        name: files.get(value, value) if isinstance(value, str) else value for name, value in change.items()
    }
    with pytest.raises(ValueError, match=message):
        make_world(small_settings(inputs, **change))


def test_a_reward_models_backbone_is_looked_for_at_the_start(inputs):
    settings = small_settings(inputs)
    settings.reward.model = "nowhere/at/all"
    with pytest.raises(ValueError, match=r"^reward\.model nowhere/at/all does not exist"):
        make_world(settings)


@pytest.mark.parametrize("row", ["[1, 2]", '"text"', "3", '{"prompt": "b"}'])
def test_a_row_that_is_no_demonstration_is_named_with_its_line(tmp_path, row):
    (tmp_path / "demos.jsonl").write_text('{"prompt": "b", "response": "c"}\n' + row)
    with pytest.raises(ValueError, match=r"demos\.jsonl, line 2"):
        read_demos(str(tmp_path / "demos.jsonl"), 0)


@pytest.mark.parametrize(
    "demos, message",
    [
        ({"nam": "x"}, r"^demos has no name\."),
        ({"name": "nothing:there"}, r"^demos: the function 'nothing:there': No module named 'nothing'"),
        ([], "There are no demonstrations"),
    ],
)
def test_demonstrations_that_are_not_there_are_missed(demos, message):
    with pytest.raises(ValueError, match=message):
        read_demos(demos, 0)


def test_a_reward_model_of_ties_alone_is_not_measured(inputs, tmp_path, caplog):
    """The accuracy is that on comparisons with a winner; the run goes on without it."""
    ties = [Comparison(prompt, ("abc", "cba"), "tie") for prompt in ("bb", "cc", "dd", "ee")]
    write(tmp_path / "comparisons.jsonl", ties, format="full")
    settings, task = small_settings(inputs, judge=None), letters_env().unwrapped.task
    baseline = [
        one
        for (one,) in answer(inputs / "model", task, [{"prompt": "a"}, {"prompt": "bc"}], 1, 1.0, 0, "cpu")
    ]
    with caplog.at_level(logging.WARNING, logger="agents"):
        where = SimpleNamespace(judge=None), settings, tmp_path, tmp_path / "comparisons.jsonl"
        learn_reward(*where, [inputs / "model"], lambda: False)
        found = examine_reward(*where, baseline)
    assert found["held_out"] is None and json.dumps(found)
    assert "has a winner: the reward model's accuracy is not measured" in caplog.text
