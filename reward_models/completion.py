"""What is judged (`Completion`), who judges (`RewardModel`), and the one way to call a judge (`score`)."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

# The search for the completion that made a batch fail scores one by one: so many at most, so long at most.
SEARCH_COMPLETIONS = 256
SEARCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply to one prompt.

    Token ids are the truth; `prompt` and `response` are decoded for judges and people, never encoded back.
    `response` leaves out special tokens and the stop string; `response_ids` keeps them. `columns` holds the
    other fields of the prompt's dataset row: a reference, an answer, a label.
    """

    prompt: str
    response: str
    prompt_ids: tuple[int, ...] = ()
    response_ids: tuple[int, ...] = ()
    finish_reason: Literal["eos", "stop", "length"] = "eos"
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


@runtime_checkable
class RewardModel(Protocol):
    """Batch in, batch out: n completions in, n finite numbers out. Any callable of this shape serves."""

    def __call__(self, completions: Sequence[Completion], /) -> Sequence[float] | np.ndarray: ...


class RewardError(ValueError):
    """A reward model failed. Says what is wrong, on which completion, and how to mend it."""


def where(completion: Completion, index: int, total: int) -> str:
    """Name one completion of a batch: its index, and excerpts of its prompt and response."""
    return (
        f"completion {index} of {total} (prompt {excerpt(completion.prompt)}, "
        f"response {excerpt(completion.response)})"
    )


def excerpt(value: object, limit: int = 60) -> str:
    """The repr of `value`, cut to about `limit` characters; shows control characters and lone surrogates."""
    text = repr(value[: limit + 1]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= limit + 2 else text[:limit] + "..."


def in_short(error: BaseException, limit: int = 300) -> str:
    """What another library's error says, in one line: its first, and the second where a colon leads to it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    if not isinstance(error, OSError | ValueError) or not text:
        text = f"{type(error).__name__}: {text}"
    return text[:limit].rstrip(".: ")


def name_of(reward_model: object) -> str:
    """What an error message calls a reward model: the full name of a function, else the class."""
    reward_model = getattr(reward_model, "function", reward_model)  # the one that a TRLReward adapts
    name = getattr(reward_model, "__name__", None)
    module = getattr(reward_model, "__module__", None)
    return type(reward_model).__name__ if name is None else f"{module}.{name}" if module else name


def column_of(completion: Completion, column: str, asked_by: str) -> Any:
    """The dataset field `column` of a completion. Raises RewardError, which lists the fields, without it."""
    value = completion.columns.get(column)
    if value is None:
        raise RewardError(
            f"{asked_by} needs the column {column!r}, and it is missing or null on the prompt "
            f"{excerpt(completion.prompt)}, whose columns are {sorted(completion.columns)}. "
            f"Give every prompt that field, or name another with column=..."
        )
    return value


def references_of(completion: Completion, column: str, asked_by: str) -> list[str]:
    """The dataset field `column` as texts: one, or several of a list. Raises RewardError without it, or for a dict."""
    value = column_of(completion, column, asked_by)
    if isinstance(value, Mapping):
        raise RewardError(
            f"{asked_by} needs a text, a number or a list of these in the column {column!r}, and it holds "
            f"{excerpt(value)} on the prompt {excerpt(completion.prompt)}. Name another with column=..."
        )
    return (
        [str(value)] if isinstance(value, str) or not isinstance(value, Iterable) else [str(v) for v in value]
    )


def score(reward_model: RewardModel, completions: Sequence[Completion]) -> np.ndarray:
    """Score completions: the only way environments and agents call a reward model.

    Args:
        reward_model: a callable that takes the sequence and returns one number per completion: a list, a 1-D
            array or a 1-D tensor. True and False count as 1 and 0.
        completions: n completions.

    Returns:
        float64 array, shape [n], all finite. n = 0 gives shape [0] without a call.

    Raises:
        RewardError: the call raised, or gave another number of scores, or a score that is no finite number.
            Nothing is broadcast and nothing is replaced.
    """
    if not completions:
        return np.zeros(0)
    name, total = name_of(reward_model), len(completions)
    try:
        scores = _as_list(reward_model(completions))
    except RewardError:
        raise
    except (Exception, SystemExit) as error:  # a reward that exits would end training as if all were well
        raise _explain(reward_model, completions, error) from error
    if isinstance(scores, str):
        raise RewardError(
            f"Reward model {name} returned {scores} for {total} completions, first {where(completions[0], 0, total)}. "
            f"Return a flat list with one number per completion."
        )
    if len(scores) != total:
        raise RewardError(
            f"Reward model {name} returned {len(scores)} scores for {total} completions, first "
            f"{where(completions[0], 0, total)}. Return one number per completion, in their order."
        )
    if set(map(type, scores)) == {float}:  # the common case, all at once
        result = np.array(scores)
        if np.isfinite(result).all():
            return result
    result = np.empty(total)
    for index, value in enumerate(scores):
        number = _as_number(value)
        if number is None:
            raise RewardError(
                f"Reward model {name} returned {excerpt(value)} where a finite number is needed, for "
                f"{where(completions[index], index, total)}. Return a float for every completion; for one that "
                f"cannot be judged, decide which number that is."
            )
        result[index] = number
    return result


def _as_list(scores: Any) -> list[Any] | str:
    """The scores as a list, or in words what came instead. Knows tensors without importing torch."""
    if hasattr(scores, "detach"):
        scores = scores.detach().cpu()
    shape = getattr(scores, "shape", None)
    if shape is not None and len(shape) != 1:
        return f"an array of shape {tuple(shape)}"
    if hasattr(scores, "tolist"):
        return list(scores.tolist())
    if isinstance(scores, str | bytes | Mapping | set | frozenset) or not isinstance(scores, Iterable):
        return excerpt(scores)
    return list(scores)


def _as_number(value: Any) -> float | None:
    """A finite float, or None where `value` is not a number that can be one: text, None, complex, lists."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None


def _explain(
    reward_model: RewardModel, completions: Sequence[Completion], error: BaseException
) -> RewardError:
    """Find, one by one and within limits, the completion that makes the reward model raise."""
    total = len(completions)

    def failed(error: BaseException, on: str) -> str:
        return f"Reward model {name_of(reward_model)} raised {type(error).__name__}: {error}, on {on}"

    if total == 1:
        return RewardError(f"{failed(error, where(completions[0], 0, 1))}. Mend the reward for such a reply.")
    deadline = time.monotonic() + SEARCH_SECONDS
    for index, completion in enumerate(completions[:SEARCH_COMPLETIONS]):
        try:
            _as_list(reward_model([completion]))
        except (Exception, SystemExit) as single:
            on = where(completion, index, total)
            return RewardError(f"{failed(single, on)}. Mend the reward for such a reply.")
        if time.monotonic() > deadline:
            break
    return RewardError(
        f"{failed(error, f'a batch of {total}')}, first {where(completions[0], 0, total)}; no single completion "
        f"of those tried alone makes it raise. Check how the reward handles a batch."
    )
