"""The example reward: a lexicon file named by an environment variable."""

import gzip
import json

import pytest

from reward_models import Completion, RewardError, make, score

REWARD = "examples.lexicon_reward:score"


@pytest.fixture
def lexicon(tmp_path):
    file = tmp_path / "lexicon.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        for text, value in [("Good", 2.0), ("bad", -2.5), (":)", 2.0)]:
            lines.write(json.dumps({"text": text, "score": value}) + "\n")
    return file


def judge(*responses):
    return score(make(REWARD), [Completion("", text) for text in responses]).tolist()


def test_words_add_up_and_are_clipped(monkeypatch, lexicon):
    monkeypatch.setenv("LEXICON", str(lexicon))
    assert judge('"Good," he said. :)', "goods", "", "bad!") == [1.0, 0.0, 0.0, -0.625]
    assert judge("good " * 100, "bad " * 100) == [3.0, -3.0]


def test_missing_or_foreign_file_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("LEXICON", raising=False)
    with pytest.raises(RewardError, match="set the environment variable LEXICON"):
        judge("a")
    monkeypatch.setenv("LEXICON", str(tmp_path / "none.jsonl"))
    with pytest.raises(RewardError, match=r"No lexicon at .*none.jsonl"):
        judge("a")
    for name, content in [
        ("a.jsonl", '{"word": "a"}\n'),
        ("b.jsonl", "good 2\n"),
        ("c.jsonl.gz", "not gzip"),
    ]:
        (tmp_path / name).write_text(content)
        monkeypatch.setenv("LEXICON", str(tmp_path / name))
        with pytest.raises(RewardError, match=f"{name}.*each line needs a text and a score"):
            judge("a")


def test_real_lexicon(monkeypatch, data):
    file = data / "ratings" / "vader_lexicon" / "all.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no lexicon at {file}")
    monkeypatch.setenv("LEXICON", str(file))
    happy, sad, plain = judge(
        "They were happy and had fun.", "He was sad and cried.", "The cat sat on the mat."
    )
    assert happy > 1.0 and sad < -0.5 and plain == 0.0
