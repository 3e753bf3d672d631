"""Every shape is read into the record it means, and written back as it came."""

import gzip
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.preferences import Comparison, Demonstration, Origin, Ranking, Rating
from reward_models.preferences.conversational import dialogue, prompt_text, reply_text, split_texts
from reward_models.preferences.formats import pairs_of, ranking_of, rankings_of, read, to_dataset, write
from reward_models.preferences.records import CHOICES, RecordError
from reward_models.preferences.rows import record_of

QUESTION = [{"role": "user", "content": "What color is the sky?"}]
BLUE = [{"role": "assistant", "content": "It is blue."}]
GREEN = [{"role": "assistant", "content": "It is green."}]
PLAIN = Comparison("p", ("a", "b"), "left")


def one(row, **options):
    return read([row], **options).records[0]


# --- what is read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"prompt": "p", "completion": "a"}, Demonstration("p", "a")),
        (
            {"prompt": "p", "response": "a", "id": 7, "rater": "ann"},
            Demonstration("p", "a", "ann", {"id": 7}),
        ),
        ({"prompt": "p", "response": "a", "reward": 2}, Rating("p", "a", 2.0, columns={"reward": 2})),
        ({"prompt": "p", "completion": "a", "label": True}, Rating("p", "a", 1.0, columns={"label": True})),
        ({"text": "a", "score": 0.5, "id": "1"}, Rating("", "a", 0.5, columns={"id": "1"})),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, PLAIN),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": None}, PLAIN),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2, "weight": 0.5, "subset": "x"},
            Comparison("p", ("a", "b"), "left", margin=2.0, weight=0.5, columns={"subset": "x"}),
        ),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b", "tie": True},
            Comparison("p", ("a", "b"), "tie", columns={"tie": True}),
        ),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            Comparison("The sky is", (" blue.", " green."), "left"),
        ),
        (
            {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [2, 1, None]},
            Ranking("p", ("a", "b", "c"), (2, 1, None)),
        ),
    ],
)
def test_shapes(row, record):
    assert one(row) == record


def test_kind_decides_between_a_rating_and_a_demonstration():
    row = {"prompt": "p", "response": "a", "score": 3, "quality": [1, 2, 6]}
    assert one(row, kind="demonstrations") == Demonstration(
        "p", "a", columns={"score": 3, "quality": [1, 2, 6]}
    )
    assert one(row, kind="ratings").score == 3.0
    assert one(row, kind="ratings", score_field="quality").score == 3.0
    with pytest.raises(RecordError, match="holds a rating where a comparison is asked for"):
        read([row], kind="comparisons")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": QUESTION, "chosen": BLUE, "rejected": GREEN},
        {"chosen": QUESTION + BLUE, "rejected": QUESTION + GREEN},
        {"prompt": "ignored", "chosen": QUESTION + BLUE, "rejected": QUESTION + GREEN},  # as TRL does
    ],
)
def test_conversations_become_text_and_their_messages_are_kept(row):
    record = one(row)
    assert record.prompt == "What color is the sky?"
    assert record.responses == ("It is blue.", "It is green.")
    assert record.columns == {"conversation": {"prompt": QUESTION, "replies": [BLUE, GREEN]}}


def test_longer_conversations_become_a_labelled_dialogue():
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    assert (
        prompt_text(messages) == "System: Be kind.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Bye\n\nAssistant:"
    )
    assert prompt_text(messages[:3]) == "System: Be kind.\n\nUser: Hi\n\nAssistant: Hello"
    assert reply_text(messages[2:4]) == "Hello\n\nUser: Bye"


def test_hh_dialogues_are_cut_at_the_last_turn_they_share():
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Name one?\n\nAssistant:"
    record = one({"chosen": start + " Ann.", "rejected": start + " Anna.\n\nHuman: More?\n\nAssistant: No."})
    assert record.prompt == start
    assert record.responses == (" Ann.", " Anna.\n\nHuman: More?\n\nAssistant: No.")


