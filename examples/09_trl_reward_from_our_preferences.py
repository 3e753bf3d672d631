"""Preferences collected here in TRL's RewardTrainer, and its reward model in an environment here (pip install trl datasets).

python examples/09_trl_reward_from_our_preferences.py [preferences.jsonl] [folder]

The file is what `rlhf feedback export` wrote, in any of its formats. Without one, a simulated rater compares answers.
"""

import sys

import gymnasium as gym
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

import text_envs  # noqa: F401  registers the ids
from reward_models.preferences import Comparison
from reward_models.preferences.formats import read, to_dataset
from text_envs.tasks import support_reply


def answered_or_not(n: int) -> list[Comparison]:
    """Demonstrations, each preferred to a refusal."""
    rows = support_reply.demonstrations(n=n)
    return [Comparison(row["prompt"], (row["response"], "no ."), "left") for row in rows]


def main(preferences: str | None = None, folder: str = "runs/example-09", n: int = 500, **settings) -> float:
    """Learn a reward model by TRL, and let it judge a random reply. Returns that score."""
    records = read(preferences).records if preferences else answered_or_not(n)
    tokenizer = AutoTokenizer.from_pretrained(support_reply.FOLDER)
    given = dict(
        per_device_train_batch_size=16, learning_rate=5e-4, max_length=128, report_to=[], use_cpu=True
    )
    given |= dict(bf16=False, gradient_checkpointing=False, save_strategy="no", disable_tqdm=True)
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(support_reply.FOLDER, num_labels=1),
        args=RewardConfig(output_dir=folder, num_train_epochs=1, **(given | settings)),
        train_dataset=to_dataset(records).select_columns(["prompt", "chosen", "rejected"]),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(folder)

    env = gym.make("text_envs/SupportReply-v0", reward_model=folder)  # a reward like any other
    env.reset(seed=0)
    env.action_space.seed(0)
    score, ended = 0.0, False
    while not ended:
        _, score, ended, _, _ = env.step(env.action_space.sample())
    return score


if __name__ == "__main__":
    main(*sys.argv[1:])
