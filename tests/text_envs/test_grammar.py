"""Masks from regular expressions and JSON schemas, against an independent matcher of partial texts."""

# ruff: noqa: RUF012 (class attributes are arguments, read only)

import copy
import gc
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("xgrammar", reason="needs the extra [grammar]")

from tests.text_envs.helpers import BYTES, LETTERS, letter_env, letter_vector_env, response_length
from text_envs import TextGenerationEnv
from text_envs.grammar import JSONSchema, Regex
from text_envs.letters import word_tokenizer
from text_envs.testing import EnvContract
from text_envs.trained_tokenizer import trained_tokenizer

EOS = 7  # the letter h
PATTERNS = ["a(b|c)*a?", "(ab|cd){1,3}", "[a-f]{2,4}", "a?b?c?", "((a|bc)+d)?", "(a+b)+", "[^a-c]*"]


def oracle(pattern, text):
    """The letters, and EOS, that may follow a text: by the partial matches of the package `regex`."""
    legal = [regex.fullmatch(pattern, text + letter, partial=True) is not None for letter in "abcdefg"]
    return [*legal, regex.fullmatch(pattern, text) is not None]


def masked_env(pattern, **kwargs):
    settings = dict(allowed_tokens=Regex(pattern), eos_token_id=EOS, max_new_tokens=6)
    return letter_env(**{**settings, **kwargs})


@given(st.sampled_from(PATTERNS), st.data())
def test_a_letter_is_legal_if_the_response_can_still_match_and_eos_if_it_does(pattern, data):
    env = masked_env(pattern)
    _, info = env.reset(seed=0)
    response, terminated = "", False
    while not terminated:
        mask = info["action_mask"]
        assert mask.tolist() == oracle(pattern, response)
        token = data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))
        _, _, terminated, _, info = env.step(token)
        response += "abcdefg"[token] if token != EOS else ""
    finished = info["completion"].finish_reason == "eos"
    assert regex.fullmatch(pattern, response, partial=not finished)


def test_each_row_of_a_vector_env_stands_where_its_own_response_stands():
    env = letter_vector_env(
        3, allowed_tokens=Regex("a(b|c)*d"), eos_token_id=EOS, max_new_tokens=4, autoreset_mode="SameStep"
    )
    env.reset(seed=0)
    assert legal(env) == ["a", "a", "a"]
    env.step(np.array([0, 0, 0]))
    env.step(np.array([1, 3, 2]))
    assert legal(env) == ["bcd", "h", "bcd"]
    env.step(np.array([3, EOS, 1]))  # the second row ends and starts anew
    assert legal(env) == ["h", "a", "bcd"]
    env.step(np.array([-1, -1, 2]))  # the third is cut at its length
    assert legal(env) == ["h", "a", "a"]


def legal(env):
    return ["".join("abcdefgh"[i] for i in np.flatnonzero(mask)) for mask in env.action_masks()]


def test_a_parser_reads_each_token_once(monkeypatch):
    import xgrammar

    read, accept = [], xgrammar.GrammarMatcher.accept_token
    monkeypatch.setattr(
        xgrammar.GrammarMatcher, "accept_token", lambda self, token: read.append(token) or accept(self, token)
    )
    env = masked_env("(ab)*")
    for _ in range(2):  # the second episode begins with the first one's tokens, which says nothing new
        env.reset(seed=0)
        for token in [0, 1, 0, 1, 0]:
            env.step(token)
            env.action_masks()
    assert read == [0, 1, 0, 1, 0] * 2


def test_a_response_that_left_the_grammar_may_only_end_and_the_next_starts_afresh():
    env = masked_env("abc")
    env.reset(seed=0)
    for token in (0, 4, 1):
        _, _, _, _, info = env.step(token)
    assert info["action_mask"].tolist() == [False] * 7 + [True]
    _, info = env.reset()
    assert info["action_mask"].tolist() == [True] + [False] * 7


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_its_own_way_from_the_same_place(clone):
    env = masked_env("a(b|c)*d")
    env.reset(seed=0)
    env.step(0)
    twin = clone(env)
    env.step(3)
    assert np.flatnonzero(env.action_masks()).tolist() == [EOS]
    assert np.flatnonzero(twin.action_masks()).tolist() == [1, 2, 3]


