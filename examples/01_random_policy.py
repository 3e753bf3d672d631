"""An environment by hand: one action is one token, and the reward comes with the last one.

python examples/01_random_policy.py
"""

import gymnasium as gym

import text_envs  # noqa: F401  registers the ids


def main(episodes: int = 3) -> list[float]:
    """Play some episodes with random tokens; returns their scores."""
    env = gym.make("text_envs/SupportReply-v0", max_new_tokens=16)
    env.action_space.seed(0)
    scores = []
    for episode in range(episodes):
        observation, info = env.reset(seed=episode)
        terminated = False
        while not terminated:
            observation, reward, terminated, _truncated, info = env.step(env.action_space.sample())
        completion = info["completion"]
        print(f"{completion.prompt}{completion.response}")
        print(
            f"  -> {reward:.3f}, ended by {completion.finish_reason}, {observation['attention_mask'].sum()} tokens\n"
        )
        scores.append(float(reward))
    return scores


if __name__ == "__main__":
    main()
