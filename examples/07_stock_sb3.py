"""Stock Stable-Baselines3 on a text environment: only a features extractor that reads tokens is added.

python examples/07_stock_sb3.py
"""

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import text_envs  # noqa: F401  registers the ids
from agents import TokenFeatures


def main(total_timesteps: int = 20_000) -> float:
    """Learn to copy a word letter by letter; returns the mean score, of which 1 is the best."""
    model = PPO(
        "MultiInputPolicy",
        "text_envs/Copy-v0",
        policy_kwargs=dict(features_extractor_class=TokenFeatures),
        learning_rate=1e-3,
        n_steps=512,
        seed=0,
        verbose=1,
    )
    model.learn(total_timesteps)
    score, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=50)
    print(f"mean score {score:.2f}")
    return float(score)


if __name__ == "__main__":
    main()
