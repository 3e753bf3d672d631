"""Law 4 under a grammar: what is sampled matches it, and its log-probabilities are those of the masked distribution."""

import numpy as np
import pytest
import regex

pytest.importorskip("xgrammar", reason="needs the extra [grammar]")

from agents.ppo import TextPPO
from tests.agents.helpers import LETTERS, letters_env, small_lm
from text_envs.grammar import Regex

PATTERN = "a(b|cd)*(ef)?"
EOS = LETTERS.index("l")


@pytest.fixture(scope="module")
def model():
    """96 replies of a model with random weights, which without the mask would match one time in some hundred."""
    model = TextPPO(
        "CausalLMPolicy", letters_env(allowed_tokens=Regex(PATTERN)), policy_kwargs=dict(model=small_lm()),
        n_episodes=96, batch_size=32, n_envs=5, seed=0, device="cpu",
    )  # fmt: skip
    _, callback = model._setup_learn(1_000_000)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_episodes)
    model.last_batch = next(model.rollout_buffer.minibatches(96))[0]
    return model


def responses(model):
    """The text of each reply without EOS, and whether it ended by itself."""
    for episode in model.rollout_buffer.episodes:
        ids = [int(i) for i in episode.completion.response_ids]
        yield "".join(LETTERS[i] for i in ids if i != EOS), ids[-1] == EOS


def test_every_reply_matches_and_one_that_was_cut_could_have(model):
    found = list(responses(model))
    assert {ended for _, ended in found} == {True, False}
    for text, ended in found:
        assert regex.fullmatch(PATTERN, text, partial=not ended), text


def test_eos_was_legal_exactly_where_the_grammar_may_end(model):
    for episode in model.rollout_buffer.episodes:
        legal = np.unpackbits(episode.legal, axis=1, count=len(LETTERS)).astype(bool)
        text = "".join(LETTERS[i] for i in episode.completion.response_ids)
        ends = [regex.fullmatch(PATTERN, text[:n]) is not None for n in range(len(text))]
        assert legal[:, EOS].tolist() == ends


def test_log_probabilities_of_the_cache_are_those_of_a_full_forward_with_the_mask(model):
    rollout = model.rollout_buffer
    np.testing.assert_allclose(rollout.sampled_log_probs, rollout.log_probs, atol=2e-5)
    forced = np.array(
        [
            np.unpackbits(bits, count=len(LETTERS)).sum() == 1
            for episode in rollout.episodes
            for bits in episode.legal
        ]
    )
    assert forced.any() and not forced.all()
    assert (rollout.log_probs[forced] == 0).all()  # where one token is legal it is certain
    assert (rollout.log_probs[~forced] < 0).all()


def test_the_update_sees_the_mask_too(model):
    """Law 1 holds: before the first step the ratio is 1."""
    _, statistics = model.loss(model.last_batch)
    assert abs(float(statistics["approx_kl"])) < 1e-6 and statistics["clip_fraction"] == 0
