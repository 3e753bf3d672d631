"""JSONRecord-v0: what a record scores, its prompts and demonstrations, and its mask."""

import importlib.util
import json

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import text_envs  # noqa: F401 (registers)
from reward_models import Completion
from text_envs.tasks.json_record import (
    FIELDS,
    QUALITY_SHARES,
    SCHEMA,
    WEIGHTS,
    Person,
    components,
    demonstrations,
    is_valid,
    judge,
    prompts,
    tokenizer,
    write,
)

ANNA = Person("Anna", 34, "Oslo", "baker")
RIGHT = '{"name": "Anna", "age": 34, "city": "Oslo", "job": "baker"}'
needs_xgrammar = pytest.mark.skipif(
    importlib.util.find_spec("xgrammar") is None, reason="needs the extra [grammar]"
)


def completion(response, person=ANNA):
    return Completion("", response, (), (), "eos", person.fields())


@pytest.mark.parametrize(
    "response, parses, valid, right",
    [
        (RIGHT, 1, 1, 1),
        ('{"job":"baker","city":"Oslo","age":34,"name":"Anna"}', 1, 1, 1),  # order and white space are free
        (RIGHT.replace("Anna", "Emma"), 1, 1, 0.75),
        (RIGHT.replace("34", '"34"'), 1, 0, 0.75),
        (RIGHT.replace("34", "34.0"), 1, 0, 0.75),
        (RIGHT.replace("34", "340"), 1, 0, 0.75),
        (RIGHT.replace("34", "true"), 1, 0, 0.75),
        (RIGHT.replace(', "job": "baker"', ""), 1, 0, 0.75),
        (RIGHT.replace("}", ', "hobby": "chess"}'), 1, 0, 1),
        (RIGHT.replace("}", ', "name": "Anna"}'), 0, 0, 0),  # a name that comes twice
        (RIGHT.replace("}", ""), 0, 0, 0),
        (RIGHT + RIGHT, 0, 0, 0),
        (f"Here: {RIGHT}", 0, 0, 0),
        (f"[{RIGHT}]", 1, 0, 0),
        ("{}", 1, 0, 0),
        ("34", 1, 0, 0),
        ("", 0, 0, 0),
        ("[" * 100_000, 0, 0, 0),
    ],
)
def test_what_a_record_scores(response, parses, valid, right):
    assert components(completion(response)) == {"parses": parses, "valid": valid, "right": right}
    assert judge([completion(response)]) == [pytest.approx(0.1 * parses + 0.2 * valid + 0.7 * right)]


def test_the_weights_add_up_to_one():
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=14),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*FIELDS, "x"]), inner, max_size=5)
    ),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional={name: json_values for name in FIELDS}) | json_values)
def test_validity_agrees_with_a_validator_of_json_schema(value):
    validator = pytest.importorskip("jsonschema_rs").validator_for(dict(SCHEMA))
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return
    if isinstance(value, dict) and isinstance(value.get("age"), float):
        return  # to JSON Schema 34.0 is an integer; here it is not
    assert is_valid(value) == validator.is_valid(value)


@given(st.text(max_size=60))
def test_any_text_gets_a_score(text):
    assert 0.0 <= judge([completion(text)])[0] <= 1.0


@given(st.integers(0, 2**32 - 1))
def test_each_flaw_costs_what_it_should(seed):
    scores = {
        quality: judge([completion(write(np.random.default_rng(seed), ANNA, quality))])[0]
        for quality in QUALITY_SHARES
    }
    assert scores == {
        "good": pytest.approx(1.0),
        "wrong_value": pytest.approx(1 - 0.7 / 4),
        "missing_field": pytest.approx(1 - 0.2 - 0.7 / 4),
        "age_in_words": pytest.approx(1 - 0.2 - 0.7 / 4),
        "broken": 0.0,
    }


def test_held_out_names_and_cities_come_together_for_the_first_time():
    train, held_out = prompts("train"), prompts("held_out")
    assert (len(train), len(held_out)) == (4000, 1000)
    for field in FIELDS:
        assert {row[field] for row in train} >= {row[field] for row in held_out}
    assert not {(row["name"], row["city"]) for row in train} & {
        (row["name"], row["city"]) for row in held_out
    }
    assert len({row["prompt"] for row in train}) == 4000
    with pytest.raises(ValueError, match="no split 'test'"):
        prompts("test")


def test_prompts_tell_every_field():
    assert all(str(row[field]) in row["prompt"] for row in prompts() for field in FIELDS)


def test_demonstrations_are_of_mixed_quality_and_fixed_by_their_seed():
    rows = demonstrations(n=2000, seed=1)
    assert rows == demonstrations(n=2000, seed=1) != demonstrations(n=2000, seed=2)
    for quality, share in QUALITY_SHARES.items():
        assert np.mean([row["quality"] == quality for row in rows]) == pytest.approx(share, abs=0.04)
    assert {row["prompt"] for row in demonstrations("held_out", 100)} <= {
        row["prompt"] for row in prompts("held_out")
    }


def test_everything_fits_and_no_token_straddles_prompt_and_response():
    env = gym.make("text_envs/JSONRecord-v0").unwrapped
    rows = demonstrations(n=1000)
    asked = tokenizer()([row["prompt"] for row in prompts("train") + prompts("held_out")])["input_ids"]
    answered = tokenizer()([row["response"] for row in rows])["input_ids"]
    assert max(map(len, asked)) <= env.max_prompt_tokens
    assert max(map(len, answered)) < env.max_new_tokens  # and EOS
    for row in rows[:100]:
        apart = tokenizer()(row["prompt"])["input_ids"] + tokenizer()(row["response"])["input_ids"]
        assert apart == tokenizer()(row["prompt"] + row["response"])["input_ids"]


def write_out(env, person, response):
    """The last step of an episode with this response, and whether every token of it was legal."""
    env.reset(seed=0, options={"prompt": {"prompt": "Who?\nJSON:\n", **person.fields()}})
    legal = True
    for token in [*tokenizer()(response)["input_ids"], 1]:
        legal &= bool(env.action_masks()[token])
        step = env.step(token)
        if step[2]:
            break
    return step, legal


def test_an_episode():
    env = gym.make("text_envs/JSONRecord-v0", split="held_out").unwrapped
    (_, reward, terminated, _, info), _ = write_out(env, ANNA, RIGHT)
    assert terminated and reward == pytest.approx(1.0) and env.optimum == 1.0
    assert info["completion"].response == RIGHT


@needs_xgrammar
def test_the_mask_lets_through_what_is_valid_and_nothing_else():
    env = gym.make("text_envs/JSONRecord-v0", split="held_out", masked=True).unwrapped
    rows = demonstrations("held_out", 200)
    for row in rows[:60]:
        _, legal = write_out(env, Person(*(row[field] for field in FIELDS)), row["response"])
        assert legal == (row["quality"] in ("good", "wrong_value"))


@needs_xgrammar
def test_random_legal_tokens_write_a_valid_record():
    env = gym.make("text_envs/JSONRecord-v0", split="held_out", masked=True, max_new_tokens=150).unwrapped
    rng = np.random.default_rng(0)
    for seed in range(5):
        env.reset(seed=seed)
        terminated = False
        while not terminated:
            legal = np.flatnonzero(env.action_masks())
            _, _, terminated, _, info = env.step(1 if 1 in legal else rng.choice(legal))
        assert components(info["completion"])["valid"] == 1.0


@needs_xgrammar
def test_one_mask_only():
    with pytest.raises(ValueError, match="there is one mask"):
        gym.make("text_envs/JSONRecord-v0", masked=True, allowed_tokens=[0])
