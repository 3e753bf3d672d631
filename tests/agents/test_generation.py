"""Replies to given prompts: those that transformers' generate gives, and as likely as a plain forward pass says."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.generation import complete, log_likelihoods
from agents.policy import CausalLMPolicy
from text_envs.task import TextTask

PROMPTS = ["Once upon a time", "The big dog was", "Lily", "One day, a little girl named Lily found a needle"]


@pytest.fixture
def task(stories):
    return TextTask(str(stories), PROMPTS, lambda completions: [0.0] * len(completions), max_new_tokens=24)


@pytest.fixture
def policy(stories, task):
    return CausalLMPolicy(
        task.observation_space(), task.action_space(), lambda _: 0.0, model=str(stories), dtype="float32"
    )


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_greedy_replies_are_those_of_transformers(stories, task, policy, batch_size):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(stories), AutoTokenizer.from_pretrained(stories)
    completions = complete(policy, task, PROMPTS, deterministic=True, batch_size=batch_size)
    for prompt, completion in zip(PROMPTS, completions):
        encoded = tokenizer(prompt, return_tensors="pt")
        ids = model.generate(**encoded, do_sample=False, max_new_tokens=24)[0].tolist()
        assert completion.prompt == prompt
        assert [*completion.prompt_ids, *completion.response_ids] == ids


def test_columns_travel_with_their_prompts(task, policy):
    rows = [{"prompt": prompt, "mood": i} for i, prompt in enumerate(PROMPTS)]
    assert [c.columns["mood"] for c in complete(policy, task, rows, batch_size=3)] == [0, 1, 2, 3]


def test_no_prompts_no_replies(task, policy):
    assert complete(policy, task, []) == []
    assert log_likelihoods(policy.lm, []).shape == (0,)


def test_log_likelihoods_are_those_of_a_plain_forward_pass(stories, task, policy):
    torch.manual_seed(0)
    completions = complete(policy, task, PROMPTS)
    model = AutoModelForCausalLM.from_pretrained(stories)
    for completion, ours in zip(completions, log_likelihoods(policy.lm, completions, batch_size=3)):
        ids = torch.tensor([*completion.prompt_ids, *completion.response_ids])
        log_probs = model(ids[None]).logits[0].detach().log_softmax(-1)
        n = len(completion.prompt_ids)
        by_hand = sum(float(log_probs[i - 1, ids[i]]) for i in range(n, len(ids)))
        assert np.isclose(ours, by_hand, atol=1e-3)
