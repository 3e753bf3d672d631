"""The arithmetic of the fine-tuning benchmark, by sentences that one can judge, and its whole way on a few rows."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.sft import measure as measuring
from benchmarks.sft.measure import figures_of_people, nearest
from benchmarks.sft.report import escaped, write
from benchmarks.sft.tasks import TASKS, Task
from reward_models.coverage import concept_coverage, slot_coverage
from reward_models.preferences.records import Demonstration

MEANING = "name[Blue Spice], eatType[pub], priceRange[cheap], area[riverside], familyFriendly[no]"


@pytest.mark.parametrize(
    "response, share",
    [
        ("Blue Spice is a cheap pub by the river, not for families.", 1.0),
        ("Blue Spice is an inexpensive pub near the riverside. It is for adults only.", 1.0),
        ("Blue Spice is a cheap pub by the river where kids are welcome.", 4 / 5),
        ("The Punter is a pub in the city centre.", 1 / 5),
        ("", 0.0),
    ],
)
def test_slots_that_a_response_says(response, share):
    assert slot_coverage(MEANING, response) == pytest.approx(share)


@pytest.mark.parametrize(
    "response, share",
    [
        ("The dancers run on the stages.", 1.0),
        ("She was dancing and running on a stage", 1.0),
        ("A dance", 1 / 3),
        ("The runt has a stagecoach.", 1 / 3),
    ],
)
def test_concepts_that_a_response_has(response, share):
    assert concept_coverage("dance run stage", response) == pytest.approx(share)


@pytest.mark.parametrize("name", TASKS)
def test_the_demonstrations_themselves_cover_what_is_asked(data, name):
    _, held_out = TASKS[name].demonstrations()
    shares = [TASKS[name].coverage(d.prompt, d.response) for d in held_out[:1000]]
    assert sum(shares) / len(shares) > 0.9


@pytest.mark.parametrize("name", TASKS)
def test_no_prompt_is_on_both_sides(data, name):
    train, held_out = TASKS[name].demonstrations()
    assert held_out and not {d.prompt for d in train} & {d.prompt for d in held_out}


def test_a_response_is_asked_for_again_by_its_own_words_but_never_by_a_held_out_prompt():
    task = replace(TASKS["commongen"], asked_again=30)
    known = [Demonstration(" dog run =", "The dog is running in the park.")]
    drawn = task.drawn(known, [Demonstration(" park dog =", "A dog in a park.")], seed=0)
    asked = {frozenset(d.prompt.split()) - {"="} for d in drawn}
    assert {d.response for d in drawn} == {"The dog is running in the park."}
    assert asked == {
        frozenset(words.split()) for words in ("dog running", "running park", "dog running park")
    }
    assert all(d.prompt.startswith(" ") and d.prompt.endswith(" =") for d in drawn)


def test_the_nearest_prompt_shares_most_words():
    known = [Demonstration("a b c", "one"), Demonstration("c d", "two")]
    assert nearest(known, ["a b", "d"]) == {"a b": "one", "d": "two"}


def test_people_are_measured_against_one_another():
    task = SimpleNamespace(coverage=lambda prompt, response: float(prompt in response))
    figures = figures_of_people(task, {"cat": ["the cat sat", "the cat ran"], "dog": ["a dog"]})
    assert figures.rouge_l == pytest.approx(
        2 / 3
    )  # two of three words; the dog's one demonstration has no other
    assert figures.coverage == 1.0


def test_a_cell_shows_its_text_and_nothing_else():
    assert escaped("a|b <i>\n[x](y) \x1b") == r"a\|b \<i\> \[x\](y) �"


def test_the_whole_way(tmp_path, monkeypatch):
    words = ("cat", "dog", "cow", "pig", "hen", "fox")
    rows = [Demonstration(word, f"the {word} {did}") for word in words for did in ("sat", "ran")]
    task = Task("animals", "an animal to a sentence", (), (), concept_coverage, "concepts", 2)
    monkeypatch.setattr(Task, "demonstrations", lambda self: (rows[:8], rows[8:]))
    monkeypatch.setattr(
        measuring,
        "MODEL",
        measuring.MODEL | dict(hidden_size=12, num_hidden_layers=1, intermediate_size=32),
    )
    monkeypatch.setattr(measuring, "LONGEST", 5)
    result = measuring.measure(task, seed=0, steps=None, say=lambda text: None)
    assert result["held_out_prompts"] == 2 and result["steps"] == 2
    assert (
        result["figures"]["people"]["coverage"] == result["figures"]["the prompt itself"]["coverage"] == 1.0
    )
    write([result], {"cpu": "x", "threads": 1, "load_average": [0.0]}, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["results"][0]["task"] == "animals"
    assert "| after |" in (tmp_path / "results.md").read_text()
