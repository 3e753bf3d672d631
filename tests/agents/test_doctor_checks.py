"""The doctor's single checks: what a run's numbers tell, each fault by itself; demonstrations, settings, reward models."""

import json

import pytest

from agents.doctor import diagnose
from agents.doctor_findings import CONSEQUENCES, causes_first, for_loop, problem, warning
from agents.doctor_reward import accuracy
from agents.doctor_setup import (
    cut_off,
    demonstrations,
    end_token,
    generation_settings,
    is_endless,
    vocabulary,
)
from reward_models.files import write_json
from tests.agents.helpers import LETTERS, small_lm
from text_envs.letters import letter_tokenizer


def problems(findings) -> set[str]:
    return {one.name for one in findings if one.status == "problem"}


def unwell(findings) -> set[str]:
    return {one.name for one in findings if one.status != "ok"}


def named(findings, name: str):
    (found,) = [one for one in findings if one.name == name]
    return found


# --- runs by their numbers -----------------------------------------------------------------------------------------

HEALTHY = {
    "num_timesteps": 1000, "objective/scores_std": 0.3, "objective/entropy": 1.0, "rollout/ep_len_mean": 20.0,
    "rollout/eos_rate": 0.95, "train/approx_kl": 0.01, "train/clip_fraction": 0.05,
    "train/learning_rate": 1e-5, "train/grad_norm": 1.0, "train/explained_variance": 0.3, "train/initial_approx_kl": 0.0,
    "rollout/log_prob_error": 1e-6,
}  # fmt: skip


def written(folder, n=24, **changes):
    """A run of healthy numbers whose score rises, but for `changes`: functions of the update, 0 to n - 1."""
    rows = [HEALTHY | {"objective/scores": 0.5 + 0.01 * i, "objective/kl": 0.05 * i} for i in range(n)]
    for name, value in changes.items():
        for i, row in enumerate(rows):
            row[name.replace("__", "/")] = value(i)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("reference_model: null\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("name", "status", "changes"),
    [
        ("numbers", "problem", dict(train__loss=lambda i: None if i == 7 else 1.0)),
        ("KL", "problem", dict(objective__kl=lambda i: 10.0 * i)),
        ("KL", "problem", dict(objective__kl=lambda i: -0.1 * i)),
        ("KL at the start", "problem", dict(objective__kl=lambda i: 3.0)),
        ("entropy", "warning", dict(objective__entropy=lambda i: 0.5**i)),
        ("end of replies", "problem", dict(rollout__eos_rate=lambda i: 1 - i / 24)),
        ("end of replies", "warning", dict(rollout__eos_rate=lambda i: 0.0)),
        ("reply length", "warning", dict(rollout__ep_len_mean=lambda i: 10.0 + 2 * i)),
        (
            "reply length",
            "problem",
            dict(rollout__ep_len_mean=lambda i: 24 * 0.8**i, objective__kl=lambda i: 0.01 * i),
        ),
        ("value function", "warning", dict(train__explained_variance=lambda i: -3.0)),
        ("score", "warning", dict(objective__scores=lambda i: 0.5 + 0.01 * (i % 2))),
        ("score", "problem", dict(objective__scores=lambda i: 1 - 0.04 * i)),
        ("gradient", "warning", dict(train__grad_norm=lambda i: 100.0)),
        ("gradient", "problem", dict(train__grad_norm=lambda i: 0.0)),
        ("learning rate", "warning", dict(train__approx_kl=lambda i: 0.15)),
        ("learning rate", "problem", dict(train__approx_kl=lambda i: 0.3)),
        ("learning rate", "problem", dict(train__clip_fraction=lambda i: 0.5)),
        # A few tokens: one of eight updates is far, and hardly a token is clipped.
        ("learning rate", "warning", dict(train__approx_kl=lambda i: 1.2 if i % 8 == 0 else 0.01)),
        ("reward failures", "warning", dict(reward_model__timeouts=lambda i: i)),
    ],
)
def test_what_the_numbers_of_a_run_tell(tmp_path, name, status, changes):
    findings = diagnose(written(tmp_path / "run", **changes))
    assert unwell(findings) == {name}
    assert named(findings, name).status == status


