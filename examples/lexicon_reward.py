"""A reward from a sentiment lexicon: the valence of the response's words, added up, / 4, clipped to [-3, 3].

The lexicon is a .jsonl or .jsonl.gz file of {"text": word, "score": valence}, VADER's for one (-4 to 4):

    LEXICON=vader_lexicon/all.jsonl.gz rlhf ppo --reward examples.lexicon_reward:score ...
"""

import functools
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

from reward_models import Completion

SCALE, LIMIT = 4.0, 3.0


def score(completions: Sequence[Completion]) -> list[float]:
    """One number in [-3, 3] per completion; 0 for a response without a word of the lexicon."""
    lexicon = load(os.environ.get("LEXICON", ""))
    return [
        max(-LIMIT, min(LIMIT, sum(valence(word, lexicon) for word in c.response.lower().split()) / SCALE))
        for c in completions
    ]


def valence(word: str, lexicon: dict[str, float]) -> float:
    """As written, for emoticons and abbreviations; else without the punctuation around it."""
    return lexicon.get(word, lexicon.get(word.strip(".,;:!?\"'()[]*-"), 0.0))


@functools.cache
def load(path: str) -> dict[str, float]:
    """Read the lexicon once. Raises ValueError where the variable is not set or the file is not such a file."""
    if not Path(path).is_file():
        raise ValueError(
            f"No lexicon at {path!r}: set the environment variable LEXICON to a .jsonl[.gz] file"
        )
    opener = gzip.open if path.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return {str(row["text"]).lower(): float(row["score"]) for row in rows}
    except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: {error!r}; each line needs a text and a score") from error
