"""What the model card says of those whose preferences a model learned from."""

import pytest

from agents.model_card import raters_of
from agents.settings import FeedbackSettings, LoopSettings


@pytest.mark.parametrize(
    "settings, words",
    [
        (
            dict(feedback=FeedbackSettings(flip=0.15)),
            "simulated by the judge (temperature 0.1, 15% of the choices flipped): no person rated this run's answers",
        ),
        (dict(feedback=FeedbackSettings(rater="web", overlap=2)), "people (web), 2 for each item"),
        (
            dict(feedback=FeedbackSettings(votes=0), preferences="people.jsonl"),
            "those of preferences that were given (people.jsonl), unknown here; nobody was asked in this run",
        ),
        (
            dict(reward_model="judge", rounds=1),
            "those of a reward model that was given (judge), unknown here; nobody was asked in this run",
        ),
        (
            dict(reward_model="judge", rounds=2, feedback=FeedbackSettings(rater="web")),
            "those of a reward model that was given (judge), unknown here; people (web), 1 for each item",
        ),
    ],
)
def test_the_card_says_whose_preferences_they_were(settings, words):
    assert raters_of(LoopSettings(**settings).to_json()) == words
