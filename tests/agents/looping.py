"""A run of the loop so small that it takes seconds: letters for tokens, and a judge that likes the letter a."""

import json
import signal
import time

from agents.settings import (
    EvaluationSettings,
    FeedbackSettings,
    LoopSettings,
    PPOSettings,
    RewardSettings,
    SampleSettings,
    SFTSettings,
)
from tests.agents.helpers import LETTERS, small_lm
from text_envs.letters import letter_tokenizer


def likes_a(completions):
    """The share of the letter a."""
    return [c.response.count("a") / max(len(c.response), 1) for c in completions]


def takes_an_hour(completions):
    """A judge that is stopped by a signal, or by nothing."""
    signal.raise_signal(signal.SIGTERM)
    time.sleep(3600)


def write_inputs(folder):
    """A model folder, prompts and demonstrations."""
    import torch

    torch.manual_seed(0)
    small_lm().save_pretrained(folder / "model")
    letter_tokenizer(LETTERS).save_pretrained(folder / "model")
    prompts = [first + second for first in "bcdefghijk" for second in "bcde"]
    (folder / "prompts.txt").write_text("\n".join(prompts))
    rows = [{"prompt": prompt, "response": "abcabc"} for prompt in prompts]
    (folder / "demos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def small_settings(inputs, **more) -> LoopSettings:
    settings = dict(
        model=str(inputs / "model"),
        prompts=str(inputs / "prompts.txt"),
        demos=str(inputs / "demos.jsonl"),
        judge="tests.agents.looping:likes_a",
        max_new_tokens=6,
        rounds=1,
        threads=1,
        device="cpu",
        sft=SFTSettings(max_steps=4, learning_rate=1e-3),
        samples=SampleSettings(prompts=24),
        feedback=FeedbackSettings(temperature=0.05),
        reward=RewardSettings(epochs=2, learning_rate=3e-3, batch_size=8, held_out=0.25),
        ppo=PPOSettings(total_timesteps=300, n_episodes=16, batch_size=8, n_epochs=1, checkpoint_every=1),
        evaluation=EvaluationSettings(prompts=8),
    )
    return LoopSettings(**(settings | more))
