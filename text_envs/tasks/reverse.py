"""`text_envs/Reverse-v0`: write the prompt backwards."""

from __future__ import annotations

from collections.abc import Sequence

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.letters import letter_tokenizer, share_of_matches, words


def reversed_letters(completions: Sequence[Completion]) -> list[float]:
    """The share of positions at which the response has the letter of the reversed prompt."""
    return [share_of_matches(completion.response, completion.prompt[::-1]) for completion in completions]


class ReverseEnv(TextGenerationEnv):
    """Write the prompt's letters in the opposite order.

    ## Description
    As ``text_envs/Copy-v0``, but the distance from a token to the one that it repeats changes with each step: a
    policy that looks a fixed number of tokens back learns to copy, and not to reverse.

    ## Action Space
    ``Discrete(len(letters))``: the next letter.

    ## Observation Space
    As `TextGenerationEnv`, with L = 2 x ``length``.

    ## Rewards
    At the end, the share of positions at which the response has the letter of the reversed prompt. The optimum is 1;
    chance is ``1 / len(letters)``.

    ## Starting State
    A word of ``length`` letters, any.

    ## Episode End
    After ``length`` letters.

    ## Arguments
    * ``letters="abc"``, ``length=3``.

    ## Version History
    * v0: first version.
    """

    def __init__(self, letters: str = "abc", length: int = 3, render_mode: str | None = None):
        super().__init__(
            tokenizer=letter_tokenizer(letters),
            prompts=words(letters, length),
            reward_model=reversed_letters,
            max_new_tokens=length,
            render_mode=render_mode,
        )
        self.task.optimum = 1.0


make_vec = ReverseEnv.make_vec
