"""The run that is killed: ``rlhf ppo --resume`` on a task of a second, with samples, checkpoints and evaluations."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import EvalCallback

from agents import checkpoint, cli, commands
from agents.envs import as_vec_env

WALL_TIMES = re.compile(r'"(wall_time|time/fps|time/time_elapsed)": [^,}]+(, )?')
# What of a checkpoint is a time, or a place in a file whose rows hold times.
NOT_COMPARED = ("files", "episode_infos")


def go_on(folder: Path, seed: int, tokens: int) -> int:
    """Begin the run in the folder, or go on with it; returns the command's exit status."""
    chosen = commands.callbacks

    def callbacks(options, run):
        env = as_vec_env("text_envs/CountLetter-v0", 2)
        env.seed(seed)
        evaluation = EvalCallback(
            env, n_eval_episodes=4, eval_freq=23, deterministic=False, verbose=0, warn=False,
            log_path=str(folder), best_model_save_path=str(folder / "best"),
        )  # fmt: skip
        return [*chosen(options, run), evaluation]

    commands.callbacks = callbacks
    options = {
        "env": "text_envs/CountLetter-v0", "total-timesteps": tokens, "out": folder, "seed": seed, "n-episodes": 12,
        "batch-size": 4, "n-epochs": 2, "kl-target": 3, "samples-every": 2, "checkpoint-every": 1, "tensorboard": "false",
        "threads": 1, "device": "cpu",
    }  # fmt: skip
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return cli.main(["ppo", *arguments, "--resume"])


def result(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves behind and that must be equal to the bit, by name."""
    members = checkpoint.read(folder / "checkpoints" / "last.zip")
    moment = checkpoint.unpack_tree(members["moment.json"], members["moment.safetensors"])
    kept = {name: value for name, value in moment.items() if name not in NOT_COMPARED}
    del kept["counters"]["_num_timesteps_at_start"]  # of the last start, for tokens per second
    evaluations = np.load(folder / "evaluations.npz")
    result = json.loads((folder / "result.json").read_text())
    return {
        "metrics.jsonl": WALL_TIMES.sub("", (folder / "metrics.jsonl").read_text()),
        "samples.jsonl": (folder / "samples.jsonl").read_text(),
        "policy": (folder / "policy" / "model.safetensors").read_bytes(),
        "weights": members["policy.safetensors"],
        "reference": members["reference.safetensors"],
        "optimizer": (members["settings.json"]["optimizer"], members["optimizer.safetensors"]),
        "moment": kept,
        "evaluations": {name: evaluations[name].tolist() for name in sorted(evaluations)},
        "best": checkpoint.read(folder / "best" / "best_model.zip")["policy.safetensors"],
        "result.json": {name: value for name, value in result.items() if name != "seconds"},
        "files": sorted(
            str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(".tmp")
        ),
        "left over": [path.name for of in (folder, folder / "checkpoints") for path in of.glob(".*")],
    }


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Where two results differ; empty where they are equal to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        if set(one) != set(other):
            return [f"{name}: {sorted(set(one) ^ set(other))}"]
        return [line for key in one for line in differences(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [line for i, pair in enumerate(zip(one, other)) for line in differences(*pair, f"{name}/{i}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [name]


def silence(file: Path) -> None:
    """Write what this process says to a file."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
