"""The other algorithms: their formulas against numbers worked out by hand and against TRL's, and what they learn."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import agents
from agents import (
    TextExpertIteration,
    TextGRPO,
    TextNLPO,
    TextPPO,
    TextREINFORCE,
    TextREINFORCEPlusPlus,
    TextRLOO,
)
from agents.advantages import group_relative, leave_one_out, returns_to_go
from agents.bench.algorithms import make_model
from agents.bench.suite import load_suite
from agents.best_of_n import best_of_n, best_of_n_kl
from agents.losses import clipped_surrogate, ratio_stats, sum_per_sequence
from agents.nlpo import top_p_mask
from tests.agents.helpers import letters_env, small_lm

CRITIC_FREE = [TextGRPO, TextRLOO, TextREINFORCE, TextREINFORCEPlusPlus, TextExpertIteration]
ALL = [TextPPO, TextNLPO, *CRITIC_FREE]
GROUPED = [TextGRPO, TextRLOO, TextExpertIteration]


def make(algorithm, env=None, **kwargs):
    torch.manual_seed(3)
    settings = dict(
        learning_rate=1e-3,
        n_episodes=16,
        seed=0,
        device="cpu",
        policy_kwargs=dict(model=small_lm(), dtype="float32"),
    )
    return algorithm("CausalLMPolicy", env or letters_env(), **(settings | kwargs))


# --- advantages ----------------------------------------------------------------------------------------------------


def test_group_relative_is_the_deepseekmath_formula():
    scores, groups = np.array([1.0, 3.0, 5.0, 5.0]), np.array([0, 0, 7, 7])
    # Group 0: mean 2, deviation sqrt(((1-2)^2 + (3-2)^2) / 1) = sqrt(2). Group 7: all the same.
    expected = np.array([-1.0, 1.0, 0.0, 0.0]) / (math.sqrt(2) + 1e-4)
    assert group_relative(scores, groups) == pytest.approx(expected)
    assert group_relative(scores, groups, scale=False) == pytest.approx([-1, 1, 0, 0])


def test_a_group_of_one_has_no_relative_advantage():
    assert group_relative(np.array([3.0]), np.array([0])) == pytest.approx([0.0])


def test_leave_one_out_takes_off_the_mean_of_the_others():
    scores, groups = np.array([1.0, 2.0, 6.0, 10.0, 0.0]), np.array([4, 4, 4, 1, 1])
    assert leave_one_out(scores, groups) == pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5, 10, -10])


def test_leave_one_out_needs_others():
    with pytest.raises(ValueError, match="Group 1 holds one response"):
        leave_one_out(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1]))


@given(
    st.lists(st.floats(-5, 5), min_size=4, max_size=4),
    st.lists(st.floats(-5, 5), min_size=4, max_size=4),
)
def test_groups_do_not_mix_and_their_advantages_sum_to_zero(first, second):
    scores, groups = np.array(first + second), np.repeat([0, 1], 4)
    for estimate in (leave_one_out, group_relative):
        together = estimate(scores, groups)
        assert together[:4] == pytest.approx(estimate(scores[:4], groups[:4]))
        assert together[:4].sum() == pytest.approx(0, abs=1e-6)


def test_formulas_are_trl_s():
    """The few lines of trl 1.16's GRPOTrainer (scale_rewards="group") and RLOOTrainer, on the same arrays."""
    rng = np.random.default_rng(0)
    n_groups, size = 5, 4
    rewards = torch.from_numpy(rng.normal(size=n_groups * size))
    groups = np.repeat(np.arange(n_groups), size)

    by_group = rewards.view(-1, size)
    mean = by_group.mean(dim=1).repeat_interleave(size)
    deviation = by_group.std(dim=1).repeat_interleave(size)
    trl_grpo = (rewards - mean) / (deviation + 1e-4)
    assert group_relative(rewards.numpy(), groups) == pytest.approx(trl_grpo.numpy())

    sums = by_group.sum(dim=1, keepdim=True)
    trl_rloo = (by_group - (sums - by_group) / (size - 1)).view(-1)
    assert leave_one_out(rewards.numpy(), groups) == pytest.approx(trl_rloo.numpy())


