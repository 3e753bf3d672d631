import copy
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import Completion
from tests.text_envs.helpers import BYTES, LETTERS, letter_env, play
from text_envs import PromptError, TextGenerationEnv, TextTask

# -- an episode, by hand


def test_an_episode_by_hand():
    env = letter_env(["abc"], max_new_tokens=2)
    obs, info = env.reset(seed=0)
    assert obs["input_ids"].tolist() == [0, 1, 2, 0, 0]
    assert obs["attention_mask"].tolist() == [1, 1, 1, 0, 0]
    assert info == {}
    obs, reward, terminated, truncated, info = env.step(7)
    assert obs["input_ids"].tolist() == [0, 1, 2, 7, 0]
    assert obs["attention_mask"].tolist() == [1, 1, 1, 1, 0]
    assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    obs, reward, terminated, truncated, info = env.step(6)
    assert obs["input_ids"].tolist() == [0, 1, 2, 7, 6]
    assert (reward, terminated, truncated) == (2.0, True, False)
    assert info == {"completion": Completion("abc", "hg", (0, 1, 2), (7, 6), "length", {})}


def test_the_filler_is_the_padding_token_or_zero_and_never_eos():
    pad = BYTES.pad_token_id
    assert letter_env(["ab", "a"], tokenizer=BYTES, max_new_tokens=1).reset(seed=0)[0]["input_ids"][-1] == pad
    assert letter_env(["bb"], eos_token_id=3, max_new_tokens=1).reset()[0]["input_ids"].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    "tokens, reason, response",
    [
        ([1, 3], "eos", "bd"),
        ([1, 5], "eos", "bf"),
        ([1, 1, 1, 1], "length", "bbbb"),
        ([1, 1, 1, 3], "eos", "bbbd"),  # at the last token, EOS is what ended it
        ([1, 2, 4], "stop", "b"),
        ([0, 1, 2, 4], "stop", "ab"),  # and before the length, a stop string
        ([6, 6], "stop", ""),
        ([6, 2, 4], "stop", "g"),
    ],
)
def test_what_ends_an_episode(tokens, reason, response):
    env = letter_env(max_new_tokens=4, eos_token_id=[3, 5], stop=["ce", "gg"])
    steps = play(env, tokens)
    assert [step[2] for step in steps] == [False] * (len(tokens) - 1) + [True]
    completion = steps[-1][4]["completion"]
    assert (completion.finish_reason, completion.response) == (reason, response)
    assert completion.response_ids == tuple(tokens)


def test_a_stop_string_in_the_prompt_does_not_stop():
    steps = play(letter_env(["ce"], stop="ce", max_new_tokens=3), [4, 2, 0])
    assert steps[-1][4]["completion"].finish_reason == "length"
    assert not play(letter_env(["c"], stop="ce", max_new_tokens=3), [4])[0][2]


def test_a_stop_string_of_many_bytes_is_found():
    env = letter_env(tokenizer=BYTES, max_new_tokens=40, stop=["日本"])
    tokens = BYTES.encode("die 日本 x", add_special_tokens=False)
    steps = []
    env.reset(seed=0)
    for token in tokens:
        steps.append(env.step(token))
        if steps[-1][2]:
            break
    assert len(steps) == len("die 日本".encode())
    assert steps[-1][4]["completion"].response == "die "


@given(
    st.text(alphabet="ab\n日é", min_size=1, max_size=12), st.text(alphabet="ab\n日é", min_size=1, max_size=2)
)
def test_a_response_stops_where_its_text_first_holds_the_stop_string(text, stop):
    tokens = BYTES.encode(text, add_special_tokens=False)
    env = letter_env(tokenizer=BYTES, max_new_tokens=len(tokens), stop=stop)
    env.reset(seed=0)
    for n, token in enumerate(tokens, 1):
        _, _, terminated, _, info = env.step(token)
        assert terminated == (stop in BYTES.decode(tokens[:n]) or n == len(tokens))
        if terminated:
            assert info["completion"].response == BYTES.decode(tokens[:n]).split(stop)[0]
            return


def test_special_tokens_are_in_the_ids_and_not_in_the_text():
    env = letter_env(["<s>ab"], tokenizer=BYTES)
    eos = BYTES.eos_token_id
    completion = play(env, [*BYTES.encode("hi", add_special_tokens=False), eos])[-1][4]["completion"]
    assert completion.prompt == "<s>ab"
    assert completion.response == "hi"
    assert completion.response_ids[-1] == eos
    assert all(type(i) is int for i in completion.prompt_ids + completion.response_ids)