# --- what is refused -------------------------------------------------------------------------------------------

BAD = [
    ("7", "is a number, not an object"),
    ("{}", "has the fields \\[\\]"),
    ('{"text": "a"}', "are no record"),
    ('{"prompt": "p", "chosen": "a"}', "are no record"),
    ('{"prompt": 3, "completion": "a"}', "a number in prompt"),
    ('{"prompt": "p", "completion": "\\ud800"}', "half a character in completion"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "weight": "2"}', "'2' in weight"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "weight": -2}', "weight is -2"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "margin": NaN}', "margin is nan"),
    ('{"chosen": "a", "rejected": "a"}', "Add the prompt"),
    ('{"prompt": [], "chosen": [], "rejected": []}', "no conversation"),
    ('{"prompt": [{"role": "user"}], "completion": [{"role": "user"}]}', "message without a text"),
    ('{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}', "completion is no conversation"),
    ('{"prompt": "p", "completions": ["a", "b"], "ranks": [1]}', "one rank for each"),
    ('{"prompt": "p", "completions": "ab", "ranks": [1, 2]}', "no lists"),
    ('{"type": "rating", "columns": {}, "prompt": "p", "response": "a", "score": "x"}', "has 'x' in score"),
    ('{"type": "rating", "columns": {}, "prompt": "p", "response": "a"}', "is no Rating"),
    ('{"type": "rating", "columns": {}, "stars": 3}', "stars.*which a Rating has not"),
    ("{", "cannot be read"),
    ("[" * 100_000, "cannot be read"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_bad_row_is_reported_with_file_and_line_and_the_rest_kept_or_refused(tmp_path, line, message):
    path = tmp_path / "pairs.jsonl"
    good = '{"prompt": "p", "chosen": "a", "rejected": "b"}'
    path.write_text(f"{good}\n\n{line}\n{good}\n")
    with pytest.raises(RecordError, match=rf"pairs\.jsonl, line 3[,:] .*{message}"):
        read(path)
    records, problems = read(path, on_error="drop")
    assert records == [PLAIN, PLAIN]
    assert len(problems) == 1 and "pairs.jsonl, line 3" in problems[0]


def test_a_gzip_file_cut_short_gives_what_it_has(tmp_path):
    path = tmp_path / "pairs.jsonl.gz"
    rows = [{"prompt": hashlib.sha256(bytes([i])).hexdigest(), "completion": "a"} for i in range(200)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match="cannot be read"):
        read(path)
    records, problems = read(path, on_error="drop")
    assert len(problems) == 1
    assert [record.prompt for record in records] == [row["prompt"] for row in rows[: len(records)]]


def test_many_bad_rows_are_shown_in_part():
    with pytest.raises(RecordError) as caught:
        read([{}] * 9)
    assert str(caught.value).count("are no record") == 5
    assert str(caught.value).endswith("... and 4 more.")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read("missing.jsonl"), "does not exist"),
        (lambda: read("pairs.csv"), "has none of the suffixes"),
        (lambda: read({"train": []}), "Choose a split"),
        (lambda: read(3), "Preferences are a int"),
        (lambda: read([], kind="pairs"), "kind is 'pairs'. Choose one of auto"),
        (lambda: read([], on_error="ignore"), "on_error is 'ignore'"),
        (lambda: write("x.csv", []), "neither .jsonl nor .jsonl.gz"),
        (lambda: write("x.jsonl", [], "csv"), "format is 'csv'. Choose one of trl"),
        (lambda: write("x.jsonl", [PLAIN, Demonstration("p", "a")]), "comparisons and demonstrations in one"),
        (lambda: write("x.jsonl", [Demonstration("p", "a")], "hh"), "'hh' cannot hold demonstrations"),
        (lambda: write("x.jsonl", [PLAIN], "ranked"), "stands alone"),
        (lambda: write("x.jsonl", [Demonstration("p", "a", columns={"x": {1}})]), "Record 0 cannot be JSON"),
        (lambda: write("x.jsonl", [Demonstration("p", "a", columns={"prompt": 1})]), "Rename them"),
    ],
)
def test_mistakes_are_named(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match=message):
        call()
    assert not list(tmp_path.iterdir())