def test_returns_to_go_sum_what_is_still_to_come():
    rewards = np.array([[1.0, 2.0, 3.0], [5.0, 4.0, 0.0]])
    mask = np.array([[True, True, True], [True, True, False]])
    assert returns_to_go(rewards, mask) == pytest.approx(np.array([[6, 5, 3], [9, 4, 0]]))
    assert returns_to_go(rewards, mask, gamma=0.5)[0] == pytest.approx([1 + 1 + 0.75, 2 + 1.5, 3])


# --- losses ----------------------------------------------------------------------------------------------------------


def test_the_upper_clip_can_be_higher():
    old, new = torch.zeros(1), torch.log(torch.tensor([1.5]))
    advantage = torch.ones(1)
    assert clipped_surrogate(new, old, advantage, 0.2).item() == pytest.approx(-1.2)
    assert clipped_surrogate(new, old, advantage, 0.2, 0.28).item() == pytest.approx(-1.28)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-2, 2), st.floats(0, 3)), min_size=1, max_size=6))
def test_a_token_s_weight_can_be_multiplied_into_its_advantage(tokens):
    new, advantages, weights = torch.tensor(tokens, dtype=torch.float64).T
    one_by_one = sum(
        w * clipped_surrogate(n[None], torch.zeros(1), a[None], 0.2)
        for n, a, w in zip(new, advantages, weights)
    )
    together = clipped_surrogate(new, torch.zeros(len(new)), weights * advantages, 0.2)
    assert together.item() == pytest.approx(float(one_by_one), abs=1e-9)


def test_sums_per_sequence():
    sums = sum_per_sequence(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 1, 0]), 3)
    assert sums.tolist() == [4, 3, 0]


def test_ratio_stats_of_a_policy_that_has_not_moved_are_zero():
    log_probs = torch.tensor([-1.0, -2.0])
    assert ratio_stats(log_probs, log_probs, 0.2, 2) == {"approx_kl": 0, "clip_fraction": 0}


def first_minibatch(model):
    """The whole rollout as one forward pass, and its log-probabilities."""
    model.learn(1)  # one rollout, and an update that the zero learning rate makes void
    buffer = model.rollout_buffer
    n_tokens = int(buffer.lengths[buffer.chosen].sum())
    batch = buffer._minibatch(buffer.chosen, n_tokens, len(buffer.chosen))
    _, log_probs, _ = model.policy.evaluate_sequences(batch.sequences)
    return batch, log_probs.detach()


def by_response(batch, per_token):
    return [per_token[batch.sequences.rows == row] for row in range(len(batch.sequences.ids))]


@pytest.mark.parametrize("algorithm", ALL)
def test_the_entropy_bonus_is_ent_coef_times_the_mean_entropy_of_the_tokens(algorithm):
    model = make(algorithm, learning_rate=0.0)
    batch, _ = first_minibatch(model)
    entropy = model.policy.evaluate_sequences(batch.sequences, entropies=True)[2].mean().item()
    without = model.loss(batch)[0].item()
    model.ent_coef = 0.5
    loss, stats = model.loss(batch)
    assert entropy > 0.1
    assert loss.item() == pytest.approx(without - 0.5 * entropy, abs=1e-6)
    assert stats["entropy_loss"].item() == pytest.approx(-entropy, abs=1e-6)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_grpo_weighs_tokens_as_its_papers_say(loss_type):
    model = make(TextGRPO, loss_type=loss_type, learning_rate=0.0, samples_per_prompt=4, kl_coef=0.0)
    batch, _ = first_minibatch(model)
    advantages = by_response(batch, batch.advantages)  # the ratio is 1: a token's term is its advantage
    n = batch.n_episodes
    expected = {
        "grpo": sum(a.mean() for a in advantages) / n,
        "dr_grpo": sum(a.sum() for a in advantages) / (n * 6),  # the environment's limit
        "dapo": sum(a.sum() for a in advantages) / sum(map(len, advantages)),
    }[loss_type]
    assert model.loss(batch)[0].item() == pytest.approx(-float(expected), abs=1e-6)


