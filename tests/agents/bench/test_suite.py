"""What is run: the suites that come with the package, and what the command line makes of them."""

from pathlib import Path

import pytest

from agents.bench.algorithms import BASELINES, is_missing, schedule, target_of
from agents.bench.suite import Suite, TaskSettings, filename, load_suite, merged

OWN = "tests.agents.bench.own"
COPY = TaskSettings(
    "probe", "text_envs/Copy-v0", 600, ["TextPPO", "PPO"], seeds=2, arguments={"stock": {"n_steps": 8}}
)
SORT = TaskSettings("probe", "text_envs/Sort-v0", 900, ["TextPPO"], seeds=1)
SUITE = Suite(
    tasks={"Copy": COPY, "Sort": SORT},
    other={"tier": "own", "budget": 100, "algorithms": ["TextPPO"]},
    arguments={"text": {"n_episodes": 8}, "stock": {"n_steps": 4, "gamma": 1.0}, "TextPPO": {"kl_coef": 0.1}},
    variants={"TextPPO-free": {"of": "TextPPO", "kl_coef": 0.0}},
    evaluation={"prompts": 8},
)


def names(runs):
    return [(run.task, run.algorithm, run.seed) for run in runs if run.algorithm not in BASELINES]


@pytest.mark.parametrize("name", ["quick", "full"])
def test_the_suites_of_the_package_are_sound(name):
    suite = load_suite(name)
    runs = suite.runs()
    assert len({run.path(Path()) for run in runs}) == len(runs)
    for run in runs:
        budgets = {other.budget for other in runs if other.task == run.task}
        assert budgets == {run.budget}
    assert {run.algorithm for run in runs} >= set(BASELINES)


def test_every_algorithm_of_a_task_runs_with_every_seed():
    assert names(SUITE.runs()) == [
        ("Copy", "TextPPO", 1000), ("Copy", "PPO", 1000), ("Sort", "TextPPO", 1000),
        ("Copy", "TextPPO", 1001), ("Copy", "PPO", 1001),
    ]  # fmt: skip


def test_the_baselines_run_on_every_task():
    runs = SUITE.runs(algorithms=["PPO"])
    for task in ("Copy", "Sort"):
        assert [
            r.algorithm for r in runs if (r.task, r.seed) == (task, 1000) and r.algorithm != "PPO"
        ] == list(BASELINES)


def test_settings_are_merged_from_the_general_to_the_particular():
    text, stock = (run.arguments for run in SUITE.runs(tasks=["Copy"], seeds=1) if run.target)
    assert text == {"n_episodes": 8, "kl_coef": 0.1}
    assert stock == {"n_steps": 8, "gamma": 1.0}
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_a_variant_is_an_algorithm_with_other_arguments():
    (run,) = [run for run in SUITE.runs(["TextPPO-free"], ["Sort"]) if run.target]
    assert (run.algorithm, run.target) == ("TextPPO-free", "agents:TextPPO")
    assert run.arguments == {"n_episodes": 8, "kl_coef": 0.0}


def test_a_known_algorithm_runs_where_the_suite_has_it_and_an_own_one_everywhere():
    runs = SUITE.runs(["PPO", f"{OWN}:OwnPPO"], seeds=1)
    assert names(runs) == [
        ("Copy", "PPO", 1000),
        ("Copy", f"{OWN}:OwnPPO", 1000),
        ("Sort", f"{OWN}:OwnPPO", 1000),
    ]


def test_an_own_algorithm_gets_the_settings_of_its_family():
    stock, text = (run for run in SUITE.runs([f"{OWN}:OwnPPO", f"{OWN}:OwnTextPPO"], ["Sort"]) if run.target)
    assert stock.arguments == {"n_steps": 4, "gamma": 1.0}
    assert text.arguments == {"n_episodes": 8}


def test_an_own_environment_gets_the_settings_of_other_tasks():
    runs = SUITE.runs(tasks=[f"{OWN}:own/Shout-v0"], seeds=1)
    assert names(runs) == [(f"{OWN}:own/Shout-v0", "TextPPO", 1000)]
    assert {run.budget for run in runs} == {100}


def test_tuning_takes_other_seeds():
    assert {run.seed for run in SUITE.runs(tuning=True)} == {0, 1}
    assert all(run.tuning for run in SUITE.runs(tuning=True))


def test_a_changed_setting_changes_the_hash():
    (first, *_), (same, *_), (other, *_) = SUITE.runs(), SUITE.runs(), SUITE.runs(budget=601)
    assert first.hash == same.hash != other.hash


@pytest.mark.parametrize(
    "asked, words",
    [
        (
            {"algorithms": ["TextPPPO"]},
            "no algorithm 'TextPPPO': did you mean TextPPO.*random, start.*TRPO.*module:attr",
        ),
        (
            {"tasks": ["Copi"]},
            "no task 'Copi': did you mean Copy.*The suite has Copy, Sort.*text_envs/Bandit-v0.*module:id",
        ),
        ({"algorithms": ["no_such_module:X"]}, "no_such_module:X cannot be loaded: No module named"),
        ({"algorithms": [f"{OWN}:Missing"]}, "has no attribute 'Missing'"),
        ({"algorithms": [f"{OWN}:letter_tokenizer"]}, "is a function: give a class"),
    ],
)
def test_what_does_not_exist_is_said_with_what_does(asked, words):
    with pytest.raises(ValueError, match=words):
        SUITE.runs(**asked)


def test_an_unknown_suite_is_said_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match=r"no suite 'quik'\. Choose full, quick"):
        load_suite("quik")
    (tmp_path / "own.yaml").write_text("tasks: {Copy: {tier: probe, colour: red}}\nother: {}\n")
    with pytest.raises(ValueError, match=r"own\.yaml is no suite: .*colour"):
        load_suite(tmp_path / "own.yaml")
    text = "tasks: {Copy: {tier: t, env: text_envs/Copy-v0, budget: 1, algorithms: [TextPPPO]}}\nother: {}\n"
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"no algorithm 'TextPPPO'.* In task Copy of"):
        load_suite(tmp_path / "own.yaml")


def test_targets_and_files():
    assert target_of("TextGRPO") == "agents:TextGRPO"
    assert target_of("A2C") == "stable_baselines3:A2C"
    assert target_of("TRPO") == "sb3_contrib:TRPO"
    assert target_of("mine:PPO") == "mine:PPO"
    assert filename("my.mod:own/Shout-v0") == "my.mod_own_Shout-v0"


def test_contrib_is_optional(monkeypatch):
    monkeypatch.setattr("agents.bench.algorithms.find_spec", lambda name: None)
    assert is_missing("TRPO") and not is_missing("PPO")


def test_a_learning_rate_may_fall_to_0_as_in_the_zoo():
    falling = schedule("learning_rate", "lin_0.004")
    assert [falling(left) for left in (1.0, 0.5, 0.0)] == [0.004, 0.002, 0.0]
    assert schedule("learning_rate", 0.004) == 0.004 and schedule("loss_type", "grpo") == "grpo"
    with pytest.raises(ValueError, match="learning_rate is 'lin_fast'"):
        schedule("learning_rate", "lin_fast")
