"""`make` finds a reward model by whatever names it, and says what it found instead."""

import json
import os
import subprocess
import sys

import pytest

from reward_models import Completion, RewardError, make, register, score
from reward_models.registration import BUILT_IN, REGISTERED, load_attribute
from tests.reward_models import rewards

HERE = "tests.reward_models.rewards:"
TWO = [Completion("p", "abc", columns={"answer": "abc"}), Completion("p", "", columns={"answer": "abc"})]


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"classifier"}))
def test_every_name_makes_a_reward_from_json(name):
    arguments = {
        "length": {"target": 1},
        "keywords": {"words": ["abc"]},
        "pattern": {"regex": "b"},
        "rouge_l": {"column": "answer"},
        "ensemble": {"models": ["json", {"name": "length", "target": 1}], "combine": "min"},
        "weighted_sum": {"rewards": ["json", {"name": "length", "target": 1}], "weights": [0.5, 1]},
        "clip": {"reward": {"name": "length", "target": 1}, "high": 0.5},
        "guarded": {"reward": "length", "target": 1},
    }.get(name, {})
    spec = json.loads(json.dumps({"name": name, **arguments}))
    assert score(make(spec), TWO).shape == (2,)
    assert load_attribute(BUILT_IN[name]).__doc__.count("Range") == 1


@pytest.mark.parametrize(
    ("spec", "kwargs", "expected"),
    [
        (rewards.length, {}, [3.0, 0.0]),
        (rewards.length, {"scale": 2.0}, [6.0, 0.0]),
        (HERE + "length", {"scale": 2.0}, [6.0, 0.0]),
        (rewards.Threshold(2), {}, [1.0, 0.0]),
        (rewards.Threshold, {"at": 2, "value": 5.0}, [5.0, 0.0]),
        (HERE + "Threshold", {"at": 0}, [1.0, 1.0]),
        (HERE + "make_threshold", {}, [1.0, 0.0]),
        (HERE + "make_threshold", {"at": 4}, [0.0, 0.0]),
        (HERE + "trl", {}, [1.0, 0.0]),
        ({"name": HERE + "Threshold", "at": 2}, {"value": 3.0}, [3.0, 0.0]),
        (lambda completions: [0.5] * len(completions), {}, [0.5, 0.5]),
    ],
)
def test_callables_classes_and_factories(spec, kwargs, expected):
    assert score(make(spec, **kwargs), TWO).tolist() == expected


def test_making_again_changes_nothing():
    for reward in (make("length", target=2), make(rewards.trl), make(rewards.length)):
        assert make(reward) is reward


def test_unknown_name_lists_the_names_and_the_closest():
    with pytest.raises(RewardError) as raised:
        make("sentimant")
    assert "Did you mean 'sentiment'?" in str(raised.value)
    assert all(name in str(raised.value) for name in BUILT_IN)


@pytest.mark.parametrize(
    ("spec", "kwargs", "says"),
    [
        (
            "length",
            {"tagret": 3},
            r"Reward model 'length': missing a required argument: 'target'.*got tagret",
        ),
        ("sentiment", {"lang": "en"}, "unexpected keyword argument 'lang'. It takes words; got lang"),
        (HERE + "length", {"scales": 2}, "unexpected keyword argument 'scales'. It takes completions, scale"),
        (HERE + "lenght", {}, "has no 'lenght'. Did you mean 'length'"),
        ("os:no_such", {}, r"callables are (\w+, ){19}\w+, and \d+ more\.$"),
        ("length", {"target": "5"}, r"'length' could not be made with {'target': '5'}: TypeError"),
        (":", {}, "':' does not name a reward model"),
        ("os:", {}, "'os:' does not name a reward model"),
        (".rewards:length", {}, "'.rewards:length' does not name a reward model"),
        (HERE + "not_callable", {}, "3 cannot serve as a reward model"),
        ("no_such_module:f", {}, "No module named 'no_such_module'.*current directory"),
        ({"target": 3}, {}, 'has no "name"'),
        (None, {}, "None cannot serve as a reward model"),
        (3.0, {}, "3.0 cannot serve as a reward model"),
        (dict, {}, "made {}, which is not callable"),
    ],
)
def test_mistakes_are_named(spec, kwargs, says):
    with pytest.raises(RewardError, match=says):
        make(spec, **kwargs)


def test_register_adds_a_name_once():
    register("test threshold", rewards.Threshold)
    register("test threshold", rewards.Threshold)
    try:
        assert score(make("test threshold", at=1), TWO).tolist() == [1.0, 0.0]
        with pytest.raises(RewardError, match="'test threshold' is taken"):
            register("test threshold", rewards.length)
        with pytest.raises(RewardError, match="'length' is taken"):
            register("length", rewards.length)
        with pytest.raises(RewardError, match="without a colon"):
            register("a:b", rewards.length)
    finally:
        del REGISTERED["test threshold"]


def test_module_in_the_current_directory_is_found_by_a_console_script(tmp_path):
    """A console script's sys.path holds the script's folder, not the current directory."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.py").write_text(
        "def judge(completions):\n    return [2.0] * len(completions)\n"
    )
    (tmp_path / "here" / "broken.py").write_text("1 / 0\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from reward_models import *\n"
        "print(score(make('mine:judge'), [Completion('', '')])[0])\n"
        "try:\n    make('broken:judge')\nexcept RewardError as error:\n    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path / "here",
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert out[0] == "2.0"
    assert "importing 'broken' raised ZeroDivisionError" in out[1]


def test_package_imports_no_torch():
    code = (
        "import sys, reward_models as r; r.make('sentiment'); r.make('weighted_sum', rewards=['json', 'rouge_l']); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
