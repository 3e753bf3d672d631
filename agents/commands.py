"""What `rlhf ppo` and `rlhf generate` do, and what all commands share. The options are those of `agents.cli`."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from jsonargparse import Namespace
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule, get_device
from transformers.utils import logging as transformers_logging

from agents import processes
from agents.callbacks import SampleTable, SaveEvery, SignalReceived, stop_on_signals, visible
from agents.command_env import make_env, stop_strings
from agents.generation import complete, policy_for
from agents.ledger import fingerprint
from agents.lora import of_rank
from agents.ppo import TextPPO
from agents.runs import Progress, RunFolder, last_wall_time
from reward_models import Completion
from reward_models.files import replacing
from reward_models.preferences import Origin
from text_envs.task import TextTask

# Options of `rlhf ppo` that are TextPPO's own, name for name.
PPO_ARGUMENTS = (
    "n_episodes", "batch_size", "micro_batch_size", "max_tokens_per_batch", "n_epochs", "n_envs", "kl_coef", "kl_target",
    "kl_horizon", "kl_estimator", "target_kl", "missing_eos_penalty", "score_clip", "clip_range", "gamma", "gae_lambda",
    "vf_coef", "ent_coef", "max_grad_norm", "reference_model", "reference_kwargs", "seed", "device",
)  # fmt: skip


def set_up(options: Namespace) -> None:
    """The process-wide settings that a command, but no library, may change."""
    if options.threads is not None:
        if options.threads > (os.cpu_count() or 1):  # thousands of them grind to a halt
            raise ValueError(f"--threads {options.threads}: this machine has {os.cpu_count()} processors.")
        torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()
    processes.count()  # before a GPU is named: of several processes each has its own
    options.device = usable_device(options.device)


def ppo(options: Namespace, config: str) -> int:
    """`rlhf ppo`: returns the exit status."""
    set_up(options)
    run = RunFolder(options.out, options.overwrite, options.resume)
    run.check(config)
    if options.resume and run.is_finished():
        print(f"The run in {run.path} is finished; nothing is left to do.")
        return 0
    model = load_ppo(options, run.last_checkpoint) if run.resumes else make_ppo(options)
    run.start(config)
    progress = Progress(options.total_timesteps, model.num_timesteps)
    model.set_logger(run.logger(progress, tensorboard=options.tensorboard, step=model.num_timesteps))
    earlier = last_wall_time(run.metrics) if processes.is_first() else 0.0
    stopped, seconds = train(model, options.total_timesteps, callbacks(options, run), run.last_checkpoint)
    model.save_pretrained(run.policy)
    if not processes.is_first():
        return exit_status(stopped)
    result = {"command": "ppo", **summary(run.metrics), "seconds": earlier + seconds, "policy": "policy"}
    run.write_result(result | {"stopped_by": stopped.number.name if stopped.number else None})
    if result["updates"]:
        first, final = result["scores"]["first"], result["scores"]["last"]
        print(
            f"score {first:.3f} -> {final:.3f}, KL {result['kl']:.2f} nats per reply, {result['seconds']:.0f} s; "
            f"run folder {run.path}"
        )
    return exit_status(
        stopped, f"what was learned is in {run.last_checkpoint}; the same command with --resume goes on."
    )


def generate(options: Namespace, config: str) -> int:
    """`rlhf generate`: prints the replies, or writes them to a file; returns the exit status."""
    set_up(options)
    check_model(options.model)
    if (options.prompt is None) == (options.prompts is None):
        raise ValueError("give either --prompt TEXT or --prompts FILE.")
    out = Path(options.out) if options.out else None
    if out is not None and out.suffix != ".jsonl":
        raise ValueError(f"--out {out} does not end in .jsonl. Name it so.")
    if out is not None and out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} is there already. Name another file, or say --overwrite.")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    task = TextTask(
        options.model,
        options.prompts or [options.prompt],
        no_score,
        max_new_tokens=options.max_new_tokens,
        stop=stop_strings(options.stop),
        eos_token_id=options.eos_token_id,
    )
    policy = policy_for(task, options.model, options.temperature, options.device)
    torch.manual_seed(options.seed)
    given = [task.prompts[i] for i in range(len(task.prompts))]
    rows = [{**prompt.columns, "prompt": prompt.text} for prompt in given]
    prompts = [row for row in rows for _ in range(options.n)]
    completions = complete(policy, task, prompts, options.greedy)
    if out is not None:
        write_samples(out, completions, sampled_by(options))
        print(f"{len(completions):,} replies to {len(task.prompts):,} prompts in {out}")
        return 0
    for completion in completions:
        print(visible(completion.response) if sys.stdout.isatty() else completion.response)
    return 0


def sampled_by(options: Namespace) -> Origin:
    """Which weights answer under these options, and how."""
    names = ("temperature", "max_new_tokens", "greedy", "stop", "eos_token_id")
    sampling = {name: getattr(options, name) for name in names if getattr(options, name)}
    is_folder = Path(options.model).is_dir()
    weights = (
        fingerprint(options.model, weights_only=True) if is_folder else options.model
    )  # of the hub: its name
    return Origin(weights, sampling, options.seed)


def write_samples(path: Path, completions: Sequence[Completion], origin: Origin) -> None:
    """Rows of prompt, response, origin and the prompt's other fields, as JSON lines, written whole or not at all."""
    with replacing(path) as file:
        for one in completions:
            row = {**one.columns, "prompt": one.prompt, "response": one.response, "origin": origin.to_json()}
            file.write((json.dumps(row) + "\n").encode())