def test_columns_reach_the_reward_model():
    seen = []

    def reward(completions):
        seen.extend(completion.columns for completion in completions)
        return [0.5 for _ in completions]

    env = letter_env([{"prompt": "a", "answer": 42}], reward_model=reward, max_new_tokens=1)
    assert play(env, [0])[0][1] == 0.5
    assert seen == [{"answer": 42}]


# -- where EOS and the vocabulary come from


def test_eos_is_that_of_the_generation_config_in_the_folder(tmp_path):
    BYTES.save_pretrained(tmp_path)
    assert letter_env(tokenizer=tmp_path).eos_token_ids == (BYTES.eos_token_id,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 3]}))
    assert letter_env(tokenizer=str(tmp_path)).eos_token_ids == (3, 5)
    assert letter_env(tokenizer=tmp_path, eos_token_id=7).eos_token_ids == (7,)
    assert letter_env().eos_token_ids == ()


@pytest.mark.parametrize("eos", [[7, 3], {7, 3}, np.array([7, 3])])
def test_eos_may_come_in_any_collection(eos):
    assert letter_env(eos_token_id=eos).eos_token_ids == (3, 7)


def test_no_stop_string_is_none_or_empty():
    assert letter_env(stop=None).stop == letter_env(stop=()).stop == ()


def test_the_vocabulary_is_the_tokenizers_or_the_models():
    assert letter_env().action_space.n == 8
    env = letter_env(vocab_size=10, max_new_tokens=2)  # a model's padded vocabulary
    assert env.action_space.n == 10
    completion = play(env, [9, 1])[-1][4]["completion"]
    assert completion.response_ids == (9, 1)
    assert completion.response == "b"


def test_stories260k_ends_at_either_of_its_eos(stories):
    env = letter_env(["Once upon a time"], tokenizer=stories)
    assert env.eos_token_ids == (1, 2)
    assert env.action_space.n == 512
    assert env.reset()[0]["input_ids"][:3].tolist() == [1, 403, 407]


# -- prompts asked for


def test_a_prompt_can_be_asked_for():
    env = letter_env(["a", "b"], max_prompt_tokens=2, max_new_tokens=1)
    completion = play(env, [0], options={"prompt": {"prompt": "fgh", "answer": 1}})[-1][4]["completion"]
    assert (completion.prompt, completion.columns) == ("gh", {"answer": 1})
    assert play(env, [0], options={"prompt": "c"})[-1][4]["completion"].prompt == "c"


def test_a_prompt_asked_for_does_not_move_the_others():
    env = letter_env(list("abcdefgh"), max_new_tokens=1)
    env.reset(seed=4)
    first = env.reset()[0]["input_ids"][0]
    env.reset(seed=4)
    env.reset(options={"prompt": "a"})
    assert env.reset()[0]["input_ids"][0] == first


def test_a_prompt_asked_for_that_is_too_long_to_keep_is_an_error():
    env = letter_env(["a"], max_prompt_tokens=2, prompts_too_long="drop")
    with pytest.raises(PromptError, match=r"options\['prompt'\].*max_prompt_tokens=2"):
        env.reset(options={"prompt": "abc"})


def test_a_prompt_asked_for_is_held_to_the_longest_prompt_there_is():
    env = letter_env(["ab", "c"], max_new_tokens=1)  # max_prompt_tokens is not given: it is 2
    completion = play(env, [0], options={"prompt": "efgh"})[-1][4]["completion"]
    assert (completion.prompt, completion.prompt_ids) == ("gh", (6, 7))


# -- mistakes


def test_a_step_needs_a_running_episode():
    env = letter_env(max_new_tokens=1)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(0)
    play(env, [0])
    with pytest.raises(gym.error.ResetNeeded, match="ended"):
        env.step(0)


@pytest.mark.parametrize("action", [8, -1, 1.0, "a", [0, 1], None])
def test_an_action_is_a_token(action):
    env = letter_env()
    env.reset()
    with pytest.raises(gym.error.InvalidAction, match="Discrete"):
        env.step(action)


