"""The environment that the options of a command describe."""

import inspect
import json
import re
from collections.abc import Callable

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from jsonargparse import Namespace

from text_envs import TextGenerationEnv
from text_envs.tokenizer import load_tokenizer


def make_env(options: Namespace) -> gym.Env:
    """The environment that the options describe: registered, or made of prompts and a reward.

    Raises:
        ValueError: for options that contradict one another, or leave it undescribed.
    """
    if (options.env is None) == (options.prompts is None):
        raise ValueError(
            "give either --env ID or --prompts FILE: the one names an environment, the other makes one."
        )
    given = {
        "reward_model": options.reward,
        "max_new_tokens": options.max_new_tokens,
        "eos_token_id": options.eos_token_id,
        "stop": stop_strings(options.stop) or None,
    }
    kwargs = {name: value for name, value in given.items() if value is not None} | options.env_kwargs
    if options.env is not None:
        if options.model is not None and takes_model(options.env):
            kwargs.setdefault("model", options.model)
        env = made_with(options.env, lambda: gym.make(options.env, **kwargs))
        check_tokenizer(env, options)
        return env
    missing = [f"--{name}" for name in ("model", "reward") if getattr(options, name) is None]
    if missing:
        raise ValueError(
            f"--prompts needs {' and '.join(missing)} too: an environment of prompts has none of its own."
        )
    arguments = {
        "tokenizer": options.model,
        "prompts": options.prompts,
        "prompt_field": options.prompt_field,
        "max_prompt_tokens": options.max_prompt_tokens,
        "prompts_too_long": options.prompts_too_long,
        **kwargs,
    }
    return made_with("text_envs/TextGeneration-v0", lambda: TextGenerationEnv(**arguments))


def made_with(name: str, make: Callable[[], gym.Env]) -> gym.Env:
    """The environment; an argument that it does not take, or lacks, is a user's mistake.

    Raises:
        ValueError: for such an argument.
    """
    try:
        return make()
    except TypeError as error:
        told = str(error).partition(" was raised from the environment creator")[0]  # gym.make's addition
        raise ValueError(f"{name} cannot be made with these options: {told.rstrip('.')}.") from error
    except gym.error.UnregisteredEnv as error:
        told = str(error).partition(".")[0]  # what follows is a guess among all packages' environments
        ours = ", ".join(sorted(id for id in gym.registry if id.startswith("text_envs/")))
        raise ValueError(f"{told}: in --env {name}. Choose one of {ours}, or your own, module:id.") from error


def takes_model(env: str) -> bool:
    """Whether a registered environment has an argument `model`, whose tokenizer it takes."""
    spec = gym.registry.get(env)
    return spec is not None and "model" in inspect.signature(load_env_creator(spec.entry_point)).parameters  # type: ignore[arg-type]


def check_tokenizer(env: gym.Env, options: Namespace) -> None:
    """Raise ValueError where model and environment were both named, and the same ids mean other tokens to them."""
    ours = getattr(env.unwrapped, "tokenizer", None)
    if options.model is None or ours is None:
        return
    try:
        known = load_tokenizer(options.model).get_vocab()
    except ValueError:  # the model brings none
        return
    strange = [token for token, index in ours.get_vocab().items() if known.get(token) != index]
    if strange:
        raise ValueError(
            f"--model {options.model} has other tokens than {options.env}, {strange[0]!r} for one: the ids of the one mean "
            f"something else to the other. Give --env-kwargs '{json.dumps({'tokenizer': options.model})}' where the "
            "environment takes it, or leave --model out."
        )


def stop_strings(given: list[str] | str) -> list[str] | str:
    """What --stop says. Raises ValueError for a list that does not hold texts alone: jsonargparse took it for a text."""
    if isinstance(given, str) and re.match(r"\[\s*[\"\d]|\[\s*\]", given):
        raise ValueError(
            f"--stop {given} is no JSON list of texts. Put each text of it into quotation marks."
        )
    return given
