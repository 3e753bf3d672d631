"""`text_envs/DateSentences-v0`: end a sentence with dates."""

from __future__ import annotations

from collections.abc import Sequence

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.letters import word_tokenizer

DAYS = ("1", "10", "30", "31")
MONTHS = {"February": 28, "April": 30, "May": 31, "July": 31}
"""How many days each month has; no year below is a leap year."""
YEARS = ("2022", "2023", "2025")
OPENINGS = ("we met on", "the shop opened on", "write to us by")
WORDS = ("we", "met", "on", "the", "shop", "opened", "write", "to", "us", "by")
BEGUN = 1
"""What a day and its month without a year are worth, in tokens."""


def date_share(completions: Sequence[Completion]) -> list[float]:
    """The share of the response's words that belong to dates; a date without its year counts for one of its two words."""
    return [words_in_dates(c.response.split()) / max(len(c.response.split()), 1) for c in completions]


def words_in_dates(words: Sequence[str]) -> int:
    """3 for each day, month and year that stand side by side, 1 for a day and month alone; each must be in the calendar."""
    count = position = 0
    while position < len(words):
        day, month, year = [*words[position : position + 3], "", ""][:3]
        if day not in DAYS or int(day) > MONTHS.get(month, 0):
            position += 1
        elif year in YEARS:
            count, position = count + 3, position + 3
        else:
            count, position = count + BEGUN, position + 2
    return count


class DateSentencesEnv(TextGenerationEnv):
    """End a sentence with dates, such as "1 May 2025".

    ## Description
    The second of the synthetic tasks of RL4LMs (Ramamurthy et al. 2023): what is worth something is a few tokens long, and
    its tokens are worth nothing apart. A day, a month that has it ("31 April" does not exist) and a year make a date.

    Their reward is 1 where the text holds dddd-dd-dd, digits of any value, and 0 elsewhere, for a GPT-2 that writes
    some from the start. A policy that starts from random weights would hardly meet it: here each date counts, by its
    share of the response, and a date without its year counts a little.

    ## Action Space
    ``Discrete(21)``: 4 days, 4 months, 3 years, and the 10 words of the openings.

    ## Observation Space
    As `TextGenerationEnv`, with L = 4 + 3 x ``dates``.

    ## Rewards
    At the end, read from the left: 3 for each date and 1 for each date without its year, divided by the response's 3 x
    ``dates`` words. The optimum is 1; words drawn at random reach 0.03.

    ## Starting State
    One of three openings: "we met on", "the shop opened on", "write to us by".

    ## Episode End
    After 3 x ``dates`` words.

    ## Arguments
    * ``dates=2``.

    ## Version History
    * v0: first version.
    """

    def __init__(self, dates: int = 2, render_mode: str | None = None):
        if dates < 1:
            raise ValueError(f"dates={dates}: give at least 1.")
        super().__init__(
            tokenizer=word_tokenizer([*DAYS, *MONTHS, *YEARS, *WORDS]),
            prompts=list(OPENINGS),
            reward_model=date_share,
            max_new_tokens=3 * dates,
            render_mode=render_mode,
        )
        self.task.optimum = 1.0


make_vec = DateSentencesEnv.make_vec
