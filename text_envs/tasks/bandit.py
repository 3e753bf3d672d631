"""`text_envs/Bandit-v0`: one token, and a table of what each token is worth."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.letters import letter_tokenizer

ARMS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class RewardTable:
    """The score of a response is the entry of its one token."""

    rewards: tuple[float, ...]

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [self.rewards[completion.response_ids[0]] for completion in completions]


class BanditEnv(TextGenerationEnv):
    """A multi-armed bandit in the shape of text generation.

    ## Description
    The smallest text environment. With a penalty of beta for the KL to a reference policy, the best policy is
    known in closed form: reference x exp(reward / beta) / Z.

    ## Action Space
    ``Discrete(len(rewards))``: the letter ``a`` is token 0, ``b`` token 1, and so on.

    ## Observation Space
    As `TextGenerationEnv`, with L = 2: the prompt, and the token chosen.

    ## Rewards
    ``rewards[action]``. The optimum is ``max(rewards)``.

    ## Starting State
    The prompt ``a``, always.

    ## Episode End
    After one token.

    ## Arguments
    * ``rewards=(0.0, 0.25, 0.5, 1.0)``: one number per token, 62 at most.

    ## Version History
    * v0: first version.
    """

    def __init__(self, rewards: Sequence[float] = (0.0, 0.25, 0.5, 1.0), render_mode: str | None = None):
        if not 1 <= len(rewards) <= len(ARMS):
            raise ValueError(f"rewards has {len(rewards)} entries. Give 1 to {len(ARMS)} numbers.")
        super().__init__(
            tokenizer=letter_tokenizer(ARMS[: len(rewards)]),
            prompts=["a"],
            reward_model=RewardTable(tuple(float(reward) for reward in rewards)),
            max_new_tokens=1,
            render_mode=render_mode,
        )
        self.task.optimum = max(float(reward) for reward in rewards)


make_vec = BanditEnv.make_vec
