"""What a user enters from outside: algorithms, and an environment."""

import gymnasium as gym
from stable_baselines3 import PPO

from agents import TextPPO
from text_envs import TextGenerationEnv
from text_envs.letters import letter_tokenizer


class OwnPPO(PPO):
    """A stock algorithm."""


class OwnTextPPO(TextPPO):
    """A text algorithm."""


class BrokenPPO(PPO):
    """An algorithm that fails."""

    def train(self):
        raise RuntimeError("the loss went off")


class InterruptedPPO(PPO):
    """Somebody presses Ctrl-C while it learns."""

    def train(self):
        raise KeyboardInterrupt


class ShoutEnv(TextGenerationEnv):
    """Letters in, an "a" is worth a point; prompts of two splits."""

    def __init__(self, split: str = "train", render_mode: str | None = None):
        super().__init__(
            tokenizer=letter_tokenizer("abc"),
            prompts=["b"] if split == "train" else ["c"],
            reward_model=lambda completions: [float(c.response == "a") for c in completions],
            max_new_tokens=1,
            render_mode=render_mode,
        )


def demonstrations(split: str, n: int, seed: int):
    """To answer "a" is right."""
    return [{"prompt": "b", "response": "a"}] * n


if "own/Shout-v0" not in gym.registry:
    gym.register("own/Shout-v0", entry_point="tests.agents.bench.own:ShoutEnv")