# --- the parts of ppo ------------------------------------------------------------------------------------------


def make_ppo(options: Namespace) -> TextPPO:
    """The algorithm that the options describe, with its environment.

    Raises:
        ValueError: for options that do not fit one another.
    """
    if options.model is not None:
        check_model(options.model)
    rate = options.learning_rate
    if options.lr_schedule == "constant" and rate is None:
        raise ValueError("--lr-schedule constant needs --learning-rate: the default rate falls to 0.")
    policy_kwargs: dict[str, Any] = {
        "temperature": options.temperature,
        "dtype": options.dtype,
        "value_model": options.value_model,
        "gradient_checkpointing": options.gradient_checkpointing,
    }
    if options.model is not None:
        policy_kwargs["model"] = options.model
    if options.lora_r is not None:
        policy_kwargs["lora"] = of_rank(options.lora_r)
    return TextPPO(
        "CausalLMPolicy",
        make_env(options),
        learning_rate=rate
        if rate is None or options.lr_schedule == "constant"
        else LinearSchedule(rate, 0.0, 1.0),
        policy_kwargs=policy_kwargs,
        **{name: getattr(options, name) for name in PPO_ARGUMENTS},
    )


def load_ppo(options: Namespace, checkpoint: Path) -> TextPPO:
    """The algorithm as a checkpoint of a run with these options holds it, with its environment."""
    return TextPPO.load(checkpoint, env=make_env(options), device=options.device)


def callbacks(options: Namespace, run: RunFolder) -> list[BaseCallback]:
    """The callbacks that the options ask for."""
    chosen: list[BaseCallback] = []
    if options.samples_every:
        chosen.append(
            SampleTable(every=options.samples_every, path=run.samples, console=Console(stderr=True))
        )
    if options.checkpoint_every:
        chosen.append(SaveEvery(options.checkpoint_every, run.last_checkpoint))
    return chosen


def train(
    model: TextPPO, total_timesteps: int, callback: list[BaseCallback], last: Path
) -> tuple[SignalReceived, float]:
    """Train until `total_timesteps` tokens were generated; whatever happens, a checkpoint to go on from is saved to `last`.

    A loaded model goes on where it was. Ctrl-C and SIGTERM end it in order.

    Returns:
        The signal that ended it, if one did; seconds.
    """
    started = time.perf_counter()
    last.parent.mkdir(exist_ok=True)
    try:
        with stop_on_signals(model) as stopped, processes.explained():
            if model.is_loaded:
                model.learn(total_timesteps - model.num_timesteps, callback, reset_num_timesteps=False)
            else:
                model.learn(total_timesteps, callback)
    except Exception:
        # Of several processes others would have to save with this one, and do not know of its misfortune.
        if not model.torn and processes.count() == 1:
            with contextlib.suppress(OSError):  # the disk is full, perhaps; what was wrong first is told
                model.save(last)
        raise
    finally:
        model.logger.close()
    seconds = time.perf_counter() - started
    with stop_on_signals() as late:  # a signal must not cut the writing short
        model.save(last)
    received = stopped if stopped else late
    received.agree()
    return received, seconds


def summary(metrics: Path) -> dict[str, Any]:
    """What metrics.jsonl comes to; scores and KL are means over an update's episodes."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [row for row in rows if "objective/scores" in row]  # an evaluation writes rows of its own
    scores = [row["objective/scores"] for row in rows]
    if not rows:
        return {"updates": 0, "num_timesteps": 0, "scores": None, "kl": None}
    return {
        "updates": len(rows),
        "num_timesteps": rows[-1]["num_timesteps"],
        "scores": {
            "first": scores[0],
            "last": scores[-1],
            "mean_of_last_5": sum(scores[-5:]) / len(scores[-5:]),
        },
        "kl": rows[-1]["objective/kl"],
    }


# --- small things ----------------------------------------------------------------------------------------------


def usable_device(name: str) -> str:
    """A device that is there; "auto" is a GPU, or the CPU.

    Raises:
        ValueError: for one that is not.
    """
    try:
        return str(torch.zeros(0, device=get_device() if name == "auto" else name).device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used: {reason}. Choose auto or cpu.") from error


def check_model(name: str, option: str = "--model") -> None:
    """Say that there is no such model before a tokenizer, a hub or a network say it in their words.

    Raises:
        ValueError: neither a folder with a config.json nor, as far as can be told without a network, a hub id.
    """
    path = Path(name)
    if (path / "config.json").is_file():
        return
    if path.exists():
        raise ValueError(
            f"{option} {name} is no folder with a config.json: give one that save_pretrained wrote."
        )
    try:
        cached = isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str)
    except huggingface_hub.errors.HFValidationError:  # it cannot be a hub id
        raise ValueError(
            f"{option} {name} does not exist: give a folder that save_pretrained wrote."
        ) from None
    if not cached and huggingface_hub.constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"{option} {name} is neither a folder nor in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it: give a "
            "folder that save_pretrained wrote."
        )


def exit_status(stopped: SignalReceived, sentence: str | None = None) -> int:
    """0; or, after a signal, the shell's 128 + its number, said together with what was kept."""
    if stopped.number is None:
        return 0
    if sentence is not None:
        print(f"rlhf: stopped by {stopped.number.name}; {sentence}", file=sys.stderr)
    return 128 + stopped.number


def no_score(completions: Any) -> list[float]:
    """A reward model for an environment that is only generated from."""
    return [0.0] * len(completions)
