import copy
import gzip
import json
import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text_envs.helpers import BYTES, LETTERS, byte_tokenizer
from text_envs import PromptError, PromptSource, PromptStream
from text_envs.prompts import say_once
from text_envs.tokenizer import load_tokenizer

BOS = BYTES.bos_token_id


def texts_of(source):
    return [source[i].text for i in range(len(source))]


def bytes_of(text):
    return [BOS, *(BYTES.convert_tokens_to_ids(token) for token in BYTES.tokenize(text))]


# -- where prompts come from


def test_strings_and_dicts():
    source = PromptSource(["ab", {"question": "c", "answer": 3}], LETTERS, prompt_field="question")
    assert [source[i].ids.tolist() for i in range(2)] == [[0, 1], [2]]
    assert [source[i].columns for i in range(2)] == [{}, {"answer": 3}]
    assert source.max_prompt_tokens == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_json_lines(tmp_path, suffix):
    path = tmp_path / f"prompts{suffix}"
    text = b'{"prompt": "ab", "n": 1}\n\n"c"\n'
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    source = PromptSource(path, LETTERS)
    assert texts_of(source) == ["ab", "c"]
    assert source[0].columns == {"n": 1}


def test_text_lines(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("ab\r\n\nc d\n")
    assert texts_of(PromptSource(str(path), BYTES)) == ["ab", "c d"]


def test_a_dataset():
    datasets = pytest.importorskip("datasets")
    source = PromptSource(datasets.Dataset.from_dict({"prompt": ["a", "b"], "label": [0, 1]}), LETTERS)
    assert texts_of(source) == ["a", "b"]
    assert source[1].columns == {"label": 1}


def test_a_generator_of_no_argument_is_read_once():
    reads = []

    def prompts():
        reads.append(1)
        yield from ("a", "b", "c")

    source = PromptSource(prompts, LETTERS)
    stream = PromptStream(source, np.random.default_rng(0))
    assert {stream.draw().text for _ in range(50)} == {"a", "b", "c"}
    assert len(reads) == 1


def counting(rng):
    yield str(rng.integers(10**9))
    number = 0
    while True:
        yield str(number)
        number += 1


def test_an_endless_generator_starts_anew_in_each_stream():
    source = PromptSource(counting, BYTES, max_prompt_tokens=12)
    drawn = [
        [stream.draw().text for _ in range(4)]
        for stream in (PromptStream(source, np.random.default_rng(i)) for i in (0, 1, 1))
    ]
    assert [texts[1:] for texts in drawn] == [["0", "1", "2"]] * 3
    assert drawn[0][0] != drawn[1][0] == drawn[2][0]


def test_a_list_is_drawn_as_documented():
    source = PromptSource(list("abcdefgh"), LETTERS)
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    stream = PromptStream(source, rng)
    assert [stream.draw().text for _ in range(50)] == ["abcdefgh"[int(same.integers(8))] for _ in range(50)]


# -- resuming


@pytest.mark.parametrize("prompts", [list("abcdefgh"), counting])
@settings(deadline=None)
@given(before=st.integers(0, 20), after=st.integers(1, 20))
def test_a_stream_continues_from_its_state(prompts, before, after):
    source = PromptSource(prompts, BYTES, max_prompt_tokens=12)
    stream = PromptStream(source, np.random.default_rng(1))
    for _ in range(before):
        stream.draw()
    state = json.loads(json.dumps(stream.state()))
    other = PromptStream(source, np.random.default_rng(2))
    other.draw()
    other.set_state(state)
    pickled, copied = pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)
    expected = [stream.draw().text for _ in range(after)]
    for twin in (other, pickled, copied):
        assert [twin.draw().text for _ in range(after)] == expected


def test_a_state_without_numbers_drawn_ahead_goes_on_from_its_generator():
    rng = np.random.default_rng(1)
    expected = ["abcdefgh"[int(number)] for number in np.random.default_rng(1).integers(8, size=4)]
    stream = PromptStream(PromptSource(list("abcdefgh"), LETTERS), np.random.default_rng(2))
    stream.draw()
    stream.set_state({"rng": rng.bit_generator.state, "seed": None, "drawn": 3})
    assert [stream.draw().text for _ in range(4)] == expected


# -- encoding


@pytest.mark.parametrize("text", ["Hi</s> <s>x", "<pad>", "a\0b"])
def test_special_token_text_is_plain_text(text):
    prompt = PromptSource([text], BYTES)[0]
    assert not set(prompt.ids[1:].tolist()) & set(BYTES.all_special_ids)
    assert prompt.ids[0] == BOS
    assert BYTES.decode(prompt.ids[1:]) == text == prompt.text


def test_special_token_text_is_plain_text_to_real_tokenizers(stories, data):
    for folder, special in ((stories, "</s>"), (data / "tokenizers" / "gpt2", "<|endoftext|>")):
        tokenizer = load_tokenizer(folder)
        prompt = PromptSource([f"one{special}two"], tokenizer)[0]
        head = 1 if folder == stories else 0  # stories260K puts BOS before a text, GPT-2 does not
        assert not set(prompt.ids[head:].tolist()) & set(tokenizer.all_special_ids)
        assert special in tokenizer.decode(prompt.ids[head:])


def test_a_million_characters():
    prompt = PromptSource(["word " * 200_000], BYTES, max_prompt_tokens=5)[0]
    assert prompt.ids.tolist() == bytes_of("ord ")


@pytest.mark.parametrize("side, kept", [("truncate_left", "cd"), ("truncate_right", "ab")])
def test_truncation_keeps_bos_and_one_side(side, kept):
    prompt = PromptSource(["abcd"], BYTES, max_prompt_tokens=3, prompts_too_long=side)[0]
    assert prompt.ids.tolist() == bytes_of(kept)
    assert prompt.text == kept


