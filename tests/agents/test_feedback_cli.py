"""`rlhf feedback rate, import, export, stats`: what they store, print, and say to mistakes."""

import gzip
import hashlib
import io
import json

import pytest

pytest.importorskip("sqlalchemy")

from agents import cli
from reward_models.preferences import Comparison, Demonstration
from reward_models.preferences.formats import read, write
from reward_models.preferences.raters import SimulatedRater
from reward_models.preferences.store import FeedbackStore


@pytest.fixture
def rlhf(tmp_path, monkeypatch, capsys):
    """Runs `rlhf feedback ...` in a folder of its own; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, typed=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        try:
            status = cli.main(["feedback", *map(str, arguments)])
        except SystemExit as exit:
            status = exit.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def rows(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def longer(completions):
    return [len(completion.response) for completion in completions]


PAIRS = [
    Comparison("p", ("a", "bb"), "right", "ann", "longer"),
    Comparison("q", ("a", "b"), "tie"),
    Comparison("r", ("aa", "b"), "left"),
]


# --- import ----------------------------------------------------------------------------------------------------


def test_prompts_are_imported_and_demonstrations_asked_for(rlhf, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\ntwo\n")
    more = rows(tmp_path / "more.jsonl", {"prompt": "three", "topic": "x"})
    status, out, _ = rlhf("import", "prompts.txt", more, "--request", "demonstrations", "--overlap", "2")
    assert status == 0
    assert out.splitlines() == [
        "prompts.txt: 2 prompts",
        f"{more}: 1 prompt",
        "Asked for 3 demonstrations, each of 2 raters.",
    ]
    with FeedbackStore("feedback.db") as store:
        assert [(item.prompt, item.overlap) for item in store.items()] == [
            ("one", 2),
            ("two", 2),
            ("three", 2),
        ]


def test_samples_are_imported_and_compared(rlhf, tmp_path):
    """Fields in which the answers to one prompt differ belong to the answer: they would make each prompt unlike the other."""
    samples = [
        {
            "prompt": "p",
            "response": text,
            "score": len(text),
            "topic": "x",
            "origin": {"model": "ab", "seed": 1},
        }
        for text in ("a", "bb", "ccc")
    ]
    path = rows(tmp_path / "samples.jsonl", *samples)
    status, out, _ = rlhf("import", path, "--request", "comparisons")
    assert status == 0 and "3 samples" in out and "Asked for 1 comparisons, each of 1 rater." in out
    with FeedbackStore("feedback.db") as store:
        SimulatedRater(longer).rate(store)
        (record,) = store.comparisons()
        assert record.columns == {"topic": "x"} and record.origins[0].model == "ab"
    status, out, _ = rlhf("import", path, "--request", "rankings", "--k", "3")
    assert "Asked for 1 rankings" in out


def test_answers_without_an_origin_are_samples_where_that_is_said(rlhf, tmp_path):
    path = rows(
        tmp_path / "s.jsonl", {"prompt": "p", "response": "a"}, {"prompt": "p", "response": "b", "score": 1}
    )
    status, out, _ = rlhf("import", path, "--kind", "samples")
    assert status == 0 and out.startswith(f"{path}: 2 samples\n") and "--request" in out
    status, out, _ = rlhf("import", path, "--kind", "samples", "--request", "ratings")
    assert "Asked for 2 ratings" in out


def test_what_raters_said_is_imported_once(rlhf, tmp_path):
    pairs = write(tmp_path / "pairs.jsonl.gz", PAIRS, "full").path
    demos = write(tmp_path / "demos.jsonl", [Demonstration("p", "good")]).path
    status, out, _ = rlhf("import", pairs, demos, "--rater", "file")
    assert status == 0
    assert out.splitlines() == [
        f"{pairs}: 3 comparisons, 3 new votes",
        f"{demos}: 1 demonstration, 1 new vote",
    ]
    assert "3 comparisons, 0 new votes" in rlhf("import", pairs, "--rater", "file")[1]
    with FeedbackStore("feedback.db") as store:
        assert sorted(record.rater for record in store.records()) == ["ann", "file", "file", "file"]


def test_bad_rows_refuse_the_file_or_are_left_out(rlhf, tmp_path):
    path = rows(
        tmp_path / "pairs.jsonl",
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": 3, "chosen": "a"},
    )
    status, out, err = rlhf("import", path)
    assert (status, out) == (2, "") and f"{path}, line 2, " in err
    assert not (tmp_path / "feedback.db").exists()
    status, out, err = rlhf("import", path, "--on-error", "drop")
    assert status == 0 and "1 comparison, 1 new vote, 1 rows left out" in out
    assert f"left out: {path}, line 2, " in err
    prompts = rows(tmp_path / "prompts.jsonl", {"prompt": "p"}, {"prompt": 3})
    assert rlhf("import", prompts)[0] == 2
    assert "1 prompt, 1 rows left out" in rlhf("import", prompts, "--on-error", "drop")[1]


def test_a_real_file_goes_in_and_comes_out(rlhf, tmp_path, data):
    source = data / "preferences/pandalm_human/test.jsonl.gz"
    status, out, _ = rlhf("import", source)
    assert status == 0 and "762 comparisons, 762 new votes" in out
    assert "667 rows (95 that prefer neither answer left out)" in rlhf("export", "--out", "out.jsonl.gz")[1]
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    key = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731
    with gzip.open("out.jsonl.gz", "rt", encoding="utf-8") as file:
        exported = [json.loads(line) for line in file]
    for row in exported:
        assert row.pop("rater").startswith("import")
    assert sorted(map(key, exported)) == sorted(key(row) for row in rows if not row["tie"])


# --- export ----------------------------------------------------------------------------------------------------


def test_an_export_prints_rows_and_the_files_sha256(rlhf, tmp_path):
    rlhf("import", write(tmp_path / "pairs.jsonl", PAIRS, "full").path)
    status, out, _ = rlhf("export", "--out", "out.jsonl")
    sha256 = hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest()
    assert status == 0
    assert out == f"2 rows (1 that prefer neither answer left out) in out.jsonl\nsha256 {sha256}\n"
    assert {record.chosen for record in read("out.jsonl").records} == {"bb", "aa"}
    assert (
        "3 rows in all.jsonl"
        in rlhf("export", "--out", "all.jsonl", "--kind", "records", "--format", "full")[1]
    )


# --- stats -----------------------------------------------------------------------------------------------------


def test_stats_are_tables_or_json(rlhf, tmp_path):
    write(tmp_path / "pairs.jsonl", PAIRS, "full")
    rlhf("import", "pairs.jsonl", "--request", "comparisons", "--overlap", "3")
    with FeedbackStore("feedback.db") as store:
        SimulatedRater(longer, temperature=0, name="\u202esim").rate(store)
    status, out, _ = rlhf("stats", "--json")
    summary = json.loads(out)
    assert status == 0 and summary["votes"] == 6
    assert summary["comparisons"]["raw_agreement"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    status, out, _ = rlhf("stats")
    assert status == 0 and "6 of 9 votes, 0 of 3 items done" in out
    assert "1.00 (1.00–1.00)" in out and "the longer answer wins" in out and "ann" in out
    assert "⟨RLO⟩sim" in out and "\u202e" not in out


def test_stats_of_nothing_yet(rlhf, tmp_path):
    rlhf("import", rows(tmp_path / "prompts.jsonl", {"prompt": "p"}))
    status, out, _ = rlhf("stats")
    assert status == 0 and "0 of 0 votes" in out


# --- rate ------------------------------------------------------------------------------------------------------


def test_rate_takes_lines_from_the_terminal(rlhf, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    rlhf("import", "prompts.txt", "--request", "demonstrations")
    status, out, _ = rlhf("rate", "--rater", "ann", typed="first\nanswer\n.\n/q\n")
    assert status == 0 and "1 vote cast" in out
    with FeedbackStore("feedback.db") as store:
        assert store.demonstrations() == [Demonstration("one", "first\nanswer", "ann")]
    assert "1 vote cast" in rlhf("rate", "--n", "1", typed="second\n.\n")[1]


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rate", "--db", "typo.db"], "There is no feedback database at typo.db"),
        (["stats", "--db", "sqlite:///typo.db"], "There is no feedback database at typo.db"),
        (["export", "--db", "typo.db", "--out", "x.jsonl"], "There is no feedback database"),
        (["export"], "--out is missing"),
        (["import"], "no file is named"),
        (["import", "nothing.jsonl"], "nothing.jsonl does not exist"),
        (["import", "x.csv"], "has none of the suffixes"),
        (["import", "prompts.txt", "--kind", "comparisons"], "holds lines of text, which are prompts"),
        (["import", "prompts.txt", "--request", "comparisons"], "No prompt has two different answers"),
        (["import", "prompts.txt", "--overlap", "0"], "--overlap: "),
        (["import", "prompts.txt", "--db", "mysql://x/y"], "cannot be kept in mysql"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(rlhf, tmp_path, arguments, message):
    (tmp_path / "prompts.txt").write_text("one\n")
    status, _, err = rlhf(*arguments)
    assert status == 2
    assert message in err and "Traceback" not in err and err.count("\n") == 1
    assert not (tmp_path / "typo.db").exists()


def test_an_export_that_has_no_such_form_is_a_mistake(rlhf, tmp_path):
    rlhf("import", write(tmp_path / "pairs.jsonl", PAIRS, "full").path)
    for arguments, message in (
        (["--format", "ranked"], "stands alone"),
        (["--out", "out.csv"], "neither .jsonl nor .jsonl.gz"),
        (["--out", "no/folder/out.jsonl"], "No such file"),
    ):
        status, _, err = rlhf(
            "export", *(["--out", "x.jsonl"] if "--out" not in arguments else []), *arguments
        )
        assert status == 2 and message in err
