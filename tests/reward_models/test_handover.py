"""Our reward models, called as TRL's and OpenRLHF's trainers call theirs."""

import importlib.util
import pickle

import pytest
import torch

from reward_models import Completion, RewardError, make, score
from reward_models.handover import as_openrlhf, as_trl, write_openrlhf
from reward_models.rules import LengthTarget

# What TRL's GRPOTrainer hands over beside prompts, completions and their ids.
TRAINER = dict(trainer_state=object(), log_extra=print, log_metric=print)


def echo(seen):
    """A reward model that notes what it is given and scores 0, 1, 2, ..."""

    def reward(completions):
        seen.extend(completions)
        return list(range(len(completions)))

    return reward


def test_trl_s_call_becomes_completions():
    seen = []
    scores = as_trl(echo(seen))(
        prompts=["1+1=", "1+2="], completions=["2", "4"], completion_ids=[[6, 7], [8]], answer=["2", "3"], **TRAINER
    )  # fmt: skip
    assert scores == [0.0, 1.0]
    assert seen == [
        Completion("1+1=", "2", response_ids=(6, 7), columns={"answer": "2"}),
        Completion("1+2=", "4", response_ids=(8,), columns={"answer": "3"}),
    ]
    assert [dict(c.columns) for c in seen] == [{"answer": "2"}, {"answer": "3"}]


def test_conversations_become_text():
    seen = []
    as_trl(echo(seen))(
        prompts=[[{"role": "user", "content": "hi"}]],
        completions=[[{"role": "assistant", "content": "hello"}]],
    )
    assert (seen[0].prompt, seen[0].response) == ("hi", "hello")


def test_built_in_rewards_score_alike_in_both_shapes():
    rows = [
        Completion("1+1=", "2", columns={"answer": "2"}),
        Completion("1+2=", "4", columns={"answer": "3"}),
    ]
    ours = score(make("exact_answer"), rows).tolist()
    assert (
        as_trl("exact_answer")(prompts=["1+1=", "1+2="], completions=["2", "4"], answer=["2", "3"])
        == ours
        == [1, 0]
    )


def test_trl_s_own_functions_come_back_and_names_are_told():
    def theirs(prompts, completions, **columns):
        return [0.0] * len(prompts)

    assert as_trl(theirs) is theirs
    assert as_trl("length", target=3).__name__ == "LengthTarget"
    assert as_trl(echo([])).__name__ == "reward"
    assert isinstance(pickle.loads(pickle.dumps(as_trl("length", target=3))).reward_model, LengthTarget)


def test_what_a_reward_lacks_is_said():
    with pytest.raises(RewardError, match="column 'answer'"):
        as_trl("exact_answer")(prompts=["1+1="], completions=["2"], **TRAINER)


@pytest.mark.parametrize("query", ["<s>1+1=2</s>", "1+1=2", "1+1=2</s><pad><pad></s>", "2"])
def test_openrlhf_s_queries_are_taken_apart(query):
    seen = []
    reward_func = as_openrlhf(echo(seen), "sum", endings=["</s>", "<pad>"])
    result = reward_func([query, "b c"], ["1+1=", "b "], ["2", "d"], some_later_argument=1)
    assert as_openrlhf({"name": "length", "target": 3})(["abc"], [""], [None])["rewards"].shape == (1,)
    assert [(c.prompt, c.response, dict(c.columns)) for c in seen] == [
        ("1+1=", "2", {"sum": "2"}),
        ("b ", "c", {"sum": "d"}),
    ]
    assert {name: result[name].tolist() for name in ("rewards", "scores")} == {
        "rewards": [0, 1],
        "scores": [0, 1],
    }
    assert result["rewards"].dtype == torch.float32 and result["extra_logs"]["score"].tolist() == [0, 1]


def test_the_written_file_serves_as_openrlhf_loads_it(tmp_path):
    path = write_openrlhf(tmp_path / "reward_func.py", {"name": "exact_answer"}, endings=["</s>"])
    spec = importlib.util.spec_from_file_location("reward_func", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.reward_func(["1+1=2</s>", "1+1=3</s>"], ["1+1="] * 2, ["2"] * 2)["rewards"].tolist() == [
        1,
        0,
    ]


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be written into a file"):
        write_openrlhf(tmp_path / "reward.py", echo([]))
    with pytest.raises(ValueError, match=r"does not end in \.py"):
        write_openrlhf(tmp_path / "reward", "length")
    with pytest.raises(RewardError, match="no reward model named 'lenght'"):
        write_openrlhf(tmp_path / "reward.py", "lenght")
    assert not list(tmp_path.iterdir())
