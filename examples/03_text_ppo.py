"""The whole quickstart: make an environment, train, save, and let the policy answer a customer it has not seen.

python examples/03_text_ppo.py [folder]
"""

import sys

import gymnasium as gym
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import text_envs  # noqa: F401  registers the ids
from agents import TextPPO
from text_envs.tasks.support_reply import prompts


def main(folder: str = "runs/example-03", total_timesteps: int = 100_000, **settings) -> str:
    """Train on SupportReply-v0, write the policy to `folder`, and read it back with plain transformers."""
    env = gym.make("text_envs/SupportReply-v0")
    model = TextPPO("CausalLMPolicy", env, seed=0, verbose=1, **settings)
    model.learn(total_timesteps)
    model.save(f"{folder}/checkpoint.zip")  # TextPPO.load goes on from here
    model.save_pretrained(folder)  # any transformers program reads this

    tokenizer, policy = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    customer = prompts("held_out")[0]["prompt"]
    encoded = tokenizer(customer, return_tensors="pt")
    torch.manual_seed(0)
    tokens = policy.generate(**encoded, do_sample=True, max_new_tokens=48)[0]
    reply = tokenizer.decode(tokens[encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    print(f"{customer}{reply}")
    return reply


if __name__ == "__main__":
    main(*sys.argv[1:])