# --- what is written -------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COLUMNS = st.dictionaries(
    st.sampled_from(["topic", "label", "id"]), st.one_of(TEXT, st.integers(), st.none()), max_size=2
)
ORIGINS = st.builds(
    Origin,
    TEXT,
    st.dictionaries(st.just("temperature"), st.floats(0, 2)),
    st.none() | st.integers(0, 2**63 - 1),
)
WEIGHTS = st.floats(0, 100)
RANKINGS = st.integers(2, 5).flatmap(
    lambda k: st.builds(
        Ranking,
        TEXT,
        st.tuples(*[TEXT] * k),
        st.tuples(*[st.none() | st.integers(1, 4)] * k),
        TEXT,
        TEXT,
        st.tuples(*[ORIGINS] * k),
        WEIGHTS,
        COLUMNS,
    )
)
COMPARISONS = st.builds(
    Comparison, TEXT, st.tuples(TEXT, TEXT), st.sampled_from(CHOICES), TEXT, TEXT,
    st.tuples(ORIGINS, ORIGINS), TEXT, st.none() | st.floats(-5, 5), WEIGHTS, COLUMNS,
)  # fmt: skip
RECORDS = st.one_of(
    st.builds(Demonstration, TEXT, TEXT, TEXT, COLUMNS),
    st.builds(Rating, TEXT, TEXT, st.floats(-1e6, 1e6), TEXT, TEXT, ORIGINS, COLUMNS),
    COMPARISONS,
    RANKINGS,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORDS, max_size=5))
