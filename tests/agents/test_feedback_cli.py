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
    assert status == 0 and "3 samples" in out and "Asked for 1 comparison, each of 2 raters." in out
    with FeedbackStore("feedback.db") as store:
        SimulatedRater(longer).rate(store)
        (record,) = store.comparisons()
        assert record.columns == {"topic": "x"} and record.origins[0].model == "ab"
    status, out, _ = rlhf("import", path, "--request", "rankings", "--k", "3")
    assert "Asked for 1 ranking, each of 1 rater." in out


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
    assert status == 0 and "1 comparison, 1 new vote, 1 row left out" in out
    assert f"left out: {path}, line 2, " in err
    prompts = rows(tmp_path / "prompts.jsonl", {"prompt": "p"}, {"prompt": 3})
    assert rlhf("import", prompts)[0] == 2
    assert "1 prompt, 1 row left out" in rlhf("import", prompts, "--on-error", "drop")[1]


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


@pytest.mark.parametrize(
    "row, problem",
    [
        ({"prompt": "p", "response": "  "}, "is no answer to a demonstration"),
        ({"prompt": "p", "response": "a", "rater": "x" * 101}, "Give a name of 1 to 100 characters"),
        ({"prompt": "p", "response": "a", "score": 1, "x": float("nan")}, "null instead of NaN"),
        (
            {"prompt": "p", "response": "a", "origin": {"sampling": {"t": float("nan")}}},
            "null instead of NaN",
        ),
        (
            {"prompt": "p", "response": "a", "origin": {"sampling": "abc"}},
            "has the origin {'sampling': 'abc'}",
        ),
        ({"prompt": "p", "response": "a", "origin": {"model": 5, "seed": "x"}}, "has the origin"),
        ({"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1_000_001]}, "is no answer to a ranking"),
        ({"prompt": "p", "response": "a", "score": 10**400}, "has a number in score that is too large"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "weight": 10**400}, "number in weight that is too"),
        ({"type": ["comparison"], "prompt": "p", "columns": {}}, "which are no record"),
        ({"prompt": "p", "x": float("nan")}, "The columns of the row cannot be kept"),
        ([1, 2], "is a list, not an object with fields. Give each row its own"),
    ],
)
def test_what_the_store_would_refuse_is_told_with_its_line_before_anything_is_stored(
    rlhf, tmp_path, row, problem
):
    good = rows(tmp_path / "good.jsonl", {"prompt": "p", "response": "a"})
    bad = rows(tmp_path / "bad.jsonl", row)
    status, out, err = rlhf("import", good, bad)
    assert (status, out) == (2, "") and f"{bad}, line 1" in err and problem in err
    assert not (tmp_path / "feedback.db").exists()


def test_a_blank_answer_among_others_can_be_left_out(rlhf, tmp_path):
    path = rows(tmp_path / "demos.jsonl", {"prompt": "p", "response": " "}, {"prompt": "q", "response": "ok"})
    status, out, err = rlhf("import", path, "--on-error", "drop")
    assert status == 0 and "1 demonstration, 1 new vote, 1 row left out" in out
    assert f"left out: {path}, line 1: " in err


@pytest.mark.parametrize("name, text", [("empty.jsonl", ""), ("blank.jsonl", "\n\n"), ("empty.txt", "")])
def test_a_file_without_rows_is_a_mistake(rlhf, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    status, _, err = rlhf("import", name, "--request", "comparisons")
    assert status == 2 and f"{name} holds no rows. Name another file." in err


def test_a_request_is_about_the_imported_files_alone(rlhf, tmp_path):
    old = [{"prompt": "p", "response": text} for text in "ab"]
    rlhf("import", rows(tmp_path / "old.jsonl", *old), "--kind", "samples", "--request", "comparisons")
    status, _, err = rlhf(
        "import",
        rows(tmp_path / "new.jsonl", {"prompt": "new"}),
        "--request",
        "comparisons",
        "--overlap",
        "5",
    )
    assert status == 2 and "the files hold no samples to compare" in err
    with FeedbackStore("feedback.db") as store:
        assert [(item.kind, item.overlap) for item in store.items()] == [("comparison", 2)]


def test_every_two_answers_are_compared_where_that_is_asked_for(rlhf, tmp_path):
    path = rows(tmp_path / "s.jsonl", *[{"prompt": "p", "response": text} for text in "abc"])
    out = rlhf("import", path, "--kind", "samples", "--request", "comparisons", "--pairing", "all")[1]
    assert "Asked for 3 comparisons, each of 2 raters." in out


def test_right_answers_are_asked_for_and_raters_measured_on_them(rlhf, tmp_path):
    path = rows(
        tmp_path / "gold.jsonl", *[{"prompt": p, "chosen": "good", "rejected": "bad one"} for p in "pq"]
    )
    status, out, _ = rlhf("import", path, "--kind", "gold")
    assert status == 0 and out == f"{path}: 2 gold comparisons\n"
    with FeedbackStore("feedback.db") as store:
        assert [item.overlap for item in store.items()] == [2, 2] and store.votes() == []
        SimulatedRater(longer, temperature=0, name="by length").rate(store)
        (rater,) = store.progress().by_rater
        assert (rater["gold"], rater["gold_accuracy"]) == (2, 0.0)
    demos = rows(tmp_path / "demos.jsonl", {"prompt": "p", "response": "a"})
    assert "a comparison is asked for" in rlhf("import", demos, "--kind", "gold")[2]


def test_answers_read_as_prompts_are_told(rlhf, tmp_path):
    path = rows(tmp_path / "pairs.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    status, _, err = rlhf("import", path, "--kind", "prompts")
    assert status == 0 and "chosen, rejected became columns of the prompts" in err


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


def test_an_export_replaces_nothing_unasked_and_says_that_it_is_empty(rlhf, tmp_path):
    rlhf("import", write(tmp_path / "pairs.jsonl", PAIRS, "full").path)
    (tmp_path / "out.jsonl").write_text("precious\n")
    status, _, err = rlhf("export", "--out", "out.jsonl")
    assert status == 2 and "out.jsonl is there already. Name another file, or say --overwrite." in err
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"
    status, out, err = rlhf("export", "--out", "out.jsonl", "--overwrite", "--kind", "rankings")
    assert status == 0 and out.startswith("0 rows in out.jsonl")
    assert "There are no rankings to export yet: the file is empty." in err


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
    out = rlhf("rate", "--rater", "anne")[1]
    assert "New rater: anne" in out and "Nothing is left to do for anne." in out
    assert "New rater" not in rlhf("rate", "--rater", "ann")[1]


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
        (["import", "prompts.txt", "--request", "comparisons"], "the files hold no samples to compare. Name"),
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
        (["--out", "no/folder/out.jsonl"], "there is no folder"),
    ):
        status, _, err = rlhf(
            "export", *(["--out", "x.jsonl"] if "--out" not in arguments else []), *arguments
        )
        assert status == 2 and message in err