def test_grpo_s_kl_stands_in_the_loss_and_not_in_the_reward():
    other = small_lm()
    model = make(TextGRPO, learning_rate=0.0, kl_coef=0.5, reference_model=other)
    batch, log_probs = first_minibatch(model)
    log_ratio = batch.ref_log_probs - log_probs
    k3 = [x.mean() for x in by_response(batch, log_ratio.exp() - 1 - log_ratio)]
    surrogate = sum(a.mean() for a in by_response(batch, batch.advantages)) / batch.n_episodes
    expected = -surrogate + 0.5 * sum(k3) / batch.n_episodes
    assert sum(k3) > 0.1
    assert model.loss(batch)[0].item() == pytest.approx(float(expected), abs=1e-5)
    buffer = model.rollout_buffer
    assert buffer.sum_per_episode(buffer.rewards) == pytest.approx(
        [e.score - (e.completion.finish_reason == "length") for e in buffer.episodes]
    )


def test_dapo_leaves_out_groups_whose_scores_are_all_the_same():
    def reward(completions):  # says something of prompts alone but for "a"
        return [
            float(c.response.count("a")) if c.prompt == "a" else float(len(c.prompt)) for c in completions
        ]

    env = letters_env(reward_model=reward, eos_token_id=None)
    model = make(TextGRPO, env, loss_type="dapo", n_episodes=64, samples_per_prompt=4)
    model.learn(1)
    buffer = model.rollout_buffer
    assert 0 < len(buffer.chosen) < 64
    assert {buffer.episodes[i].completion.prompt for i in buffer.chosen} == {"a"}


def test_rloo_s_gradient_at_ratio_1_is_reinforce_with_a_leave_one_out_baseline():
    model = make(TextRLOO, learning_rate=0.0, samples_per_prompt=4)
    batch, _ = first_minibatch(model)
    buffer = model.rollout_buffer

    model.policy.zero_grad()
    model.loss(batch)[0].backward()
    own = [p.grad.clone() for p in model.policy.parameters() if p.grad is not None]

    model.policy.zero_grad()
    _, log_probs, _ = model.policy.evaluate_sequences(batch.sequences)
    (-(batch.advantages * log_probs).sum() / batch.n_episodes).backward()
    plain = [p.grad for p in model.policy.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(own, plain))
    returns = buffer.sum_per_episode(buffer.rewards)
    assert buffer.advantages[buffer.offsets[:-1]] == pytest.approx(
        leave_one_out(returns, buffer.groups), abs=1e-5
    )


def test_rloo_s_ratio_is_that_of_the_whole_response():
    model = make(TextRLOO, learning_rate=0.0, clip_range=0.2)
    batch, log_probs = first_minibatch(model)
    batch.old_log_probs = (
        log_probs - 0.1
    )  # every token's ratio is e^0.1, inside the clip; a response's e^(0.1 * its length)
    batch.advantages = torch.ones_like(batch.advantages)
    expected = -np.mean([min(math.exp(0.1 * len(x)), 1.2) for x in by_response(batch, log_probs)])
    assert model.loss(batch)[0].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_reinforce_s_loss_is_return_less_baseline_times_log_probability(baseline):
    model = make(TextREINFORCE, baseline=baseline, learning_rate=0.0)
    batch, _ = first_minibatch(model)
    assert batch.n_episodes == 16  # one step per rollout
    buffer = model.rollout_buffer
    returns = buffer.sum_per_episode(buffer.rewards).astype(float)
    others = (returns.sum() - returns) / 15 if baseline == "mean" else 0 * returns
    log_prob = buffer.sum_per_episode(buffer.log_probs)
    expected = -np.mean((returns - others) * log_prob)
    assert model.loss(batch)[0].item() == pytest.approx(expected, abs=1e-4)


