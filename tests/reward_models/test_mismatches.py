"""Comparisons that cost nothing: a response against one that was given to another prompt."""

import numpy as np
import pytest
import torch

from reward_models import Completion, make, score
from reward_models.learning import train
from reward_models.mismatches import mismatches, pretrain
from reward_models.preference_data import EncodedGroup
from reward_models.preference_losses import Contest
from reward_models.reward_head import EveryToken, RewardHead, load_classifier, right_padded
from text_envs.letters import letter_tokenizer
from text_envs.tasks import support_reply

MODEL = dict(model_type="gpt2", vocab_size=10, n_embd=16, n_layer=2, n_head=2, n_positions=64)
PAIRS = [
    (f"my {thing} is {state}", f"sorry about the {thing}") for thing in "abcdef" for state in ("late", "lost")
]


def test_the_prompts_own_response_is_chosen_against_another_prompts():
    answers = dict(PAIRS)
    made = mismatches(PAIRS, 200, seed=1)
    assert 150 < len(made) <= 200
    for comparison in made:
        assert comparison.choice == "left" and comparison.rater == "mismatch"
        assert comparison.responses[0] == answers[comparison.prompt] != comparison.responses[1]
        assert comparison.responses[1] in answers.values()


def test_the_same_seed_makes_the_same():
    assert mismatches(PAIRS, 20, seed=3) == mismatches(PAIRS, 20, seed=3) != mismatches(PAIRS, 20, seed=4)


def test_a_hard_one_comes_from_a_prompt_that_is_alike():
    common = "please help me with my order number one two three"
    pairs = [
        (f"{common} {kind} {kind}{i}", f"about {kind} {i}") for kind in ("zebra", "yacht") for i in range(20)
    ]

    def share_of_like_prompts(hard):
        made = mismatches(pairs, 200, seed=0, hard=hard)
        return np.mean([("zebra" in c.prompt) == ("zebra" in c.responses[1]) for c in made])

    assert share_of_like_prompts(1.0) == 1.0
    assert 0.3 < share_of_like_prompts(0.0) < 0.7


def test_a_broken_one_is_the_response_up_to_a_word_within_a_sentence():
    pairs = [("Who?", "It is. We will go."), ("When?", "Now.")]
    made = mismatches(pairs, 40, broken=1.0)
    assert {c.prompt for c in made} == {"Who?"}  # "Now." has no place to break off
    assert {c.responses for c in made} == {
        ("It is. We will go.", beginning) for beginning in ("It", "It is. We", "It is. We will")
    }
    made = mismatches(PAIRS, 400, broken=0.3)
    share = np.mean([c.responses[0].startswith(c.responses[1]) for c in made])
    assert 0.2 < share < 0.4


def test_prompts_without_another_make_none():
    assert mismatches([], 5) == []
    assert mismatches([("p", "a"), ("p", "b")], 5) == []
    assert mismatches([("p", "a"), ("q", "a")], 5) == []
    with pytest.raises(ValueError, match="hard=2"):
        mismatches(PAIRS, 5, hard=2)


def test_a_group_starts_where_its_responses_differ():
    contest = (Contest(0, (1,)),)
    assert EncodedGroup([[5, 6, 7, 8], [5, 6, 9]], contest, 1.0).start == 2
    assert EncodedGroup([[5, 6], [5, 6, 9]], contest, 1.0).start == 1
    assert EncodedGroup([[5], [6]], contest, 1.0).start == 0


def test_every_token_is_scored_as_the_last_one_of_a_shorter_text():
    head = RewardHead(load_classifier(MODEL).eval())
    rows = [[3, 4, 5, 6, 7], [3, 4, 8]]
    ids, lengths = right_padded(rows)
    with torch.no_grad():
        scores, means = EveryToken(head)(ids, lengths, torch.tensor([2, 2]))
    prefixes = head.score_rows([[3, 4, 5], [3, 4, 5, 6], [3, 4, 5, 6, 7], [3, 4, 8]])
    torch.testing.assert_close(scores, prefixes[[2, 3]])
    torch.testing.assert_close(means, torch.stack([prefixes[:3].mean(), prefixes[3]]))


def test_a_token_loss_changes_what_is_learned():
    rows = mismatches([(a, b + a) for a in "abcdef" for b in "abcdef"], 40)
    tokenizer = letter_tokenizer("abcdef")

    def first_loss(coef):
        made = train(MODEL, rows, tokenizer=tokenizer, epochs=1, token_coef=coef, device="cpu", progress=None)
        return made.epochs[0].train_loss

    assert 0.5 < first_loss(0.0) < 0.9  # about log 2 = 0.69
    assert 1.0 < first_loss(1.0) < 1.8  # two such terms


def test_a_small_model_learns_to_tell_its_own_prompts_response():
    """The response repeats the prompt's letter: another's does not. Chance is 0.5."""
    pairs = [(a + b, c + a) for a in "abcdef" for b in "abcdef" for c in "abcdef"]
    made = pretrain(
        MODEL | {"n_embd": 32}, pairs, n=2000, epochs=4, learning_rate=3e-3, tokenizer=letter_tokenizer("abcdef"),
        device="cpu", progress=None,
    )  # fmt: skip
    assert made.epochs[-1].held_out_accuracy > 0.9
    with pytest.raises(ValueError, match="No mismatches can be made of 1 pairs"):
        pretrain(MODEL, pairs[:1], tokenizer=letter_tokenizer("abcdef"))


def test_the_start_that_comes_with_supportreply_tells_replies_to_other_messages():
    """Of customers whose product and problem never came together in its training. Chance is 0.5."""
    assert sum(file.stat().st_size for file in support_reply.REWARD_START.iterdir()) < 2e6
    rows = support_reply.demonstrations("held_out", 300, seed=1)
    made = mismatches([(row["prompt"], row["response"]) for row in rows], 300)
    replies = [Completion(c.prompt, response) for c in made for response in c.responses]
    own, others = score(make(str(support_reply.REWARD_START)), replies).reshape(-1, 2).T
    assert (own > others).mean() > 0.9


def test_the_start_that_comes_with_supportreply_tells_replies_that_break_off():
    rows = support_reply.demonstrations("held_out", 200, seed=1)
    made = mismatches([(row["prompt"], row["response"]) for row in rows], 200, broken=1.0)
    replies = [Completion(c.prompt, response) for c in made for response in c.responses]
    whole, broken = score(make(str(support_reply.REWARD_START)), replies).reshape(-1, 2).T
    assert (whole > broken).mean() > 0.9
