"""Splits, and users' files with what is wrong in them."""

import gzip
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_envs import PromptError
from text_envs.tasks.sources import (
    demonstrated,
    given_path,
    in_split,
    read_answers,
    read_texts,
    with_defaults,
)

ASKED, ANSWERED = ("concepts", "prompt"), ("target", "response")


def file_of(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@given(st.text(max_size=20))
def test_everything_is_in_one_split(key):
    assert in_split(key, "train") != in_split(key, "held_out")


def test_one_in_five_is_held_out():
    assert sum(in_split(str(n), "held_out") for n in range(5000)) == pytest.approx(1000, abs=60)


def test_a_split_that_is_not_there():
    with pytest.raises(ValueError, match=r"no split 'test'\. Choose one of: train, held_out"):
        in_split("a", "test")


def test_rows_that_ask_the_same_are_one(tmp_path):
    path = file_of(
        tmp_path,
        {"concepts": ["dog", "run"], "target": "A dog runs."},
        {"prompt": "dog run", "response": ["Dogs run. ", "Run, dog!"]},
        {"prompt": "cat", "response": "A cat."},
    )
    assert read_answers(path, ASKED, ANSWERED) == {
        "dog run": ["A dog runs.", "Dogs run.", "Run, dog!"],
        "cat": ["A cat."],
    }


GOOD = {"prompt": "a", "target": "b"}


@pytest.mark.parametrize(
    "row, says",
    [
        (
            {"words": "a", "target": "b"},
            "has none of the fields concepts, prompt, only words, target. Rename",
        ),
        ({"prompt": "a"}, "has none of the fields target, response, only prompt. Rename one of them."),
        ({"prompt": 3, "target": "b"}, "holds 3 in 'prompt'. Give a string that is not blank, or a list"),
        ({"prompt": "a", "target": " "}, "holds ' ' in 'target'. Give a string that is not blank"),
        ({"prompt": "a", "target": []}, "holds [] in 'target'. Give a string"),
        (["a", "b"], "is a list. A row is an object with named fields."),
    ],
)
def test_a_row_that_is_wrong_is_named_by_file_and_line(tmp_path, row, says):
    path = file_of(tmp_path, GOOD, row)
    with pytest.raises(PromptError, match=re.escape(f"{path}, line 2, {says}")):
        read_answers(path, ASKED, ANSWERED)


def test_a_file_that_is_empty_or_not_there(tmp_path):
    with pytest.raises(PromptError, match=r"rows\.jsonl holds no rows\. Give a file with at least one"):
        read_answers(file_of(tmp_path), ASKED, ANSWERED)
    with pytest.raises(PromptError, match="does not exist"):
        read_texts(tmp_path / "none.txt", ("text",))


def test_what_is_asked_must_be_sound(tmp_path):
    path = file_of(tmp_path, GOOD, {"prompt": "x", "target": "b"})
    with pytest.raises(PromptError, match=r"line 2, asks 'x', which has no vowel\. Give it some, or remove"):
        read_answers(path, ASKED, ANSWERED, lambda text: "a" in text, "vowel")


def test_texts_of_lines_and_of_fields(tmp_path):
    lines = tmp_path / "lines.txt.gz"
    lines.write_bytes(gzip.compress(b"one\n\ntwo\none\n"))
    assert read_texts(lines, ("text",)) == ["one", "two"]
    assert read_texts(file_of(tmp_path, {"text": "one", "label": 1}), ("text",)) == ["one"]


def test_demonstrations_of_a_file_are_its_references():
    rows = [{"prompt": "p", "references": ["one", "two"]}]
    drawn = demonstrated(rows, 50, seed=0)
    assert {row["response"] for row in drawn} == {" one", " two"}
    assert drawn == demonstrated(rows, 50, seed=0)


def test_defaults_are_made_only_where_nothing_is_given():
    def never():
        raise AssertionError("not needed")

    given = {"prompts": "P", "tokenizer": "T", "reward_model": "R", "max_new_tokens": 5}
    limits = {"max_prompt_tokens": 20, "max_new_tokens": 30}
    assert with_defaults(given, None, never, never, never, **limits) == given
    makers = [lambda name=name: name for name in "ptr"]
    made = {"prompts": "p", "tokenizer": "t", "reward_model": "r"}
    assert with_defaults({}, None, *makers, **limits) == {
        **made,
        "max_prompt_tokens": 20,
        "max_new_tokens": 30,
    }
    assert with_defaults({}, "file.jsonl", *makers, **limits) == {**made, "max_new_tokens": 64}


def test_a_path_that_must_be_given(tmp_path):
    assert given_path("X-v0", "model", tmp_path, "a folder") == str(tmp_path)
    with pytest.raises(
        ValueError, match=r"model is not given: X-v0 comes without .* Give model=\.\.\., a folder\."
    ):
        given_path("X-v0", "model", None, "a folder")
    with pytest.raises(ValueError, match=r"model='/no/such' of X-v0 does not exist\. Give a folder\."):
        given_path("X-v0", "model", "/no/such", "a folder")
