"""What decides how training goes on besides weights: random generators, environments, callbacks, the log.

Each has a function that says its state, made of JSON values and tensors (`agents.packing.pack_tree` packs it), and one that
puts it back, in the same process or another.
"""

import hashlib
import os
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from agents.envs import GymnasiumVecEnv
from agents.runs import number
from text_envs.sb3 import TextVecEnv
from text_envs.vector import TextVectorEnv

# What Stable-Baselines3's own callbacks count; other callbacks name theirs in `saved_attributes`.
SB3_CALLBACKS: dict[type, tuple[str, ...]] = {
    BaseCallback: ("n_calls",),
    EvalCallback: (
        "best_mean_reward", "last_mean_reward", "evaluations_timesteps", "evaluations_results", "evaluations_length",
        "evaluations_successes",
    ),
    EveryNTimesteps: ("last_time_trigger",),
    StopTrainingOnMaxEpisodes: ("n_episodes",),
    StopTrainingOnNoModelImprovement: ("last_best_mean_reward", "no_improvement_evals"),
}  # fmt: skip
TAIL = 4096  # bytes by whose hash a file is recognised


# --- random generators ---------------------------------------------------------------------------------------------


def random_state() -> dict[str, Any]:
    """Of Python, of numpy's global generator, and of torch on the CPU and on each CUDA device in use."""
    state: Any = np.random.get_state()  # noqa: NPY002  the generator that SB3 seeds
    kind, keys, *rest = state
    version, words, spare = random.getstate()
    return {
        "python": (version, torch.tensor(words), spare),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    version, words, spare = state["python"]
    random.setstate((version, tuple(words.tolist()), spare))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for device, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda_state, device)


# --- environments --------------------------------------------------------------------------------------------------


def environment_state(env: VecEnv, again: bool) -> dict[str, Any]:
    """Where each sub-environment's prompts stand.

    Args:
        again: from before the present prompts were drawn, for an environment that is in use: put back, a reset shows
            them once more.

    Returns:
        "prompts": None for environments that cannot say; "seeds": those which the next reset is to use.
    """
    prompts, native = None, _native(env)
    if native is not None:
        prompts = [native.prompt_states(again)]
    elif _can_say(env):
        prompts = env.env_method("prompt_states", again)
    return {"prompts": prompts, "seeds": list(env.unwrapped._seeds)}


def set_environment_state(env: VecEnv, state: Mapping[str, Any]) -> None:
    """Put back what `environment_state` said; a reset then begins as it would have. Where that is impossible, say so."""
    prompts, native = state["prompts"], _native(env)
    if prompts is None or len(state["seeds"]) != env.num_envs or not (native or _can_say(env)):
        warnings.warn(
            "The environment goes on with other prompts than it would have: it is another one than when the model was saved, "
            "or one that cannot say where it stands (text_envs' own can, also behind wrappers).",
            stacklevel=4,
        )
        return
    rows = [row for states in prompts for row in states]
    if native is not None:
        native.set_prompt_states(rows)
    else:
        for index, row in enumerate(rows):
            env.env_method("set_prompt_states", [row], indices=[index])
    env.unwrapped._seeds = list(state["seeds"])


def _native(env: VecEnv) -> TextVectorEnv | None:
    bare = env.unwrapped
    vector = bare.venv.unwrapped if isinstance(bare, TextVecEnv | GymnasiumVecEnv) else None
    return vector if isinstance(vector, TextVectorEnv) else None


def _can_say(env: VecEnv) -> bool:
    # A Gymnasium vector environment calls a method of all its environments or of none.
    return not isinstance(env.unwrapped, GymnasiumVecEnv) and env.has_attr("prompt_states")


# --- callbacks -----------------------------------------------------------------------------------------------------


def callback_states(callback: BaseCallback) -> dict[str, Any]:
    """What each of these callbacks counts, by its class and its place among those of its class."""
    states = {}
    for name, one in _named(callback):
        states[name] = {
            "attributes": {key: _python(getattr(one, key)) for key in _saved_attributes(one)},
            "environment": (
                environment_state(one.eval_env, again=False) if isinstance(one, EvalCallback) else None
            ),
        }
    return states


