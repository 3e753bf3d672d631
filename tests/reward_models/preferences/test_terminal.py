"""A person at a terminal: what is shown, what may be typed, and what is stored."""

import io

import pytest
from rich.console import Console

pytest.importorskip("sqlalchemy")

from reward_models.preferences.store import FeedbackStore, Sample
from reward_models.preferences.terminal import TerminalRater, _Unclear, ranks_of


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        yield store


def compare(store, n=2):
    store.add_samples(Sample(f"p{i}", text) for i in range(n) for text in ("good", "bad"))
    store.request_comparisons(overlap=1)


def sit(store, *lines, n=None, width=80):
    """A person types these lines, then Ctrl-D. Returns (votes, what was shown)."""
    typed, screen = iter(lines), io.StringIO()

    def read_line(prompt):
        line = next(typed, None)
        if line is None:
            raise EOFError
        if line == "^C":
            raise KeyboardInterrupt
        return line

    console = Console(file=screen, width=width)
    votes = TerminalRater(console, "ann", read_line).rate(store, n)
    assert next(typed, None) is None, "all that was typed was read"
    return votes, screen.getvalue()


def answers(store):
    return [(vote.answer, vote.reason) for vote in store.votes(current=True)]


@pytest.mark.parametrize(
    ("typed", "choice"),
    [("1", "left"), ("2", "right"), ("0", "tie"), ("b", "both_bad"), ("s", "skip"), (" B ", "both_bad")],
)
def test_a_key_is_a_choice_about_the_answers_as_shown(store, typed, choice):
    compare(store, 1)
    votes, screen = sit(store, typed)
    assert votes == 1 and answers(store) == [({"choice": choice}, "")]
    assert "Nothing is left to rate" in screen and "1 vote cast" in screen
    assert store.votes()[0].seconds >= 0


def test_a_reason_may_follow(store):
    compare(store, 1)
    sit(store, "1 it is  kinder ")
    assert answers(store) == [({"choice": "left"}, "it is  kinder")]


def test_the_first_answer_is_shown_first(store):
    compare(store, 1)
    _, screen = sit(store, "1")
    (record,) = store.comparisons()
    assert (
        screen.index("─ 1 ─")
        < screen.index(record.chosen)
        < screen.index("─ 2 ─")
        < screen.index(record.rejected)
    )
    assert "0 of 1 votes" in screen and "p0" in screen


def test_a_wide_terminal_shows_two_answers_side_by_side(store):
    compare(store, 1)
    _, screen = sit(store, "1", width=120)
    assert any("good" in line and "bad" in line for line in screen.splitlines())


def test_what_is_no_answer_is_asked_again(store):
    compare(store, 1)
    votes, screen = sit(store, "3", "", "left", "2")
    assert votes == 1 and screen.count("Type one of 1, 2, 0, b, s, u, q") == 3


def test_undo_takes_the_last_vote_back_and_asks_again(store):
    compare(store)
    votes, screen = sit(store, "u", "1", "u", "2", "0")
    assert votes == 2 and "nothing to take back" in screen
    assert answers(store) == [({"choice": "right"}, ""), ({"choice": "tie"}, "")]


def test_the_very_last_vote_can_be_taken_back_too(store):
    compare(store, 1)
    votes, _ = sit(store, "1", "u", "2", "")
    assert votes == 1 and answers(store) == [({"choice": "right"}, "")]


@pytest.mark.parametrize("end", ["q", "^C", None])
def test_quitting_keeps_the_votes_and_frees_the_item(store, end):
    compare(store)
    votes, screen = sit(store, "1", *([end] if end else []))
    assert votes == 1 and "1 vote cast" in screen
    assert store.assign(store.rater("bob").id) is not None


def test_a_number_of_votes_is_enough(store):
    compare(store)
    assert sit(store, "1", n=1)[0] == 1
    assert sit(store, n=0)[0] == 0


def test_hidden_characters_are_shown_by_name(store):
    store.add_samples([Sample("p\x1b[2J", "ab\u202ecd"), Sample("p\x1b[2J", "[red]markup[/red]")])
    store.request_comparisons(overlap=1)
    _, screen = sit(store, "1")
    assert "p⟨ESC⟩[2J" in screen and "ab⟨RLO⟩cd" in screen and "[red]markup[/red]" in screen
    assert "\x1b" not in screen and "\u202e" not in screen


def test_guidelines_are_shown_first(store):
    compare(store, 1)
    store.guidelines = "Be fair."
    _, screen = sit(store, "1")
    assert screen.index("Be fair.") < screen.index("p0")


def test_rankings_are_typed_from_the_best_down(store):
    store.add_samples(Sample("p", text) for text in "abc")
    store.request_rankings(k=3)
    votes, _ = sit(store, "2>>1", "4>1", "1>1", "2>1=3 well", "u", "s", "u", "3")
    assert votes == 1 and answers(store) == [({"ranks": [None, None, 1]}, "")]


@pytest.mark.parametrize(
    ("typed", "ranks"),
    [
        ("2>1=3", [2, 1, 2]),
        ("1", [1, None, None]),
        ("3>2>1", [3, 2, 1]),
        ("1=2=3", [1, 1, 1]),
        ("s", [None] * 3),
    ],
)
def test_a_typed_ranking_is_ranks(typed, ranks):
    assert ranks_of(typed, 3) == {"ranks": ranks}


@pytest.mark.parametrize("typed", ["", "2>", ">1", "a>b", "0>1", "4", "1>1", "1,2", "²"])
def test_what_is_no_ranking_is_refused(typed):
    with pytest.raises(_Unclear):
        ranks_of(typed, 3)


def test_ratings_are_numbers(store):
    store.add_samples([Sample("p", "a"), Sample("q", "b")])
    store.request_ratings()
    votes, _ = sit(store, "good", "nan", "s", "3.5 fine", "4")
    assert votes == 2 and answers(store) == [({"score": 3.5}, "fine"), ({"score": 4.0}, "")]
    assert store.ratings()[0].prompt == "q", "s leaves an item for later"


def test_a_demonstration_is_written_in_lines(store):
    store.add_prompts(["p"])
    store.request_demonstrations()
    votes, screen = sit(store, ".", "wrong", "/clear", "one", "", "two", ".")
    assert votes == 1 and "nothing in it yet" in screen
    assert answers(store) == [({"response": "one\n\ntwo"}, "")]


def test_a_draft_is_kept_and_gone_on_with(store):
    store.add_prompts(["p"])
    store.request_demonstrations()
    assert sit(store, "one", "/q")[0] == 0
    votes, screen = sit(store, "two", ".")
    assert votes == 1 and "Your draft" in screen and "one" in screen
    assert answers(store) == [({"response": "one\ntwo"}, "")]
    assert sit(store)[0] == 0


def test_undo_of_a_demonstration_gives_the_text_back(store):
    store.add_prompts(["p", "q"])
    store.request_demonstrations()
    votes, _ = sit(store, "one", ".", "/u", ".", "/s", "two", ".")
    assert votes == 2
    assert [record.response for record in store.demonstrations()] == ["one", "two"]


def test_a_person_rates_over_http_too(store):
    pytest.importorskip("fastapi")
    from reward_models.preferences.client import HTTPClient
    from tests.reward_models.preferences.serving import served

    compare(store)
    with served(store) as address, HTTPClient(address, "ann") as client:
        votes, screen = sit(client, "1", "u", "2 nicer", "q")
    assert votes == 1 and "0 of 2 votes" in screen
    assert answers(store) == [({"choice": "right"}, "nicer")]
    assert store.raters()[0].name == "ann"
