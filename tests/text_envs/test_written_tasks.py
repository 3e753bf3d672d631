"""What the tasks with a grammar of their own have in common: splits, demonstrations, tokenizers, users' files."""

import json
from importlib import import_module

import gymnasium as gym
import numpy as np
import pytest

from reward_models import Completion, RewardError
from text_envs import PromptError

TASKS = {
    "Sentiment": "sentiment",
    "KeywordSentence": "keyword_sentence",
    "DataToText": "data_to_text",
    "Simplify": "simplify",
}
ROWS = {  # what a user's file holds
    "Sentiment": {"text": "it is a film that one may see twice without regret"},
    "KeywordSentence": {"concepts": ["dog", "run"], "target": "The dog runs."},
    "DataToText": {"mr": "name[Aromi], area[riverside]", "ref": "Aromi is by the river."},
    "Simplify": {"text": "It is the case that it rains.", "references": ["It rains."]},
}
REAL = {  # rows of public data: a file, and what its own answers score at least in the mean
    "Sentiment": ("text/rt_polarity/train.jsonl.gz", 0.4),
    "KeywordSentence": ("demos/commongen/dev.jsonl.gz", 0.35),
    "DataToText": ("demos/e2e_nlg/dev.jsonl.gz", 0.8),
    "Simplify": ("demos/scitldr/dev.jsonl.gz", 0.9),
}
everyone = pytest.mark.parametrize("name", TASKS)


def module(name):
    return import_module(f"text_envs.tasks.{TASKS[name]}")


def make(name, **kwargs):
    return gym.make(f"text_envs/{name}-v0", **kwargs).unwrapped


def completion(row, response=None, finish_reason="eos"):
    return Completion(
        row["prompt"], row["response"] if response is None else response, (), (), finish_reason, row
    )


@everyone
def test_thousands_of_different_prompts_none_in_both_splits(name):
    train, held_out = (
        [row["prompt"] for row in module(name).prompts(split)] for split in ("train", "held_out")
    )
    assert len(set(train)) == len(train) > 2000
    assert len(set(held_out)) == len(held_out) > 450
    assert not set(train) & set(held_out)


@everyone
def test_a_split_that_is_not_there(name):
    with pytest.raises(ValueError, match=r"no split 'test'\. Choose one of: train, held_out"):
        make(name, split="test")


@everyone
def test_demonstrations_are_fixed_by_their_seed_and_answer_prompts_of_their_split(name):
    rows = module(name).demonstrations("held_out", 200, seed=3)
    assert rows == module(name).demonstrations("held_out", 200, seed=3)
    assert rows != module(name).demonstrations("held_out", 200, seed=4)
    assert {row["prompt"] for row in rows} <= {row["prompt"] for row in module(name).prompts("held_out")}


@everyone
def test_demonstrations_leave_room_to_improve(name):
    rows = module(name).demonstrations("train", 600)
    scores = np.array(module(name).judge()([completion(row) for row in rows]))
    assert 0.35 < scores.mean() < 0.80
    assert np.mean(scores > 0.9) > 0.05  # some are good: there is something to imitate
    assert np.mean(scores < 0.5) > 0.05 and scores.min() >= 0.0 and scores.max() <= 1.0


@everyone
def test_prompts_and_responses_are_short_and_encoded_apart_as_together(name):
    env, rows = make(name), module(name).demonstrations("train", 400, seed=1)
    assert env.action_space.n <= 768 and env.max_prompt_tokens <= 40 and env.max_new_tokens <= 40

    def encode(texts):
        return env.tokenizer(list(texts))["input_ids"]

    for split in ("train", "held_out"):
        asked = encode(row["prompt"] for row in module(name).prompts(split))
        assert max(map(len, asked)) <= env.max_prompt_tokens
    apart = zip(encode(row["prompt"] for row in rows), encode(row["response"] for row in rows))
    assert encode(row["prompt"] + row["response"] for row in rows) == [ask + answer for ask, answer in apart]
    best = [row["response"] for row in rows if module(name).judge()([completion(row)])[0] > 0.99]
    assert max(map(len, encode(best))) < env.max_new_tokens


@everyone
def test_both_splits_have_the_same_tokenizer(name):
    assert make(name).tokenizer is make(name, split="held_out").tokenizer


@everyone
def test_the_optimum_is_told_where_it_is_known(name, tmp_path):
    assert make(name).optimum == 1.0
    assert make(name, reward_model="sentiment").optimum is None
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in many(name)))
    assert make(name, file=path, split="held_out").optimum is None


def many(name, n=40):
    """Rows of a user's file that differ in the text they are split by."""
    for i in range(n):
        row = dict(ROWS[name])
        key = next(iter(row))
        row[key] = (
            [*row[key], f"word{i}"] if isinstance(row[key], list) else row[key].replace("it", f"it{i}", 1)
        )
        if name == "DataToText":
            row[key] = f"name[Aromi], near[Place {i}]"
        if name == "Simplify":
            row[key] = f"It is the case that it rains on day {i}."
        yield row


@everyone
def test_a_user_s_file_takes_the_place_of_the_grammar(name, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in many(name)))
    train, held_out = (make(name, file=path, split=split) for split in ("train", "held_out"))
    assert len(train.task.prompts) + len(held_out.task.prompts) == 40
    assert len(held_out.task.prompts) > 0
    assert train.action_space == held_out.action_space
    rows = module(name).demonstrations("train", 20, file=path)
    assert all(row["response"].startswith(" ") for row in rows)
    train.reset(seed=0, options={"prompt": rows[0]})
    for token in [*train.tokenizer(rows[0]["response"])["input_ids"], *train.eos_token_ids]:
        _, reward, terminated, _, info = train.step(token)
    assert terminated and info["completion"].response == rows[0]["response"]
    assert reward > 0.3


@pytest.mark.parametrize(
    "name, column", [("KeywordSentence", "keywords"), ("DataToText", "meaning"), ("Simplify", "text")]
)
def test_a_judge_names_the_column_that_it_misses(name, column):
    row = {**module(name).demonstrations("train", 1)[0]}
    del row[column]
    with pytest.raises(
        RewardError, match=f"Judge needs the column '{column}', and it is missing .* Give every prompt"
    ):
        module(name).judge()([completion(row)])


@everyone
def test_a_wrong_row_of_a_file_is_named(name, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[name]) + '\n{"other": 1}\n')
    with pytest.raises(
        PromptError, match=r"rows\.jsonl, line 2, has none of the fields .* Rename one of them"
    ):
        make(name, file=path)


@everyone
def test_public_data_can_be_loaded_and_its_own_answers_score_well(name, data):
    file, least = REAL[name]
    env = make(name, file=data / file, split="held_out", max_new_tokens=48)
    train, rows = (
        module(name).demonstrations(split, 150, file=data / file) for split in ("train", "held_out")
    )
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in rows}
    judge = env.task.reward_model
    assert np.mean(judge([completion(row) for row in rows])) > least
    rng = np.random.default_rng(0)
    shuffled = [" ".join(rng.permutation(row["prompt"].split())) + "." for row in rows]
    assert np.mean(judge([completion(row, text) for row, text in zip(rows, shuffled)])) < 0.2