def test_reinforce_plus_plus_whitens_returns_to_go():
    model = make(TextREINFORCEPlusPlus, kl_coef=0.3, reference_model=small_lm())
    model.learn(1)
    buffer = model.rollout_buffer
    first = slice(buffer.offsets[0], buffer.offsets[1])
    assert buffer.returns[first] == pytest.approx(np.cumsum(buffer.rewards[first][::-1])[::-1], abs=1e-5)
    assert buffer.advantages.mean() == pytest.approx(0, abs=1e-5)
    assert buffer.advantages.std(ddof=1) == pytest.approx(1, abs=1e-4)


def test_expert_iteration_learns_from_the_best_of_each_group_alone():
    model = make(TextExpertIteration, samples_per_prompt=4, n_best=1)
    model.learn(1)
    buffer = model.rollout_buffer
    scores = buffer.sum_per_episode(buffer.rewards)
    assert len(buffer.chosen) == 4
    for number in buffer.chosen:
        assert scores[number] == scores[buffer.groups == buffer.groups[number]].max()
    assert {buffer.groups[i] for i in buffer.chosen} == {0, 1, 2, 3}


def test_expert_iteration_s_loss_is_that_of_supervised_fine_tuning():
    model = make(TextExpertIteration, learning_rate=0.0)
    batch, log_probs = first_minibatch(model)
    assert model.loss(batch)[0].item() == pytest.approx(-float(log_probs.mean()), abs=1e-6)


# --- NLPO's mask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "top_p, expected",
    [
        (0.0, [0, 1, 0, 0]),
        (0.5, [0, 1, 0, 0]),
        (0.51, [0, 1, 1, 0]),
        (0.9, [1, 1, 1, 0]),
        (1.0, [1, 1, 1, 1]),
    ],
)
def test_top_p_is_the_smallest_set_that_reaches_p(top_p, expected):
    logits = torch.log(torch.tensor([[0.15, 0.5, 0.3, 0.05]]))
    assert top_p_mask(logits, top_p).int().tolist() == [expected]


def test_tokens_that_are_not_legal_stay_out_of_the_top_p():
    logits = torch.tensor([[1.0, -math.inf, 0.0]])
    assert top_p_mask(logits, 1.0).tolist() == [[True, False, True]]


def test_nlpo_samples_and_learns_inside_the_mask():
    model = make(TextNLPO, top_p=0.6)
    model.learn(1)
    buffer = model.rollout_buffer
    for episode in buffer.episodes:
        legal = np.unpackbits(episode.legal, axis=1, count=12).astype(bool)
        assert legal[np.arange(len(legal)), episode.ids[episode.positions]].all()
        assert 1 <= legal.sum(axis=1).min() < 12
    # Law 4: the log-probabilities of the rollout and of the update are those of the masked distribution.
    assert buffer.sampled_log_probs == pytest.approx(buffer.log_probs, abs=1e-4)
    unmasked = make(TextPPO)
    unmasked.learn(1)
    assert buffer.entropies.mean() < unmasked.rollout_buffer.entropies.mean()


def test_nlpo_predicts_inside_the_mask_too():
    model = make(TextNLPO, top_p=0.3)
    model.learn(1)
    observation, state = model.env.reset(), None
    for _ in range(3):
        ids, lengths = observation["input_ids"], observation["attention_mask"].sum(axis=1)
        fresh = model.policy.slots(len(ids))
        legal = model.policy.legal_tokens(fresh, ids, lengths, np.arange(len(ids)), None)
        for _ in range(4):
            actions, state = model.predict(observation, state=state)
            assert legal[np.arange(len(ids)), actions].all()
        observation, *_ = model.env.step(actions)