def test_the_numbers_of_a_healthy_run(tmp_path):
    assert unwell(diagnose(written(tmp_path / "run"))) == set()
    assert "not finished" in named(diagnose(tmp_path / "run"), "run").seen


def test_an_environment_in_which_no_reply_can_end(tmp_path):
    folder = written(tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["rollout/eos_rate"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert unwell(diagnose(folder)) == set()


def test_one_reply_to_all_prompts(tmp_path):
    folder = written(tmp_path / "run")
    samples = [dict(rollout=9, prompt=str(i), response="Go away.", score=0.1) for i in range(4)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    assert unwell(diagnose(folder)) == {"repetition"}


def test_a_run_that_was_killed_in_mid_line_or_before_its_first_update(tmp_path):
    folder = written(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"num_timesteps": 99')
    assert "24 updates" in named(diagnose(folder), "run").seen
    (folder / "metrics.jsonl").write_text("")
    assert [one.name for one in diagnose(folder)] == ["run"]


def test_a_run_of_the_loop_is_examined_stage_by_stage(tmp_path):
    stage = tmp_path / "round-1" / "ppo"
    stage.parent.mkdir()
    written(stage, objective__kl=lambda i: 3.0)
    (stage / "config.yaml").write_text("")
    made_from = {"policy": "a", "reference": "a", "ppo": {"kl_coef": 0.05}}
    write_json(stage / "stage.json", {"made_from": made_from, "result": {}})
    share = {"value": 0.52, "low": 0.45, "high": 0.59, "n": 200}
    (tmp_path / "round-1" / "reward").mkdir()
    write_json(tmp_path / "round-1" / "reward" / "stage.json", {"result": {"held_out": {"accuracy": share}}})
    found = {(one.where, one.name) for one in diagnose(tmp_path) if one.status == "problem"}
    assert found == {("round-1/ppo", "KL at the start"), ("round-1/reward", "reward accuracy")}

    write_json(stage / "stage.json", {"made_from": made_from | {"reference": "b"}, "result": {}})
    assert ("round-1/ppo", "KL at the start") not in {(one.where, one.name) for one in diagnose(tmp_path)}


def test_one_update_that_exploded_is_a_problem(tmp_path):
    once = dict(
        train__approx_kl=lambda i: 5.0 if i == 3 else 0.01,
        train__clip_fraction=lambda i: 0.6 if i == 3 else 0.05,
    )
    assert problems(diagnose(written(tmp_path / "run", **once))) == {"learning rate"}


def test_advice_for_a_stage_of_the_loop_names_its_settings(tmp_path):
    folder = written(tmp_path / "run", train__approx_kl=lambda i: 0.15)
    advice = (
        "Lower --learning-rate if the score is unsteady; --target-kl 0.05 ends an update that goes too far."
    )
    assert named(diagnose(folder), "learning rate").advice == advice
    write_json(folder / "stage.json", {"result": {}})
    advice = "Lower ppo.learning_rate if the score is unsteady; `rlhf ppo --target-kl 0.05` ends an update that goes too far."
    assert named(diagnose(folder), "learning rate").advice == advice


def test_commands_in_advice_stay_as_they_are():
    advice = (
        "Raise --max-new-tokens, or let it write more with `rlhf generate --max-new-tokens`; --learning-rate"
    )
    for stage, setting in (("sft", "sft.learning_rate"), ("evaluate", "ppo.learning_rate")):
        (found,) = for_loop([warning("end of replies", "seen", advice)], stage)
        assert found.advice == (
            f"Raise max_new_tokens, or let it write more with `rlhf generate --max-new-tokens`; {setting}"
        )


# --- single checks -------------------------------------------------------------------------------------------------


def evaluation(value, low, high, **others):
    return {"accuracy": {"value": value, "low": low, "high": high, "n": 400}} | others


RATERS = {"value": 0.7, "low": 0.66, "high": 0.74}


@pytest.mark.parametrize(
    ("status", "evaluated"),
    [
        ("ok", evaluation(0.68, 0.63, 0.72, rater_agreement=RATERS)),
        (
            "ok",
            evaluation(0.8, 0.76, 0.84, rater_agreement=RATERS, ceiling=0.816),
        ),  # above them, as a good judge may be
        ("warning", evaluation(0.95, 0.92, 0.97, rater_agreement=RATERS, ceiling=0.816)),
        ("problem", evaluation(0.51, 0.46, 0.56, rater_agreement=None)),
    ],
)
def test_reward_accuracy_against_the_raters_agreement(status, evaluated):
    assert named(accuracy(evaluated), "reward accuracy").status == status


def test_a_reward_model_that_counts_characters():
    longer = {"value": 0.72, "low": 0.68, "high": 0.76}
    for evaluated in (
        evaluation(0.7, 0.66, 0.74, longer_wins=longer),
        evaluation(0.7, 0.66, 0.74, baselines={"longer_wins": longer}),
    ):
        assert named(accuracy(evaluated), "reward baselines").status == "warning"


def test_demonstrations_that_are_cut_off_empty_or_unreadable():
    tokenizer = letter_tokenizer(LETTERS)
    tokenizer.eos_token = "l"
    rows = [{"prompt": "a", "response": "abcabcabc"[: 1 + i % 9]} for i in range(90)]
    cut = [{"prompt": "a", "response": "a" * 20}] * 60

    def look(rows):
        return demonstrations(rows, tokenizer, (LETTERS.index("l"),), max_new_tokens=30)

    assert look(rows).status == "ok"
    assert "40% seem cut off, at exactly 20 tokens" in look(rows + cut).seen
    assert "10% are empty" in look(rows + [{"prompt": "a", "response": ""}] * 10).seen
    assert look([{"prompt": "a", "answer": "b"}]).status == "problem"
    assert cut_off([[0] * 4] * 50) == 0  # a task whose replies all have one length


def test_sampling_settings_that_a_folder_brings(tmp_path):
    assert generation_settings(tmp_path, 1.0).status == "ok"
    write_json(tmp_path / "generation_config.json", {"top_p": 0.9, "eos_token_id": 3})
    assert generation_settings(tmp_path, 1.0).name == "generation settings"
    write_json(tmp_path / "generation_config.json", {"temperature": 0.6, "top_p": 1.0})
    assert generation_settings(tmp_path, 1.0).name == "temperature"
    assert generation_settings(tmp_path, 0.6).status == "ok"


def test_a_tokenizer_larger_than_the_model():
    assert vocabulary(13, small_lm().config).status == "problem"
    assert vocabulary(11, small_lm().config).status == "ok"


def test_not_everything_follows_from_something_else():
    assert problems(causes_first(problem(name, "seen", "do") for name in CONSEQUENCES))


def test_a_symptom_names_its_cause_and_two_causes_stay_two():
    kl, rate, reward = (problem(name, "seen", "do") for name in ("KL", "learning rate", "reward"))
    assert [one.status for one in causes_first([kl])] == ["problem"]
    assert [(one.name, one.status) for one in causes_first([kl, rate])] == [
        ("learning rate", "problem"),
        ("KL", "warning"),
    ]
    assert problems(causes_first([warning("score", "seen", "do"), reward])) == {"reward"}


def test_what_ends_a_reply():
    tokenizer = letter_tokenizer(LETTERS)
    assert end_token(tokenizer, (), ()).status == "warning"
    assert end_token(tokenizer, (), (), endless=True).status == "ok"
    assert end_token(tokenizer, (), ("END",)).status == "ok"
    tokenizer.eos_token = "l"
    assert end_token(tokenizer, (LETTERS.index("l"), 3), ()).status == "ok"
    assert "'l' (11) does not end a reply; what does: 3" in end_token(tokenizer, (3,), ()).seen


def test_when_nothing_needs_to_end_a_reply():
    assert is_endless({"env": "text_envs/Copy-v0"})
    assert is_endless({"env": None, "eos_token_id": []})
    assert not is_endless({"env": "text_envs/TextGeneration-v0", "eos_token_id": None})
    assert not is_endless({})


def test_a_run_of_an_algorithm_that_logs_little(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"num_timesteps": 5, "objective/scores": 0.5, "objective/scores_std": 0.1}\n'
    )
    assert unwell(diagnose(tmp_path)) == set()


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.yaml", "a: [b"), ("config.yaml", "- a"), ("result.json", "{"), ("stage.json", "[]")],
)
def test_a_damaged_file_is_named(tmp_path, name, text):
    folder = written(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} .*Restore it from a copy"):
        diagnose(folder)
