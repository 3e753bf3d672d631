"""The laws of the design, one test each (law 5 and the environment's side of others are tested with text_envs)."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from transformers import AutoModelForCausalLM

from agents.advantages import gae, whiten
from agents.checks import SelfCheckWarning
from agents.episodes import EpisodeBuffer
from agents.ppo import TextPPO
from agents.sampling import right_padded
from tests.agents.helpers import LETTERS, letters_env, letters_policy, small_lm


def make_ppo(env=None, model=None, **kwargs) -> TextPPO:
    settings = dict(n_episodes=12, batch_size=4, n_envs=5, learning_rate=1e-3, seed=0, device="cpu")
    return TextPPO(
        "CausalLMPolicy",
        env or letters_env(),
        policy_kwargs=dict(model=model or small_lm()),
        **(settings | kwargs),
    )


def roll_out(model: TextPPO) -> EpisodeBuffer:
    """One rollout, prepared for train but not trained on."""
    _, callback = model._setup_learn(1_000_000)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_episodes)
    return model.rollout_buffer


def first_batch(model: TextPPO, **kwargs):
    """The whole rollout as one minibatch."""
    return next(model.rollout_buffer.minibatches(len(model.rollout_buffer.episodes), **kwargs))


def test_law_1_before_the_first_step_the_ratio_is_one():
    model = make_ppo()
    roll_out(model)
    (batch,) = first_batch(model, micro_batch_size=None)[:1]
    _, log_probs, _ = model.policy.evaluate_sequences(batch.sequences)
    torch.testing.assert_close(log_probs, batch.old_log_probs, atol=1e-5, rtol=0)
    _, stats = model.loss(batch)
    assert stats["clip_fraction"] == 0
    assert abs(stats["approx_kl"]) < 1e-6


def test_law_1_holds_again_in_the_second_rollout():
    model = make_ppo()
    roll_out(model)
    model.train()
    _, callback = model._setup_learn(1_000_000)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_episodes)
    (batch, *_) = first_batch(model)
    assert model.loss(batch)[1]["clip_fraction"] == 0


def test_law_2_a_policy_equal_to_its_reference_has_kl_zero():
    buffer = roll_out(make_ppo())
    assert (buffer.log_probs == buffer.ref_log_probs).all()
    assert all(episode.kl == 0 for episode in buffer.episodes)


def step_by_step_log_probs(model: TextPPO, episode) -> np.ndarray:
    """The log-probabilities of an episode's tokens from its states in the environment, one state at a time."""
    states = []
    for position in episode.positions:
        ids = np.zeros(model.policy.max_length, dtype=np.int64)
        ids[:position] = episode.ids[:position]
        states.append((ids, np.arange(len(ids)) < position))
    obs = {
        "input_ids": torch.from_numpy(np.stack([ids for ids, _ in states])),
        "attention_mask": torch.from_numpy(np.stack([mask for _, mask in states])),
    }
    actions = torch.from_numpy(episode.ids[episode.positions])
    return model.policy.evaluate_actions(obs, actions)[1].detach().numpy()


