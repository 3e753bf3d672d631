"""The examination of a set-up: what is looked at, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace
from transformers import AutoConfig

from agents import doctor_reward as of_reward
from agents import doctor_rollout as of_rollout
from agents import doctor_setup as of_setup
from agents.command_env import make_env
from agents.commands import check_model, make_ppo
from agents.doctor_findings import Finding, causes_first, problem
from agents.doctor_rollout import positions
from agents.envs import common_attribute
from agents.generation import complete
from agents.on_policy import OnPolicyTextAlgorithm
from agents.options.training import ppo_parser
from reward_models import Completion, score
from reward_models.completion import RewardError
from text_envs.task import TextTask, stop_strings
from text_envs.tokenizer import find_eos, load_tokenizer

PROMPTS, REPLIES = (
    8,
    4,
)  # so many prompts get so many replies each, to see whether the reward tells them apart


def examination(
    ppo: OnPolicyTextAlgorithm,
    demonstrations: Any,
    prompt_field: str,
    response_field: str,
    endless: bool = False,
) -> Iterator[Finding]:
    """See `agents.doctor.examine`; `endless`: nothing needs to end a reply."""
    if ppo.env is None:
        raise ValueError("The algorithm has no environment: set_env gives it one to roll out in.")
    task: TextTask | None = common_attribute(ppo.env, "task", None)
    model = ppo.policy.lm.model
    if task is not None:
        yield of_setup.end_token(task.tokenizer, task.eos_token_ids, task.stop, endless)
        yield of_setup.vocabulary(task.vocab_size, model.config)
        if demonstrations is not None:
            yield of_setup.demonstrations(
                demonstrations, task.tokenizer, task.eos_token_ids, task.stop, task.max_new_tokens, positions(model.config),
                prompt_field, response_field,
            )  # fmt: skip
    if model.config.name_or_path and Path(model.config.name_or_path).is_dir():
        yield of_setup.generation_settings(Path(model.config.name_or_path), ppo.policy.lm.temperature)
    try:
        found = of_rollout.probe(ppo)
    except RewardError as error:
        yield problem("reward", str(error), "Mend the reward; nothing can be trained before.")
        return
    yield from of_rollout.laws(ppo, found)
    if task is not None:
        replies = of_rollout.end_of_replies(ppo, found, task)
        yield replies
        yield of_setup.pad_token(task.tokenizer, False if replies.status == "problem" else None)
    yield from rewards(ppo, found, task)


def rewards(ppo: OnPolicyTextAlgorithm, found: of_rollout.Probe, task: TextTask | None) -> Iterator[Finding]:
    """The scores of the rollout; and of the task's reward, what it makes of several replies to one prompt, and of padding."""
    episodes = found.buffer.episodes
    values = np.array([episode.score for episode in episodes])
    scores = of_reward.scores(values, ppo.score_clip, ppo.kl_controller.coef)
    yield scores
    if task is None or scores.status == "problem":
        return
    completions = [episode.completion for episode in episodes if episode.completion is not None]
    yield of_reward.within_prompts(score_replies(ppo, task, completions))
    yield of_reward.repeatability(task.reward_model, completions, values)
    for model, tokenizer, guarded in of_reward.classifiers_in(task.reward_model):
        yield of_reward.pooling(model, tokenizer, [one.prompt + one.response for one in completions], guarded)


def score_replies(
    ppo: OnPolicyTextAlgorithm, task: TextTask, completions: Sequence[Completion]
) -> np.ndarray:
    """Scores of `REPLIES` replies to each of some prompts, shape [prompts, replies]."""
    rows = {one.prompt: {**one.columns, task.prompts.prompt_field: one.prompt} for one in completions}
    prompts = [row for row in list(rows.values())[:PROMPTS] for _ in range(REPLIES)]
    return score(task.reward_model, complete(ppo.policy, task, prompts)).reshape(-1, REPLIES)


def of_model(options: Namespace) -> Iterator[Finding]:
    """What a model's tokenizer, its settings and the demonstrations tell, without an environment."""
    check_model(options.model)
    tokenizer = load_tokenizer(options.model)
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    ends = find_eos(tokenizer, options.eos_token_id, vocab_size)
    config = AutoConfig.from_pretrained(options.model)
    yield of_setup.pad_token(tokenizer)
    yield of_setup.end_token(tokenizer, ends, stop_strings(options.stop))
    yield of_setup.vocabulary(vocab_size, config)
    yield of_setup.generation_settings(Path(options.model), options.temperature)
    if options.demos is not None:
        yield of_setup.demonstrations(
            options.demos, tokenizer, ends, stop_strings(options.stop), options.max_new_tokens, positions(config),
            options.prompt_field, options.response_field,
        )  # fmt: skip


def examine_options(options: Namespace) -> list[Finding]:
    """The set-up that the options of `rlhf doctor` describe.

    Raises:
        ValueError: options that contradict one another, or describe nothing.
    """
    if options.env is None and options.prompts is None and options.model is not None:
        return causes_first(of_model(options))
    settings = ppo_parser().get_defaults()
    settings.update(options)
    settings.batch_size = min(settings.batch_size, settings.n_episodes)
    if options.model is not None:
        check_model(options.model)
    task: TextTask | None = getattr(make_env(settings).unwrapped, "task", None)
    folder = options.model or getattr(task, "default_model", None)
    if task is not None and folder is not None:
        size = of_setup.vocabulary(task.vocab_size, AutoConfig.from_pretrained(folder))
        if size.status == "problem":  # no policy can be made of the two
            return [size, of_setup.pad_token(task.tokenizer)]
    endless = of_setup.is_endless(vars(settings))
    ppo = make_ppo(settings)
    found = list(examination(ppo, options.demos, options.prompt_field, options.response_field, endless))
    if isinstance(options.reward, str) and Path(options.reward).is_dir():
        evaluation = of_reward.evaluation_in(Path(options.reward))
        found += of_reward.accuracy(evaluation) if evaluation else []
    return causes_first(found)