def test_what_a_closed_environment_held_is_freed():
    env = masked_env("a*")
    mask = env.task.mask.function
    env.reset(seed=0)
    assert len(mask._parsers) == 1
    del env
    gc.collect()
    assert len(mask._parsers) == 0


def test_special_tokens_and_ids_beyond_the_tokenizer_are_never_legal():
    """Their text, "<pad>", would match; but they print nothing."""
    env = TextGenerationEnv(
        BYTES, ["x"], response_length, max_new_tokens=4, allowed_tokens=Regex("[^x]*"), vocab_size=300
    )
    env.reset(seed=0)
    legal = np.flatnonzero(env.action_masks())
    assert BYTES.eos_token_id in legal
    assert not {BYTES.pad_token_id, BYTES.bos_token_id, 280} & set(legal)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,5}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 2},
    },
    "required": ["name", "age", "pets"],
}
TRAINED = trained_tokenizer(['{"name": "Anna", "age": 34, "pets": ["cat", "dog"]}'] * 9, 290)


@given(seed=st.integers(0, 2**32 - 1))
def test_random_legal_tokens_write_json_that_fits_its_schema(seed):
    env = TextGenerationEnv(
        TRAINED, ["x"], response_length, max_new_tokens=200, allowed_tokens=JSONSchema(PERSON)
    )
    rng, terminated = np.random.default_rng(seed), False
    _, info = env.reset(seed=0)
    while not terminated:
        legal = np.flatnonzero(info["action_mask"])
        _, _, terminated, _, info = env.step(1 if 1 in legal else rng.choice(legal))
    person = json.loads(info["completion"].response)
    assert info["completion"].finish_reason == "eos"
    assert list(person) == ["name", "age", "pets"]
    assert regex.fullmatch("[A-Z][a-z]{1,5}", person["name"]) and 0 <= person["age"] <= 120
    assert set(person["pets"]) <= {"cat", "dog"} and len(person["pets"]) <= 2
    assert json.dumps(person) == info["completion"].response  # white space as by default


def test_white_space_is_as_json_dumps_writes_it_unless_asked_otherwise():
    for whitespace in (False, True):
        env = TextGenerationEnv(
            BYTES, ["x"], response_length, max_new_tokens=9, allowed_tokens=JSONSchema(PERSON, whitespace)
        )
        env.reset(seed=0)
        env.step(BYTES.encode("{", add_special_tokens=False)[0])
        (space,) = BYTES.encode(" ", add_special_tokens=False)
        assert bool(env.action_masks()[space]) is whitespace


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"eos_token_id": None}, "no EOS. Give eos_token_id"),
        ({"allowed_tokens": Regex("a(b")}, r"Regex\(pattern='a\(b'\) cannot be compiled.*not closed"),
        ({"allowed_tokens": JSONSchema({"type": "nonsense"})}, 'Unsupported type "nonsense"'),
        ({"tokenizer": word_tokenizer(["a", "b"]), "eos_token_id": 1}, "no decoder that joins"),
    ],
)
def test_what_cannot_be_a_grammar_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        masked_env("a*", **kwargs)


def test_without_xgrammar_the_install_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[grammar\]'"):
        masked_env("a*")


def test_grammars_can_be_named_without_xgrammar_or_torch():
    code = "import sys, text_envs.grammar as g; g.Regex('a'); assert not {'torch', 'xgrammar'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestContract(EnvContract):
    env_id = "text_envs/TextGeneration-v0"
    kwargs = {
        "tokenizer": LETTERS,
        "prompts": ["a", "bb", "ccc"],
        "reward_model": response_length,
        "max_new_tokens": 5,
        "eos_token_id": EOS,
        "allowed_tokens": Regex("(ab|c)*d?"),
    }
