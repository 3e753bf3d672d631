"""A reward model from preferences: learn it, measure it on prompts that it has not seen, and train on it.

python examples/04_reward_from_preferences.py [preferences.jsonl] [folder]

The file holds rows of prompt, chosen, rejected (or any other form that `preferences.formats.read` knows). Without one, a
simulated rater compares demonstrations of SupportReply-v0.
"""

import sys

import gymnasium as gym

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO
from reward_models import Completion, evaluation, learning
from reward_models.preferences import Comparison
from reward_models.preferences.formats import read
from reward_models.preferences.splits import split
from text_envs.tasks import support_reply


def compared_demonstrations(n: int) -> list[Comparison]:
    """`n` pairs of replies to one customer, of which the gold judge prefers one."""
    by_prompt, pairs = {}, []
    for row in support_reply.demonstrations(n=4 * n):
        other = by_prompt.setdefault(row["prompt"], row)
        if other["response"] != row["response"] and len(pairs) < n:
            columns = {name: row[name] for name in ("product", "problem", "mood")}
            replies = [
                Completion(row["prompt"], reply["response"], columns=columns) for reply in (other, row)
            ]
            first, second = support_reply.judge(replies)
            choice = "left" if first > second else "right"
            pairs.append(Comparison(row["prompt"], (other["response"], row["response"]), choice))
    return pairs


def main(preferences: str | None = None, folder: str = "runs/example-04", n=2000, steps=50_000, **settings):
    """Learn from the preferences, say how well it went, and let PPO maximise what was learned."""
    records = read(preferences).records if preferences else compared_demonstrations(n)
    train, held_out = split(records, held_out=0.1)
    learning.train(
        str(support_reply.FOLDER), train, folder, epochs=settings.pop("epochs", 5), learning_rate=5e-4
    )
    found = evaluation.evaluate(folder, held_out, train)
    print(
        f"accuracy {found.accuracy.value:.2f}; the longer one wins {found.longer_wins.value:.2f} of the time"
    )

    env = gym.make("text_envs/SupportReply-v0", reward_model=folder)  # a reward like any other
    model = TextPPO("CausalLMPolicy", env, seed=0, verbose=1, **settings)
    model.learn(steps)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