def test_nlpo_renews_the_mask_that_it_samples_with():
    model = make(TextNLPO, mask_update_interval=2, learning_rate=1e-2)
    weights = lambda lm: lm.model.get_output_embeddings().weight.clone()  # noqa: E731
    start = weights(model.policy.lm)
    model.learn(1)
    model.learn(1, reset_num_timesteps=False)
    assert torch.equal(weights(model.mask_policy), start)
    before_third = weights(model.policy.lm)
    model.learn(1, reset_num_timesteps=False)
    assert torch.equal(weights(model.mask_policy), before_third)


# --- best of n -----------------------------------------------------------------------------------------------------


def test_best_of_n_is_the_mean_over_all_draws():
    scores = np.array([[3.0, 1.0, 2.0]])
    assert best_of_n(scores, 1) == pytest.approx([2.0])
    assert best_of_n(scores, 2) == pytest.approx([(3 + 3 + 2) / 3])  # of {3,1}, {3,2}, {1,2}
    assert best_of_n(scores, 3) == pytest.approx([3.0])


def test_best_of_n_may_choose_by_one_score_and_be_judged_by_another():
    gold, proxy = np.array([[0.0, 5.0, 1.0]]), np.array([[9.0, 1.0, 2.0]])
    assert best_of_n(gold, 3, chosen_by=proxy) == pytest.approx([0.0])
    assert best_of_n(gold, 2, chosen_by=proxy) == pytest.approx([(0 + 0 + 1) / 3])


@given(st.integers(1, 6), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_best_of_n_grows_with_n_and_stays_among_the_scores(n, scores):
    values = [best_of_n(np.array([scores]), k)[0] for k in (n, min(n + 1, 6))]
    assert values[0] <= values[1] + 1e-9
    assert min(scores) - 1e-9 <= values[0] <= max(scores) + 1e-9


def test_best_of_n_needs_as_many_answers():
    with pytest.raises(ValueError, match="n is 5 with 4 answers"):
        best_of_n(np.zeros((2, 4)), 5)


def test_kl_of_best_of_n():
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)


# --- groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [3, 8, 16])
@pytest.mark.parametrize("algorithm", GROUPED)
def test_a_rollout_holds_whole_groups_of_answers_to_one_prompt(algorithm, n_envs):
    model = make(algorithm, samples_per_prompt=4, n_envs=n_envs)
    for _ in range(3):
        model.learn(1, reset_num_timesteps=False)
        episodes = model.rollout_buffer.episodes
        assert sorted(e.group for e in episodes) == [g for g in range(4) for _ in range(4)]
        for group in range(4):
            assert len({e.completion.prompt for e in episodes if e.group == group}) == 1


def test_groups_differ_in_their_prompts():
    model = make(TextGRPO, n_episodes=64, samples_per_prompt=4)
    model.learn(1)
    prompts = {e.group: e.completion.prompt for e in model.rollout_buffer.episodes}
    assert len(set(prompts.values())) > 1


def test_groups_need_an_environment_that_deals_them():
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = make(TextGRPO, DummyVecEnv([letters_env]))
    with pytest.raises(ValueError, match="samples_per_prompt is 8: in TextGRPO, on a DummyVecEnv"):
        model.learn(1)