def test_full_files_lose_nothing(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("full") / "records.jsonl.gz"
    write(path, records, "full")
    assert read(path).records == records


def test_full_datasets_lose_nothing():
    pytest.importorskip("datasets")
    records = [
        Demonstration("p", "a", "ann", {"id": 3, "nothing": None}),
        Rating("p", "a", 0.5, reason="because", origin=Origin("ab12", {"temperature": 0.7}, 2**63 - 1)),
        Comparison("p", ("a", "b"), "both_bad", margin=0.5, weight=2.0, columns={"id": ["x"]}),
        Ranking("p", ("a", "b", "c"), (None, 1, 1), origins=(Origin("x"), Origin(), Origin("z"))),
    ]
    assert read(to_dataset(records, "full")).records == records


@settings(max_examples=100, deadline=None)
@given(RANKINGS, st.randoms(use_true_random=False))
def test_a_ranking_becomes_pairs_and_comes_back(ranking, order):
    pairs = pairs_of(ranking)
    assert len(pairs) == len(ranking.responses) * (len(ranking.responses) - 1) // 2
    assert {pair.group for pair in pairs} == {ranking.group}
    order.shuffle(pairs)
    assert ranking_of(pairs) == ranking


def test_pairs_say_what_the_ranks_say():
    pairs = pairs_of(Ranking("p", ("a", "b", "c", "d"), (2, 1, 2, None)))
    assert {pair.responses: pair.choice for pair in pairs} == {
        ("a", "b"): "right", ("a", "c"): "tie", ("a", "d"): "skip",
        ("b", "c"): "left", ("b", "d"): "skip", ("c", "d"): "skip",
    }  # fmt: skip


def test_a_strict_ranking_survives_a_trl_file_of_its_pairs(tmp_path):
    rankings = [
        Ranking("p", ("a", "b", "c"), (3, 1, 2), rater="ann", columns={"topic": "x"}),
        Ranking("q", ("a", "b"), (2, 1)),
    ]
    export = write(tmp_path / "pairs.jsonl", rankings)
    assert (export.rows, export.left_out) == (4, 0)
    assert rankings_of(read(export.path).records) == rankings
    again = write(tmp_path / "ranked.jsonl", read(export.path).records, "ranked")
    assert read(again.path).records == rankings


def test_pairs_that_are_not_one_ranking_are_refused():
    pairs = pairs_of(Ranking("p", ("a", "b", "c"), (1, 2, 3)))
    with pytest.raises(RecordError, match="1 of 3 responses are in no pair"):
        ranking_of(pairs[:1])
    with pytest.raises(RecordError, match="mixed with others"):
        ranking_of([*pairs, *pairs_of(Ranking("q", ("a", "b"), (1, 2)))])
    with pytest.raises(RecordError, match="does not say which places"):
        ranking_of([Comparison("p", ("a", "b"), "left", group="g")])
    with pytest.raises(RecordError, match="no pairs"):
        ranking_of([])


ROWS = [
    ("trl", {"prompt": "p", "chosen": "a", "rejected": "b", "weight": 0.5, "margin": 1.5, "topic": "x"}),
    ("trl", {"prompt": "p", "completion": "a", "rater": "ann", "id": 3}),
    ("trl", {"prompt": "p", "completion": "a", "score": 0.25}),
    ("conversational", {"prompt": QUESTION, "chosen": BLUE, "rejected": GREEN, "topic": "x"}),
    ("conversational", {"prompt": QUESTION, "completion": BLUE}),
    ("conversational", {"prompt": [*QUESTION, *BLUE, {"role": "user", "content": "Why?", "name": "Bo"}],
                        "completion": [*GREEN, *QUESTION, *BLUE]}),
    ("ranked", {"prompt": "p", "completions": ["a", "b"], "ranks": [1, None], "topic": "x"}),
    ("hh", {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}),
]  # fmt: skip


@pytest.mark.parametrize(("format", "row"), ROWS)
def test_a_row_is_written_as_it_was_read(tmp_path, format, row):
    export = write(tmp_path / "rows.jsonl", [record_of(row)], format)
    assert [json.loads(line) for line in export.path.read_text().splitlines()] == [row]


def test_the_preferred_answer_comes_first_and_the_undecided_are_counted(tmp_path):
    records = [Comparison("p", ("a", "b"), choice) for choice in CHOICES]
    export = write(tmp_path / "pairs.jsonl", records)
    rows = [json.loads(line) for line in export.path.read_text().splitlines()]
    assert rows == [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "b", "rejected": "a"},
    ]
    assert (export.rows, export.left_out) == (2, 3)
    assert export.sha256 == hashlib.sha256(export.path.read_bytes()).hexdigest()


def test_a_margin_is_written_to_every_pair_or_to_none(tmp_path, caplog):
    records = [PLAIN, Comparison("p", ("a", "b"), "left", margin=1.0)]
    rows = write(tmp_path / "pairs.jsonl", records).path.read_text()
    assert "margin" not in rows and "1 of 2 pairs have a margin" in caplog.text


def test_the_same_records_give_the_same_bytes(tmp_path):
    first, again = (write(tmp_path / name, [PLAIN]) for name in ("a.jsonl.gz", "b.jsonl.gz"))
    assert first.sha256 == again.sha256


def test_plain_text_becomes_one_user_message_and_a_dialogue_its_turns(tmp_path):
    records = [
        Demonstration("p", " a"),
        Demonstration("\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Bye\n\nAssistant:", " a"),
    ]
    lines = write(tmp_path / "rows.jsonl", records, "conversational").path.read_text().splitlines()
    plain, turns = map(json.loads, lines)
    assert plain["prompt"] == [{"role": "user", "content": "p"}]
    assert plain["completion"] == [{"role": "assistant", "content": " a"}]
    assert [(m["role"], m["content"]) for m in turns["prompt"]] == [
        ("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye"),
    ]  # fmt: skip
    assert turns["completion"] == [{"role": "assistant", "content": "a"}]


