"""`text_envs/IncreasingNumbers-v0`: go on counting upwards, in steps of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.letters import word_tokenizer


def increasing_share(completions: Sequence[Completion]) -> list[float]:
    """How far the response increases: the numbers before the first that is no larger than the one before it, as a
    share of all. The first is compared with the prompt."""
    return [run_length(c.prompt, c.response) / max(len(c.response.split()), 1) for c in completions]


def run_length(prompt: str, response: str) -> int:
    """How many numbers of the response continue the prompt's number upwards, up to the first that does not."""
    numbers = [int(word) for word in [*prompt.split()[-1:], *response.split()]]
    for n, (last, following) in enumerate(pairwise(numbers)):
        if following <= last:
            return n
    return len(numbers) - 1


class IncreasingNumbersEnv(TextGenerationEnv):
    """Write numbers, each larger than the one before.

    ## Description
    The first of the synthetic tasks of RL4LMs (Ramamurthy et al. 2023, "Is Reinforcement Learning (Not) for Natural
    Language Processing?"). Greed does not pay: who takes a large number early has none left to go on with.

    Their reward, too, is the share of the tokens in the increasing run at the response's beginning. There any text of
    GPT-2's vocabulary can be written, words that are no numbers are passed over, and the first number always counts.
    Here a token is a number, so that a policy learns in seconds; the prompt is a number, and the first is to exceed it.

    ## Action Space
    ``Discrete(numbers)``: token i is the number i.

    ## Observation Space
    As `TextGenerationEnv`, with L = 1 + ``length``.

    ## Rewards
    At the end, how many numbers there are before the first that is no larger than the one before it (of the first,
    than the prompt), divided by ``length``. The optimum is 1: consecutive numbers. Numbers drawn at random reach
    0.17 with the default arguments.

    ## Starting State
    A number from which ``length`` larger ones are left: 0 to ``numbers - 1 - length``.

    ## Episode End
    After ``length`` numbers.

    ## Arguments
    * ``numbers=12``, ``length=6``.

    ## Version History
    * v0: first version.
    """

    def __init__(self, numbers: int = 12, length: int = 6, render_mode: str | None = None):
        if not 1 <= length < numbers:
            raise ValueError(
                f"length={length}, numbers={numbers}: {length} numbers cannot follow one another upwards. Give a "
                "length of 1 to numbers - 1."
            )
        super().__init__(
            tokenizer=word_tokenizer([str(i) for i in range(numbers)]),
            prompts=[str(i) for i in range(numbers - length)],
            reward_model=increasing_share,
            max_new_tokens=length,
            render_mode=render_mode,
        )
        self.task.optimum = 1.0


make_vec = IncreasingNumbersEnv.make_vec
