"""What the stages compute of a policy's answers."""

import io

import numpy as np
import pytest
from rich.console import Console

from agents.stages import (
    Evaluation,
    Pace,
    Stopped,
    answer,
    evaluate,
    interval,
    read_completions,
    wins,
    write_completions,
)
from reward_models import Completion
from tests.agents.helpers import letters_env
from tests.agents.looping import likes_a, write_inputs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs")) / "model"


@pytest.fixture
def task():
    return letters_env().unwrapped.task


def test_each_prompt_gets_as_many_answers_and_the_same_ones_for_the_same_seed(model, task):
    rows = [{"prompt": "a"}, {"prompt": "bc"}]
    first, second = (answer(model, task, rows, 3, 1.0, 7, "cpu") for _ in range(2))
    assert [[c.prompt for c in answers] for answers in first] == [["a"] * 3, ["bc"] * 3]
    assert [[c.response for c in answers] for answers in first] == [
        [c.response for c in answers] for answers in second
    ]


def test_answering_stops_when_asked(model, task):
    with pytest.raises(Stopped):
        answer(model, task, [{"prompt": "a"}], 1, 1.0, 0, "cpu", should_stop=lambda: True)


def test_a_policy_that_is_its_reference_has_kl_0(model, task):
    found = evaluate(
        model, model, task, [{"prompt": "a"}, {"prompt": "def"}], {"gold": likes_a}, 1.0, 0, "cpu"
    )
    assert found.kl.tolist() == [0.0, 0.0]
    assert found.scores["gold"].tolist() == likes_a(found.completions)


def test_a_stage_says_how_far_it_is_and_how_long_it_takes_still(monkeypatch):
    said, clock = io.StringIO(), iter([100.0, 103.0, 110.0, 112.0, 120.0])
    monkeypatch.setattr("agents.stages.time.monotonic", lambda: next(clock))
    tell = Pace(Console(file=said), "votes", total=60, done=20)
    for done in (
        25,
        30,
        32,
        60,
    ):  # 10 votes in 10 seconds; the second and third call alone are 5 seconds after a line
        tell(done)
    assert said.getvalue() == "  30 of 60 votes, 0:30 to go\n"


def test_wins_count_ties_as_half():
    assert wins(np.array([1.0, 0.5, 0.0]), np.array([0.5, 0.5, 1.0])).tolist() == [1.0, 0.5, 0.0]


def test_an_interval_holds_the_mean_and_narrows_with_more_values():
    few, many = interval(np.array([0.0, 1.0] * 8)), interval(np.array([0.0, 1.0] * 800))
    assert few["low"] < few["mean"] == 0.5 < few["high"]
    assert many["high"] - many["low"] < 0.2 * (few["high"] - few["low"])


def test_the_summary_names_what_a_round_is_judged_by():
    def evaluation(scores):
        completions = [Completion("p", "a b", response_ids=(1, 2), finish_reason="eos") for _ in scores]
        return Evaluation(completions, {"gold": np.array(scores)}, {"polite": 0.5}, np.array([2.0, 4.0]))

    found = evaluation([1.0, 0.8]).summary({"sft": evaluation([0.2, 0.8])}, by="gold")
    assert found["scores"]["gold"]["mean"] == pytest.approx(0.9)
    assert found["win_rate"]["sft"]["mean"] == 0.75  # one win, one tie
    assert found["kl"]["mean"] == 3.0 and found["length"]["mean"] == 2.0 and found["ended"] == 1.0


def test_completions_come_back_from_their_file(tmp_path):
    written = [Completion("p\ud800", "r", (1,), (2, 3), "stop", {"answer": 4})]
    write_completions(tmp_path / "samples.jsonl", written, kl=np.array([0.5]))
    assert read_completions(tmp_path / "samples.jsonl") == written
    assert '"kl": 0.5' in (tmp_path / "samples.jsonl").read_text()