def test_hh_dialogues_are_made_of_any_prompt():
    assert dialogue("Hi", "Yo") == "\n\nHuman: Hi\n\nAssistant: Yo"
    assert dialogue("User: Hi\n\nAssistant:", "Yo") == "\n\nHuman: Hi\n\nAssistant: Yo"
    assert dialogue("\n\nHuman: Hi\n\nAssistant:", " Yo") == "\n\nHuman: Hi\n\nAssistant: Yo"


# --- others' tools, others' data -------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["trl", "conversational"])
def test_trl_takes_what_is_written(tmp_path, format):
    datasets = pytest.importorskip("datasets")
    utils = pytest.importorskip("trl.data_utils")
    records = [Comparison("p", ("a", "b"), "right", reason="r"), PLAIN]
    path = write(tmp_path / "pairs.jsonl", records, format).path
    table = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert table.num_rows == 2
    assert utils.is_conversational(table[0]) == (format == "conversational")
    assert utils.maybe_extract_prompt(table[0]) == table[0]
    assert [record.chosen for record in read(table).records] == ["b", "a"]


def test_implicit_prompts_are_trls():
    utils = pytest.importorskip("trl.data_utils")
    for row in (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "Skyblue", "rejected": "Skygreen"},
        {"chosen": QUESTION + BLUE, "rejected": QUESTION + GREEN},
    ):
        theirs, record = utils.extract_prompt(row), one(row)
        if isinstance(row["chosen"], str):
            assert split_texts(row["chosen"], row["rejected"]) == tuple(theirs.values())
        else:
            assert record.columns["conversation"] == {
                "prompt": theirs["prompt"],
                "replies": [theirs["chosen"], theirs["rejected"]],
            }


def test_datasets_go_in_and_come_out(tmp_path):
    pytest.importorskip("datasets")
    records = [
        Ranking("p", ("a", "b"), (1, None), columns={"topic": "x"}),
        Ranking("q", ("a", "b", "c"), (1, 1, 2)),
    ]
    table = to_dataset(records, "ranked")
    assert table.column_names == ["prompt", "completions", "ranks", "topic"]
    assert read(table).records == records
    with pytest.raises(RecordError, match="The columns are no table"):
        to_dataset([Demonstration("p", "a", columns={"x": 1}), Demonstration("p", "a", columns={"x": [1]})])


def test_every_real_file_is_read_and_comes_back(data, tmp_path):
    """All of preferences, demos and ratings: no problems, and the rows come back as they were."""
    paths = sorted(
        path for kind in ("preferences", "demos", "ratings") for path in data.glob(f"{kind}/*/*.gz")
    )
    assert len(paths) == 49
    for path in paths:
        records, problems = read(path)
        assert records and not problems, path
        if path.parents[1].name == "preferences":
            with gzip.open(path, "rt", encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            export = write(tmp_path / "again.jsonl", records)
            written = [json.loads(line) for line in export.path.read_text().splitlines()]
            for row in written:
                if "rank_chosen" in row:
                    row.pop("group")
            assert written == [row for row in rows if row.get("tie") is not True]


def test_oasst_pairs_are_rankings(data):
    pairs = read(data / "preferences/oasst_trees100/train.jsonl.gz").records
    rankings = rankings_of(pairs)
    assert len(rankings) == 166 and max(len(ranking.responses) for ranking in rankings) == 8
    assert all(sorted(ranking.ranks) == list(range(1, len(ranking.ranks) + 1)) for ranking in rankings)
    implied = {
        (pair.prompt, pair.chosen, pair.rejected) for ranking in rankings for pair in pairs_of(ranking)
    }
    assert implied == {(pair.prompt, pair.chosen, pair.rejected) for pair in pairs}


def test_hh_files_come_back_as_hh(data, tmp_path):
    records = read(data / "preferences/hh_rlhf_harmless/test.jsonl.gz").records
    again = read(write(tmp_path / "hh.jsonl", records, "hh").path).records
    assert [(r.prompt.strip(), r.chosen[1:], r.rejected[1:]) for r in again] == [
        (r.prompt, r.chosen, r.rejected) for r in records
    ]
