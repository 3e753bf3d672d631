"""`text_envs/CountLetter-v0`: write one letter as often as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.letters import letter_tokenizer


@dataclass(frozen=True)
class ShareOfLetter:
    """The share of a response's letters that are ``letter``."""

    letter: str

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [
            completion.response.count(self.letter) / len(completion.response) for completion in completions
        ]


class CountLetterEnv(TextGenerationEnv):
    """Write the target letter again and again.

    ## Description
    The same token is right in every state: what is learned is credit for a reward that comes once, at the
    end.

    ## Action Space
    ``Discrete(len(letters))``: the next letter.

    ## Observation Space
    As `TextGenerationEnv`, with L = 1 + ``length``.

    ## Rewards
    At the end, the share of the response's letters that are ``target``. The optimum is 1; chance is ``1 /
    len(letters)``.

    ## Starting State
    One letter, any.

    ## Episode End
    After ``length`` letters.

    ## Arguments
    * ``letters="abcd"``, ``target="a"``, ``length=8``.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self, letters: str = "abcd", target: str = "a", length: int = 8, render_mode: str | None = None
    ):
        if len(target) != 1 or target not in letters:
            raise ValueError(f"target={target!r} is not one of the letters {letters!r}.")
        super().__init__(
            tokenizer=letter_tokenizer(letters),
            prompts=list(letters),
            reward_model=ShareOfLetter(target),
            max_new_tokens=length,
            render_mode=render_mode,
        )
        self.task.optimum = 1.0


make_vec = CountLetterEnv.make_vec