@pytest.mark.parametrize(
    "algorithm, settings, message",
    [
        (TextGRPO, dict(loss_type="gpo"), "Choose one of grpo, dr_grpo, dapo"),
        (TextGRPO, dict(n_episodes=12), "n_episodes is 12, samples_per_prompt 8: in TextGRPO"),
        (TextRLOO, dict(samples_per_prompt=1), "give 2 or more"),
        (TextRLOO, dict(policy_kwargs=dict(value_model="shared")), "It has no critic"),
        (TextREINFORCE, dict(baseline="median"), "Choose one of mean, none"),
        (TextREINFORCE, dict(n_episodes=1), "needs 2 or more"),
        (TextNLPO, dict(top_p=1.5), "top_p is 1.5"),
        (TextNLPO, dict(mask_update_interval=0), "mask_update_interval is 0"),
        (TextExpertIteration, dict(n_best=8), "n_best is 8, samples_per_prompt 8"),
    ],
)
def test_mistakes_are_named_at_once(algorithm, settings, message):
    with pytest.raises(ValueError, match=message):
        make(algorithm, **settings)


# --- what all share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALL)
def test_an_algorithm_is_exported_and_says_what_it_is(algorithm):
    assert getattr(agents, algorithm.__name__) is algorithm
    for word in ("et al.", "Args:", "Raises:"):
        assert word in algorithm.__doc__ or algorithm in (TextREINFORCE, TextREINFORCEPlusPlus)


@pytest.mark.parametrize("algorithm", CRITIC_FREE)
def test_without_a_critic_there_is_no_value_head(algorithm, tmp_path):
    model = make(algorithm)
    model.learn(1)
    assert model.policy.value_head is None and not model.rollout_buffer.values.any()
    assert not any("value" in name for name, _ in model.policy.named_parameters())
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "value_head.safetensors").exists()


@pytest.mark.parametrize("algorithm", ALL)
def test_a_run_that_was_saved_goes_on_as_if_nothing_had_happened(algorithm, tmp_path):
    straight = make(algorithm, n_envs=8)
    straight.learn(200)

    saved = make(algorithm, n_envs=8)
    saved.learn(100)
    saved.save(tmp_path / "model")
    resumed = algorithm.load(tmp_path / "model", env=letters_env(), device="cpu")
    resumed.learn(200 - saved.num_timesteps, reset_num_timesteps=False)

    assert resumed.num_timesteps == straight.num_timesteps
    for ours, theirs in zip(resumed.policy.parameters(), straight.policy.parameters()):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("algorithm", ALL)
def test_micro_batches_change_nothing(algorithm):
    """Law 9: the loss divides by counts of the whole minibatch."""
    weights = []
    for micro_batch_size in (None, 3):
        model = make(algorithm, micro_batch_size=micro_batch_size)
        model.learn(1)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.allclose(*weights, atol=2e-6)


SETTINGS = {  # how each reaches the optimum of a probe in some thousand tokens
    TextREINFORCE: dict(learning_rate=1e-2),
    TextExpertIteration: dict(learning_rate=1e-2),
}


@pytest.mark.parametrize("algorithm", ALL)
def test_each_finds_the_best_arm_of_the_bandit(algorithm):
    settings = dict(learning_rate=5e-3, kl_coef=0.0, seed=1, device="cpu") | SETTINGS.get(algorithm, {})
    model = algorithm("CausalLMPolicy", gym.make("text_envs/Bandit-v0"), **settings)
    model.learn(64 * 25)
    scores = [episode.score for episode in model.rollout_buffer.episodes]
    assert np.mean(scores) >= 0.95  # the optimum is 1, chance 0.44


@pytest.mark.parametrize("algorithm", [TextPPO, TextREINFORCE])
def test_they_learn_to_write_three_letters_backwards_from_random_weights(algorithm):
    """With the settings of the suite; blind to the prompt they would have 1/3, with two letters of three 2/3 and a bit."""
    [run] = [
        run
        for run in load_suite("full").runs(algorithms=[algorithm.__name__], tasks=["Reverse"], seeds=1)
        if run.algorithm == algorithm.__name__
    ]
    env = gym.make(run.env)
    model = make_model(run.target, run.arguments, env, None, run.seed, "cpu")
    model.learn(12_000)
    assert np.mean([episode.score for episode in model.rollout_buffer.episodes]) >= 0.9