def set_callback_states(callback: BaseCallback, states: Mapping[str, Any]) -> None:
    """Put back what `callback_states` said; callbacks that were not there start afresh."""
    for name, one in _named(callback):
        if name not in states:
            continue
        for key in _saved_attributes(one):
            if key in states[name]["attributes"]:
                setattr(one, key, states[name]["attributes"][key])
        if isinstance(one, EvalCallback) and states[name]["environment"] is not None:
            set_environment_state(one.eval_env, states[name]["environment"])


def _named(callback: BaseCallback) -> Iterator[tuple[str, BaseCallback]]:
    counts: Counter[str] = Counter()
    for one in walk(callback):
        kind = type(one).__name__
        yield f"{kind} {counts[kind]}", one
        counts[kind] += 1


def walk(callback: BaseCallback) -> Iterator[BaseCallback]:
    """The callback and those inside it."""
    yield callback
    inside = [getattr(callback, "callback", None), getattr(callback, "callback_on_new_best", None)]
    for one in [*getattr(callback, "callbacks", []), *inside]:
        if isinstance(one, BaseCallback):
            yield from walk(one)


def _saved_attributes(callback: BaseCallback) -> list[str]:
    names = [name for kind, own in SB3_CALLBACKS.items() if isinstance(callback, kind) for name in own]
    return [*names, *getattr(callback, "saved_attributes", ())]


def _python(value: Any) -> Any:
    """The value in Python's own types: numpy's scalars and arrays are turned into them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _python(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_python(item) for item in value]
    return value


# --- the log -------------------------------------------------------------------------------------------------------


def logger_state(logger: Logger) -> dict[str, Any]:
    """The numbers that were recorded and not yet dumped."""
    values = {name: number(value) for name, value in logger.name_to_value.items()}
    values = {name: value for name, value in values.items() if value is not None}
    return {
        "values": values,
        "counts": {name: logger.name_to_count[name] for name in values if name in logger.name_to_count},
        "excluded": {name: logger.name_to_excluded[name] for name in values},
    }


def set_logger_state(logger: Logger, state: Mapping[str, Any]) -> None:
    logger.name_to_value = defaultdict(float, state["values"])
    logger.name_to_count = defaultdict(int, state["counts"])
    logger.name_to_excluded = dict(state["excluded"])


def log_files(logger: Logger | None, callback: BaseCallback | None) -> list[Path]:
    """The files to which rows are appended: those that outputs of the logger and callbacks call their `log_file`."""
    writers: Iterable[Any] = [
        *(logger.output_formats if logger else ()),
        *(walk(callback) if callback else ()),
    ]
    files = [getattr(writer, "log_file", None) for writer in writers]
    return [Path(file).absolute() for file in files if file is not None]


def file_position(path: Path) -> dict[str, Any]:
    """How long a file is, and what its end looks like."""
    size = path.stat().st_size if path.exists() else 0
    return {"path": str(path), "bytes": size, "tail": _tail(path, size)}


def rewind(path: Path, position: Mapping[str, Any]) -> None:
    """Cut off what was appended to a file after `file_position`. A file that is not the one it was is left, and named."""
    size = path.stat().st_size if path.exists() else 0
    end = position["bytes"]
    is_the_same = _tail(path, end) == position["tail"] if end else str(path) == position["path"]
    if end <= size and is_the_same:
        if size > end:
            os.truncate(path, end)
    elif size:
        warnings.warn(
            f"{path} is not the file that the saved run wrote to, so its rows are kept and new ones come after them.",
            stacklevel=2,
        )


def _tail(path: Path, end: int) -> str:
    """sha256, in hex, of the last bytes before the offset `end`."""
    if end == 0 or not path.exists():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, end - TAIL))
        return hashlib.sha256(file.read(min(end, TAIL))).hexdigest()
