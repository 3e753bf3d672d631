"""Our reward models in other libraries' trainers: the call shapes of TRL's reward functions and of OpenRLHF's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_models.completion import Completion, RewardModel, name_of, score
from reward_models.files import replacing
from reward_models.preferences.conversational import messages_of, prompt_text, reply_text
from reward_models.registration import make
from reward_models.trl_style import TRAINER_ARGUMENTS, TRLReward


def as_trl(reward: Any, **kwargs: Any) -> Callable[..., Any]:
    """A reward model as TRL's trainers call one: ``GRPOTrainer(reward_funcs=[as_trl("length", target=20)], ...)``.

    Args:
        reward, kwargs: as of `make`. A function that was written for TRL comes back as it is.
    """
    made = make(reward, **kwargs)
    return made.function if isinstance(made, TRLReward) else ForTRL(made)


class ForTRL:
    """``f(prompts, completions, completion_ids, **columns)`` around a reward model.

    Conversations become text by the rule of `reward_models.preferences.conversational`. A column is an argument with a list
    of one value for each completion; what a trainer hands over besides is left out.
    """

    def __init__(self, reward_model: RewardModel) -> None:
        self.reward_model = reward_model
        self.__name__ = name_of(reward_model).rpartition(".")[2]  # what TRL's log calls it

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Scores, one of each completion. Raises RewardError as `score` does."""
        n = len(completions)
        ids = completion_ids if completion_ids is not None else [()] * n
        rows = {
            name: values
            for name, values in columns.items()
            if name not in TRAINER_ARGUMENTS and isinstance(values, list | tuple) and len(values) == n
        }
        judged = [
            Completion(
                _text(prompts[i], "A prompt", prompt_text),
                _text(completions[i], "A completion", reply_text),
                response_ids=tuple(ids[i]),
                columns={name: values[i] for name, values in rows.items()},
            )
            for i in range(n)
        ]
        return score(self.reward_model, judged).tolist()


def _text(value: Any, name: str, of_messages: Callable[[list[dict[str, Any]]], str]) -> str:
    return value if isinstance(value, str) else of_messages(messages_of(value, name))


def as_openrlhf(
    reward: Any, label_column: str = "answer", endings: Sequence[str] = ()
) -> Callable[..., dict[str, Any]]:
    """A reward model as OpenRLHF calls one: ``reward_func(queries, prompts, labels, **kwargs)``.

    Its queries are prompt and response in one text, special tokens included; it wants tensors "rewards", for advantages,
    "scores", for its dynamic filtering, here the same, and "extra_logs".

    Args:
        reward: as of `make`.
        label_column: the column in which a completion gets its label, the dataset field that ``--label_key`` names.
        endings: texts taken off the end of responses, the tokenizer's EOS and padding tokens.
    """
    judge = make(reward)

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        import torch

        judged = [
            Completion(prompt, _response(query, prompt, endings), columns={label_column: label})
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
        scores = torch.tensor(score(judge, judged), dtype=torch.float32)
        return {"rewards": scores, "scores": scores, "extra_logs": {"score": scores}}

    return reward_func


def write_openrlhf(
    path: str | os.PathLike[str], reward: Any, label_column: str = "answer", endings: Sequence[str] = ()
) -> Path:
    """Write the Python file that OpenRLHF's ``--remote_rm_url`` takes, for a reward that JSON names.

    Args:
        path: ends in .py.
        reward: a name, "module:attr", the folder of a classifier, or a dict with one of these as "name".
        label_column, endings: as of `as_openrlhf`.

    Raises:
        ValueError: ``reward`` is no text and no dict of JSON values; ``path`` ends otherwise.
    """
    path = Path(path)
    if path.suffix != ".py":
        raise ValueError(
            f"{path} does not end in .py. OpenRLHF would take it for a server's address: name it so."
        )
    if isinstance(reward, str | os.PathLike) and Path(reward).is_dir():
        reward = os.path.abspath(reward)
    try:
        spec = json.loads(json.dumps(dict(reward) if isinstance(reward, Mapping) else reward))
    except TypeError as error:
        raise ValueError(
            f"The reward {reward!r} cannot be written into a file: {error}. Name it: a built-in name, "
            '"module:attr", a classifier\'s folder, or a dict of these.'
        ) from error
    make(spec)  # raises for what OpenRLHF's workers could not make
    with replacing(path) as file:
        file.write(
            (
                '"""A reward of text-envs for OpenRLHF: --remote_rm_url <this file>."""\n\n'
                "from reward_models.handover import as_openrlhf\n\n"
                f"reward_func = as_openrlhf({spec!r}, {label_column!r}, {list(endings)!r})\n"
            ).encode()
        )
    return path


def _response(query: str, prompt: str, endings: Sequence[str]) -> str:
    """What follows the prompt in the query, without endings at its end."""
    place = query.find(prompt)  # a BOS may stand before it
    response = query[place + len(prompt) :] if place >= 0 else query
    stripped = True
    while stripped:
        stripped = False
        for ending in filter(response.endswith, filter(None, endings)):
            response, stripped = response[: -len(ending)], True
    return response
