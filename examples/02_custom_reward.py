"""A reward is any function: completions in, one number each out. Here PPO learns to be short and to apologise.

python examples/02_custom_reward.py
"""

import gymnasium as gym

import text_envs  # noqa: F401  registers the ids
from agents import SampleTable, TextPPO


def brief_apology(completions):
    """A point for an apology, a hundredth less for each token."""
    return [("sorry" in c.response.lower()) - 0.01 * len(c.response_ids) for c in completions]


def main(total_timesteps: int = 40_000, **settings) -> TextPPO:
    """Train on the support prompts with the reward above instead of their own judge."""
    env = gym.make("text_envs/SupportReply-v0", reward_model=brief_apology)
    model = TextPPO("CausalLMPolicy", env, seed=0, verbose=1, **settings)
    model.learn(total_timesteps, callback=SampleTable(every=10, n=3))
    return model


if __name__ == "__main__":
    main()
