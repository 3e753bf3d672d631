"""`text_envs/Sort-v0`: write the prompt's letters in alphabetical order."""

from __future__ import annotations

from collections.abc import Sequence

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.letters import letter_tokenizer, share_of_matches, words


def sorted_letters(completions: Sequence[Completion]) -> list[float]:
    """The share of positions at which the response has the letter of the sorted prompt."""
    return [
        share_of_matches(completion.response, "".join(sorted(completion.prompt)))
        for completion in completions
    ]


class SortEnv(TextGenerationEnv):
    """Write the prompt's letters in alphabetical order.

    ## Description
    As ``text_envs/Copy-v0``, but each token depends on the whole prompt.

    ## Action Space
    ``Discrete(len(letters))``: the next letter.

    ## Observation Space
    As `TextGenerationEnv`, with L = 2 x ``length``.

    ## Rewards
    At the end, the share of positions at which the response has the letter of the sorted prompt. The optimum is 1;
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
            reward_model=sorted_letters,
            max_new_tokens=length,
            render_mode=render_mode,
        )
        self.task.optimum = 1.0


make_vec = SortEnv.make_vec