def check_law_3(model: TextPPO) -> None:
    buffer = roll_out(model)
    assert len({len(episode.ids) for episode in buffer.episodes}) > 1, "the episodes should be ragged"
    for i, episode in enumerate(buffer.episodes):
        full_forward = buffer.log_probs[buffer.offsets[i] : buffer.offsets[i + 1]]
        np.testing.assert_allclose(episode.log_probs, full_forward, atol=2e-5)  # slots
        np.testing.assert_allclose(step_by_step_log_probs(model, episode), full_forward, atol=2e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_law_3_three_ways_to_the_same_log_probabilities(architecture):
    check_law_3(make_ppo(model=small_lm(architecture)))


def test_law_3_on_a_pretrained_llama(stories):
    env = gym.make(
        "text_envs/TextGeneration-v0",
        tokenizer=str(stories),
        prompts=["Once upon a time", "Tom", "The little dog was very happy because it"],
        reward_model=lambda completions: [0.0] * len(completions),
        max_new_tokens=24,
    )
    check_law_3(make_ppo(env, AutoModelForCausalLM.from_pretrained(stories), n_episodes=6, n_envs=4))


def test_law_4_log_probs_are_those_of_the_sampled_distribution():
    """20,000 draws under a temperature and a mask: the frequencies are exp(log-probabilities), within 5 sigma."""
    torch.manual_seed(0)
    policy = letters_policy(temperature=0.7)
    n = 20_000
    ids, lengths = np.zeros((n, 11), dtype=np.int64), np.full(n, 3)
    ids[:, :3] = [4, 2, 7]
    legal = np.ones((n, len(LETTERS)), dtype=bool)
    legal[:, [1, 5]] = False
    actions, _, log_probs = policy.act(policy.slots(n), ids, lengths, np.arange(n), legal)

    probabilities = torch.zeros(len(LETTERS), dtype=torch.float64)
    probabilities[actions] = log_probs.exp().double()
    frequencies = torch.bincount(actions, minlength=len(LETTERS)) / n
    assert frequencies[[1, 5]].tolist() == [0, 0]
    assert probabilities.sum() == pytest.approx(1, abs=1e-3)
    sigma = (probabilities * (1 - probabilities) / n).sqrt()
    assert ((frequencies - probabilities).abs() <= 5 * sigma + 1e-9).all()


def test_law_4_masks_and_temperature_reach_the_update():
    env = letters_env(allowed_tokens=["a", "b", "c", "l"])
    model = make_ppo(env)
    model.policy.lm.temperature = model.reference.temperature = 0.7
    buffer = roll_out(model)
    assert set(buffer.actions) <= {0, 1, 2, 11}
    np.testing.assert_allclose(buffer.sampled_log_probs, buffer.log_probs, atol=2e-5)


def test_law_5_token_ids_are_the_truth():
    buffer = roll_out(make_ppo())
    for episode in buffer.episodes:
        assert tuple(episode.ids) == episode.completion.prompt_ids + episode.completion.response_ids
        assert len(episode.positions) == len(episode.completion.response_ids)


def test_law_6_the_score_stands_on_the_last_action_and_the_value_after_it_is_zero():
    model = make_ppo(kl_coef=0.0, missing_eos_penalty=0.0, gae_lambda=1.0, whiten_advantages=False)
    with torch.no_grad():
        model.policy.value_head.bias.fill_(0.25)
    buffer = roll_out(model)
    ends = buffer.offsets[1:] - 1
    scores = [episode.completion.response.count("a") for episode in buffer.episodes]
    np.testing.assert_allclose(buffer.rewards[ends], scores)
    assert np.delete(buffer.rewards, ends).sum() == 0
    # With lambda = 1 and nothing after the end, every advantage is the score minus the value.
    np.testing.assert_allclose(buffer.advantages, np.repeat(scores, buffer.lengths) - 0.25, atol=1e-6)


def sb3_algorithm(model: TextPPO, buffer: EpisodeBuffer, **kwargs) -> PPO:
    """Stock PPO with the same policy class and weights, its buffer filled with every state of the rollout."""
    n = len(buffer.actions)
    stock = PPO(
        type(model.policy), letters_env(), n_steps=n, batch_size=n, n_epochs=1, gamma=model.gamma, seed=0,
        gae_lambda=model.gae_lambda, clip_range_vf=0.2, vf_coef=model.vf_coef, max_grad_norm=model.max_grad_norm,
        learning_rate=1e-3, ent_coef=model.ent_coef, policy_kwargs=dict(model=small_lm()), device="cpu", **kwargs,
    )  # fmt: skip
    stock.policy.load_state_dict(model.policy.state_dict())
    stock.set_logger(configure(None, []))
    stock.rollout_buffer.reset()
    t = 0
    for episode in buffer.episodes:
        for position in episode.positions:
            ids = np.zeros(model.policy.max_length, dtype=np.int64)
            ids[:position] = episode.ids[:position]
            stock.rollout_buffer.add(
                {"input_ids": ids[None], "attention_mask": (np.arange(len(ids)) < position)[None]},
                np.array([[episode.ids[position]]]),
                buffer.rewards[t : t + 1],
                buffer.episode_starts[t : t + 1],
                torch.tensor(buffer.values[t : t + 1]),
                torch.tensor(buffer.log_probs[t : t + 1]),
            )
            t += 1
    stock.rollout_buffer.compute_returns_and_advantage(last_values=torch.zeros(1), dones=np.ones(1))
    return stock


def test_law_7_gae_equals_stable_baselines3():
    model = make_ppo(gamma=0.98, gae_lambda=0.9, whiten_advantages=False)
    with torch.no_grad():
        model.policy.value_head.weight.normal_()
    buffer = roll_out(model)
    stock = sb3_algorithm(model, buffer).rollout_buffer
    np.testing.assert_allclose(buffer.advantages, stock.advantages.flatten(), atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(buffer.returns, stock.returns.flatten(), atol=1e-6, rtol=1e-5)


def test_law_7_gae_equals_a_sum_by_hand():
    """Rewards 0, 0, 2 and value 1 throughout: deltas 0, 0, 1, so the advantages are lambda^2, lambda, 1."""
    rewards = np.array([[0.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    mask = np.array([[True, True, True], [True, False, False]])
    advantages, returns = gae(rewards, np.ones((2, 3)), mask, gamma=1.0, gae_lambda=0.5)
    np.testing.assert_allclose(advantages, [[0.25, 0.5, 1.0], [2.0, 0.0, 0.0]])
    np.testing.assert_allclose(returns, [[1.25, 1.5, 2.0], [3.0, 0.0, 0.0]])


def test_law_8_the_loss_equals_stock_ppos():
    """Same policy, same buffer: SB3's train takes one step over all states, ours over all episodes."""
    model = make_ppo(ent_coef=0.01, learning_rate=1e-3, batch_size=12, n_epochs=1, whiten_advantages=False)
    with torch.no_grad():
        model.policy.value_head.weight.normal_(std=0.1)
    buffer = roll_out(model)
    with torch.no_grad():  # a policy that has moved, so that ratio, clipping and value clipping all matter
        for parameter in model.policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    stock = sb3_algorithm(model, buffer)
    stock.train()
    buffer.advantages = whiten(buffer.advantages)
    with pytest.warns(SelfCheckWarning, match="ratio should be 1"):
        model.train()

    ours, theirs = model.logger.name_to_value, stock.logger.name_to_value
    assert theirs["train/clip_fraction"] > 0.05
    names = ["loss", "policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction"]
    for name in names:
        assert ours[f"train/{name}"] == pytest.approx(theirs[f"train/{name}"], abs=1e-5), name
    after, stock_after = model.policy.state_dict(), stock.policy.state_dict()
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, stock_after[name], atol=1e-5, rtol=0, msg=name)


def gradients(model: TextPPO, micro_batch_size) -> list[torch.Tensor]:
    model.policy.optimizer.zero_grad()
    for batch in first_batch(model, micro_batch_size=micro_batch_size):
        model.loss(batch)[0].backward()
    return [p.grad.clone() for p in model.policy.parameters() if p.grad is not None]


@pytest.mark.parametrize("micro_batch_size", [1, 3, None])
def test_law_9_micro_batches_change_nothing(micro_batch_size):
    model = make_ppo()
    roll_out(model)
    for part, whole in zip(gradients(model, micro_batch_size), gradients(model, 12), strict=True):
        torch.testing.assert_close(part, whole, atol=1e-6, rtol=1e-4)


def test_law_10_ppo_converges_to_the_closed_form():
    """On one-step episodes the optimum is reference x exp(reward / beta) / Z (Ziegler et al. 2019, section 2.1)."""
    rewards, beta = [0.0, 0.25, 0.5, 1.0], 0.4
    env = gym.make("text_envs/Bandit-v0", rewards=rewards)
    model = TextPPO("CausalLMPolicy", env, n_episodes=256, n_envs=256, batch_size=256, kl_coef=beta, seed=0,
                    learning_rate=lambda progress: 3e-3 * progress**2, device="cpu")  # fmt: skip
    obs, _ = env.reset(seed=0)
    tensors = {key: torch.from_numpy(value)[None] for key, value in obs.items()}
    reference = model.policy.get_distribution(tensors).distribution.probs.detach().numpy()[0]
    model.learn(256 * 40)
    learned = model.policy.get_distribution(tensors).distribution.probs.detach().numpy()[0]

    optimum = reference * np.exp(np.array(rewards) / beta)
    optimum /= optimum.sum()
    assert 0.5 * np.abs(optimum - reference).sum() > 0.3, "there should be something to learn"
    assert 0.5 * np.abs(learned - optimum).sum() < 0.01


def test_law_11_same_seed_same_bytes():
    def train() -> tuple[dict[str, torch.Tensor], list[tuple[int, ...]]]:
        torch.manual_seed(7)
        model = make_ppo(model=small_lm(), seed=3)
        model.learn(200)
        return model.policy.state_dict(), [tuple(e.ids) for e in model.rollout_buffer.episodes]

    (first, first_episodes), (second, second_episodes) = train(), train()
    assert first_episodes == second_episodes
    assert all(torch.equal(first[name], second[name]) for name in first)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_law_12_padding_its_side_and_its_amount_change_nothing(data):
    policy = _PADDING_POLICY
    sequence = data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=8))
    left = data.draw(st.integers(0, 3))
    filler = data.draw(st.integers(0, 11))
    ids = np.full((1, 11), filler)
    mask = np.zeros((1, 11), dtype=np.int8)
    ids[0, left : left + len(sequence)], mask[0, left : left + len(sequence)] = sequence, 1
    plain = {"input_ids": torch.tensor([sequence]), "attention_mask": torch.ones(1, len(sequence))}
    padded = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    action = torch.tensor([5])
    for one, other in zip(policy.evaluate_actions(plain, action), policy.evaluate_actions(padded, action)):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert right_padded(ids, mask)[0][0, : len(sequence)].tolist() == sequence


_PADDING_POLICY = letters_policy()


def test_law_12_length_of_the_minibatch_changes_nothing():
    """An episode's log-probabilities are the same alone and beside longer ones."""
    model = make_ppo()
    buffer = roll_out(model)
    shortest = int(np.argmin([len(episode.ids) for episode in buffer.episodes]))
    _, log_probs, _ = model.policy.evaluate_sequences(buffer.sequences(np.array([shortest])))
    np.testing.assert_allclose(
        log_probs.detach(),
        buffer.log_probs[buffer.offsets[shortest] : buffer.offsets[shortest + 1]],
        atol=1e-5,
    )


def test_law_13_dropout_is_off_in_rollouts_and_updates():
    model = make_ppo(model=small_lm("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5))
    buffer = roll_out(model)
    model.policy.set_training_mode(True)
    batch = buffer.sequences(np.arange(12))
    first, second = (model.policy.evaluate_sequences(batch)[1] for _ in range(2))
    assert torch.equal(first, second)