def test_an_empty_prompt_is_bos():
    assert PromptSource([""], BYTES)[0].ids.tolist() == [BOS]


def test_an_empty_prompt_is_bos_where_the_tokenizer_puts_none_before_texts(data):
    gpt2 = load_tokenizer(data / "tokenizers" / "gpt2")
    source = PromptSource(["", "Hi"], gpt2)
    assert source[0].ids.tolist() == [50256]
    assert source[1].ids.tolist() == [17250]


def test_what_is_too_long_is_said_once_with_counts(caplog):
    say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "text_envs"):
        for _ in range(2):
            source = PromptSource(["a", "abc", "abcd"], LETTERS, max_prompt_tokens=2, prompts_too_long="drop")
    assert texts_of(source) == ["a"]
    assert len(caplog.records) == 1
    assert "2 of 3 prompts" in caplog.text and "dropped" in caplog.text


def test_what_is_too_long_in_an_endless_stream_is_said_once(caplog):
    say_once.cache_clear()
    source = PromptSource(counting, BYTES, max_prompt_tokens=2)
    stream = PromptStream(source, np.random.default_rng(0))
    with caplog.at_level(logging.WARNING, "text_envs"):
        texts = [stream.draw().text for _ in range(20)]
    assert texts[10:12] == ["9", "0"]  # 10, cut from the left
    assert len(caplog.records) == 1 and "truncated" in caplog.text


# -- what cannot be used


def bad_files(path):
    return {
        '"a"\nnot json\n': ["line 2", "Repair"],
        '"a"\n\n{"text": "b"}\n': ["line 3", "'prompt'", "['text']", "prompt_field"],
        '{"prompt": 3}\n': ["line 1", "int"],
        '["a"]\n': ["line 1", "list"],
        "": ["no prompts"],
        '"a"\n"\\ud800"\n': ["line 2", "surrogate", "\\ud800"],
    }


@pytest.mark.parametrize("text", bad_files(None))
def test_a_bad_file_is_named_with_its_line(tmp_path, text):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(PromptError) as error:
        PromptSource(path, BYTES)
    for part in ["bad.jsonl", *bad_files(path)[text]]:
        assert part in str(error.value)


def test_a_gzip_file_cut_short_is_an_error(tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b'"a"\n' * 1000)[:-10])
    with pytest.raises(PromptError, match=r"cut\.jsonl\.gz"):
        PromptSource(path, LETTERS)


@pytest.mark.parametrize(
    "prompts, kwargs, parts",
    [
        (["a", ""], {}, ["prompts[1]", "no tokens", "BOS"]),
        (["a", "ab\ud800"], {}, ["prompts[1]", "surrogate", "character 2"]),
        (["a", "bz"], {}, ["prompts[1]", "cannot be encoded", "UNK"]),
        ([3], {}, ["prompts[0]", "int"]),
        (["a", {"text": "b"}], {}, ["prompts[1]", "'prompt'", "['text']"]),
        ([], {}, ["no prompts"]),
        (
            ["abc", "abcd"],
            dict(max_prompt_tokens=2, prompts_too_long="drop"),
            ["All 2", "max_prompt_tokens=2"],
        ),
        (["a", "abc"], dict(max_prompt_tokens=2, prompts_too_long="error"), ["prompts[1]", "3 tokens"]),
        (["h"], dict(vocab_size=7), ["prompts[0]", "token 7", "vocab_size=7"]),
        (["a"], dict(prompts_too_long="shorten"), ["'shorten'", "truncate_left"]),
        (["a"], dict(max_prompt_tokens=0), ["max_prompt_tokens=0"]),
        (counting, {}, ["max_prompt_tokens", "endless"]),
        (lambda: None, {}, ["generator function", "returned None", "yield"]),
        ("nowhere.jsonl", {}, ["nowhere.jsonl", "does not exist"]),
        ("prompts.csv", {}, ["prompts.csv", ".jsonl"]),
    ],
)
def test_what_cannot_be_used_is_named(prompts, kwargs, parts):
    with pytest.raises(ValueError) as error:
        PromptSource(prompts, LETTERS, **kwargs)
    for part in parts:
        assert part in str(error.value)


def test_something_else_is_no_source():
    with pytest.raises(TypeError, match="int"):
        PromptSource(3, LETTERS)


def test_an_endless_generator_that_ends_is_an_error():
    source = PromptSource(lambda rng: iter(["a"]), LETTERS, max_prompt_tokens=3)
    stream = PromptStream(source, np.random.default_rng(0))
    assert stream.draw().text == "a"
    with pytest.raises(PromptError, match="after 1 prompts"):
        stream.draw()


def test_an_endless_generator_that_returns_nothing_is_an_error():
    source = PromptSource(lambda rng: None, LETTERS, max_prompt_tokens=3)
    with pytest.raises(PromptError, match=r"returned None\. Let it yield prompts"):
        PromptStream(source, np.random.default_rng(0)).draw()


def test_an_endless_generator_of_nothing_usable_is_an_error_not_a_hang(monkeypatch):
    monkeypatch.setattr("text_envs.prompts.MOST_DROPPED_IN_A_ROW", 20)

    def too_long(rng):
        while True:
            yield "abcdefgh"

    source = PromptSource(too_long, LETTERS, max_prompt_tokens=3, prompts_too_long="drop")
    with pytest.raises(PromptError, match="max_prompt_tokens"):
        PromptStream(source, np.random.default_rng(0)).draw()


def test_a_tokenizer_without_special_tokens():
    plain = byte_tokenizer(bos=None, eos=None, pad=None)
    assert PromptSource(["ab"], plain)[0].ids.tolist() == plain.encode("ab")
