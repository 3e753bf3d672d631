"""Demonstrations in every shape in which people keep them, and what is said of those that are none."""

import gzip
import json

import datasets
import pytest

from agents.demonstrations import DemonstrationEncoder, Pair, read_pairs
from agents.sft import finetune
from reward_models.preferences import formats
from reward_models.preferences.records import Demonstration
from reward_models.preferences.store import FeedbackStore
from tests.agents.helpers import LETTERS, small_lm
from text_envs import PromptError
from text_envs.letters import letter_tokenizer

RECORDS = [Demonstration("ab", " cd", rater="ann"), Demonstration("e", " f")]
TEXTS = [("ab", " cd"), ("e", " f")]


def texts_of(source, **fields):
    return [(pair.prompt, pair.response) for pair in read_pairs(source, **fields)]


@pytest.mark.parametrize("format", ["trl", "conversational", "full"])
def test_what_the_formats_write_is_read(tmp_path, format):
    path = tmp_path / "demos.jsonl.gz"
    formats.write(path, RECORDS, format=format)
    assert texts_of(path) == TEXTS
    assert texts_of(formats.to_dataset(RECORDS, format=format)) == TEXTS


@pytest.mark.parametrize("response", ["response", "completion"])
def test_rows_with_a_response_or_a_completion(tmp_path, response):
    rows = [{"prompt": prompt, response: text, "score": 3, "topic": "x"} for prompt, text in TEXTS]
    path = tmp_path / "demos.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert texts_of(rows) == texts_of(path) == texts_of(datasets.Dataset.from_list(rows)) == TEXTS
    assert texts_of(RECORDS) == TEXTS


def test_fields_of_other_names():
    assert texts_of([{"q": "a", "a": "b"}], prompt_field="q", response_field="a") == [("a", "b")]


@pytest.mark.parametrize("format", ["trl", "conversational", "full"])
def test_an_export_of_the_feedback_store_trains_a_model(tmp_path, format):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        ids = store.add_prompts(["ab", "cde"])
        store.request_demonstrations(prompts=ids)
        rater = store.rater("ann").id
        for key in ("first", "second"):
            assignment = store.assign(rater)
            store.vote(assignment.id, {"response": assignment.prompt[::-1]}, key=key)
        path = tmp_path / "demos.jsonl"
        assert store.export(path, kind="demonstrations", format=format).rows == 2
    assert sorted(texts_of(path)) == [("ab", "ba"), ("cde", "edc")]
    tuned = finetune(
        small_lm(),
        path,
        letter_tokenizer(LETTERS),
        max_steps=1,
        eos_token_id=LETTERS.index("l"),
        progress=None,
    )
    assert tuned.examples == 2


BAD_ROWS = {
    "no response": ({"prompt": "a"}, r"which are no record. Give prompt with completion \(or response\)"),
    "null": ({"prompt": "a", "response": None}, "which are no record"),
    "a number": ({"prompt": "a", "response": 7}, "response"),
    "a comparison": ({"prompt": "a", "chosen": "b", "rejected": "c"}, "holds a comparison where a demonstration"),
    "a list": (["a", "b"], "is a list"),
}  # fmt: skip


@pytest.mark.parametrize("row, says", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, says):
    good = {"prompt": "a", "response": "b"}
    path = tmp_path / "demos.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(["", json.dumps(good), json.dumps(row)]).encode()))
    with pytest.raises(PromptError, match=rf"demos\.jsonl\.gz, line 3, .*{says}"):
        read_pairs(path)
    with pytest.raises(PromptError, match=rf"demonstrations\[1\] .*{says}"):
        read_pairs([good, row])


def test_a_text_that_cannot_be_encoded_is_named(tmp_path):
    path = tmp_path / "demos.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "response": "z"}\n')
    encode = DemonstrationEncoder(letter_tokenizer(LETTERS), eos_token_id=11)
    with pytest.raises(PromptError, match=r"demos\.jsonl, line 2, cannot be encoded"):
        encode(read_pairs(path), 9)


def test_no_demonstrations_is_an_error(tmp_path):
    (tmp_path / "demos.jsonl").write_text("\n")
    for source in ([], tmp_path / "demos.jsonl"):
        with pytest.raises(PromptError, match="no demonstrations"):
            read_pairs(source)


def test_a_prefix_parts_prompt_and_response_that_would_stick_together():
    encode = DemonstrationEncoder(letter_tokenizer("ab l"), eos_token_id=3, response_prefix=" ")
    pairs = [Pair("a", "b", "1"), Pair("a", " b", "2"), Pair("a", "", "3")]
    assert encode.responses(pairs) == [[2, 1, 3], [2, 1, 3], [3]]