@pytest.mark.parametrize(
    "kwargs, parts",
    [
        (dict(max_new_tokens=0), ["max_new_tokens=0"]),
        (dict(max_new_tokens=2.5), ["max_new_tokens=2.5"]),
        (dict(max_new_tokens="4"), ["max_new_tokens='4'"]),
        (dict(max_prompt_tokens=2.5), ["max_prompt_tokens=2.5"]),
        (dict(vocab_size=-5), ["vocab_size=-5"]),
        (dict(stop=["x", ""]), ["stop="]),
        (dict(stop=5), ["stop=5"]),
        (dict(eos_token_id=8), ["eos_token_id=[8]", "8"]),
        (dict(eos_token_id="h"), ["eos_token_id='h'"]),
        (dict(render_mode="video"), ["'video'", "ansi"]),
        (dict(tokenizer="no/such/folder"), ["no/such/folder", "tokenizer.json"]),
        (dict(tokenizer="/no/such/folder"), ["/no/such/folder", "tokenizer.json"]),
        (dict(allowed_tokens=[9]), ["9", "vocabulary"]),
        (dict(allowed_tokens=["ab"]), ["'ab'", "2 tokens"]),
        (dict(allowed_tokens=[]), ["allowed_tokens"]),
        (dict(allowed_tokens=5), ["allowed_tokens=5", "Give ids"]),
    ],
)
def test_wrong_arguments_are_named(kwargs, parts):
    with pytest.raises(ValueError) as error:
        letter_env(**kwargs)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_file_of_a_tokenizer_is_named(tmp_path, name, content):
    BYTES.save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    if (name, content) == ("generation_config.json", "{}"):
        letter_env(tokenizer=str(tmp_path))  # nothing is wrong with saying nothing
        return
    with pytest.raises(ValueError, match=rf"{tmp_path}.*(Give a folder|Mend it)") as error:
        letter_env(tokenizer=str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_tokenizer_is_a_tokenizer():
    with pytest.raises(TypeError, match="int"):
        letter_env(tokenizer=3)


# -- the environment speaks


class EchoTask(TextTask):
    """Says the policy's token once more, after each."""

    def interject(self, batch, rows):
        batch.append(rows, batch.input_ids[rows, batch.lengths[rows] - 1], chosen=False)


class EchoEnv(TextGenerationEnv):
    task_class = EchoTask


def test_an_environment_may_append_tokens_of_its_own():
    env = EchoEnv(tokenizer=LETTERS, prompts=["a"], reward_model=lambda completions: [1.0], max_new_tokens=4)
    obs = play(env, [2])[-1][0]
    assert obs["input_ids"].tolist() == [0, 2, 2, 0, 0]
    obs, reward, terminated, _, info = env.step(3)
    assert (reward, terminated) == (1.0, True)
    assert info["completion"].response == "ccdd"
    assert env.episodes.tokens.action_mask[0].tolist() == [False, True, False, True, False]


class OwnStep(TextGenerationEnv):
    def step(self, action):
        return super().step(0)


def test_an_environment_with_its_own_step_is_not_silently_vectorized():
    env = OwnStep(tokenizer=LETTERS, prompts=["a"], reward_model=lambda completions: [1.0])
    with pytest.raises(TypeError, match=r"step\(\)"):
        env.vectorize(2)


# -- completions


def completed(**kwargs):
    return play(letter_env(max_new_tokens=2, **kwargs), [1, 2])[-1][4]["completion"]


def test_a_completion_of_the_environment_is_a_completion():
    plain = Completion("a", "bc", (0,), (1, 2), "length", {})
    assert completed() == plain and plain == completed()
    assert completed() != Completion("a", "bd", (0,), (1, 2), "length", {})
    assert hash(completed()) == hash(plain)
    for twin in (copy.deepcopy(completed()), pickle.loads(pickle.dumps(completed()))):
        assert type(twin) is Completion and twin == plain


def test_text_is_decoded_when_it_is_read(monkeypatch):
    calls = []
    decode = TextTask.decode
    monkeypatch.setattr(TextTask, "decode", lambda task, ids: calls.append(len(ids)) or decode(task, ids))
    completion = completed()
    assert calls == []
    assert (completion.response, completion.response) == ("bc", "bc")
    assert calls == [1]


def test_decoding_in_one_call_equals_batch_decode(stories, data):
    from text_envs.tokenizer import decode, load_tokenizer

    rng = np.random.default_rng(0)
    for tokenizer in (BYTES, LETTERS, load_tokenizer(stories), load_tokenizer(data / "tokenizers" / "gpt2")):
        ids = [rng.integers(0, len(tokenizer), size=n).tolist() for n in (0, 1, 5, 30, 60)]
        assert decode(tokenizer, ids) == tokenizer.batch_decode(ids, skip_special_tokens=True)
