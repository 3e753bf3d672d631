"""`text_envs/ReasoningGym-v0`: the procedural data sets of the package reasoning-gym, scored by their own verifiers."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward_models import Completion
from text_envs.env import TextGenerationEnv
from text_envs.tasks.sources import choose
from text_envs.trained_tokenizer import trained_tokenizer

SPLITS = ("train", "held_out")
VOCAB_SIZE = 512
MAX_NEW_TOKENS = 32
RIGHT_SHARE = 0.5
"""How many of the demonstrations have their own answer; the others have another question's."""
SEEDS_APART = 1_000_003
"""The held-out questions are those of the seed so much higher."""
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

INSTALL = (
    "text_envs/ReasoningGym-v0 needs the package reasoning-gym, which is not installed. Do: pip install 'text-envs[tasks]' "
    "(or: pip install reasoning-gym; its dependency pycosat is compiled, with any C compiler)."
)


def make_dataset(name: str, size: int, seed: int, config: str) -> Any:
    """A data set of reasoning-gym: of ``size`` entries, dicts of question, answer and metadata.

    Args:
        config: the data set's other settings, as JSON.

    Raises:
        ImportError: without reasoning-gym.
        ValueError: for a name or a setting that it does not know.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=5, cutoff=0.4) or sorted(DATASETS)[:5]
        raise ValueError(
            f"dataset={name!r} is none of the {len(DATASETS)} data sets of reasoning-gym. Close to it are: "
            f"{', '.join(close)}."
        )
    try:
        return reasoning_gym.create_dataset(name, size=size, seed=seed, **json.loads(config))
    except (TypeError, AssertionError) as error:
        raise ValueError(
            f"config={config} does not suit the data set {name!r}: {error}. Correct it."
        ) from error


@functools.cache
def entries(split: str, dataset: str, size: int, seed: int, config: str) -> tuple[dict[str, Any], ...]:
    """The entries of a split, no question twice; a held-out question is none of the training questions.

    Raises:
        ValueError: for a split that there is not, or one without questions; and as `make_dataset`.
    """
    if split not in SPLITS:
        raise ValueError(f"ReasoningGym-v0 has no split {split!r}. Choose one of: {', '.join(SPLITS)}.")
    found = {entry["question"]: entry for entry in make_dataset(dataset, size, seed, config)}
    if split == "train":
        return tuple(found.values())
    others = {entry["question"]: entry for entry in make_dataset(dataset, size, seed + SEEDS_APART, config)}
    held_out = tuple(entry for question, entry in others.items() if question not in found)
    if not held_out:
        raise ValueError(
            f"The data set {dataset!r} has so few questions that all of seed {seed + SEEDS_APART} are training questions "
            "too. Lower size, or make it harder by config."
        )
    return held_out


class Verifier:
    """The verifier of a data set: 0 to 1, mostly 1 for a right answer.

    It judges what stands between <answer> and </answer>, or the whole response, without the white space around it. An
    answer on which the verifier fails is wrong. The entry is the prompt's column "entry".
    """

    def __init__(self, dataset: str, config: str = "{}"):
        self.dataset, self.config = dataset, config
        self.verify = make_dataset(dataset, 1, 0, config).score_answer

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [self.score(completion.response, completion.columns["entry"]) for completion in completions]

    def score(self, response: str, entry: Mapping[str, Any]) -> float:
        """The score of one response."""
        tagged = TAGGED.findall(response)
        answer = (tagged[-1] if tagged else response).strip()
        try:
            return float(np.clip(self.verify(answer, dict(entry)), 0.0, 1.0))
        except Exception:  # of no class of its own: each verifier parses answers in its own way
            return 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        return Verifier, (self.dataset, self.config)


def row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as a prompt. Responses begin with a space: no token straddles the two."""
    return {"prompt": f"{entry['question'].strip()}\nAnswer:", "entry": entry}


def prompts(
    split: str = "train",
    dataset: str = "leg_counting",
    size: int = 1000,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The questions of a split: dicts of prompt and entry. Raises as `entries`."""
    return [row(entry) for entry in entries(split, dataset, size, seed, settings(config))]


def demonstrations(
    split: str = "train",
    n: int = 10_000,
    seed: int = 0,
    dataset: str = "leg_counting",
    size: int = 1000,
    config: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """``n`` questions of a split (that of seed 0), drawn with replacement, half of them with the answer to another question.

    Returns:
        Dicts of prompt, response (with its leading space), entry and quality: right, other.

    Raises:
        ValueError: for a data set without answers, whose verifier only checks them; and as `entries`.
    """
    known = [e for e in entries(split, dataset, size, 0, settings(config)) if e["answer"] is not None]
    if not known:
        raise ValueError(f"The data set {dataset!r} tells no answers: there is nothing to demonstrate.")
    rng = np.random.default_rng(seed)
    rows = []
    for right in rng.random(n) < RIGHT_SHARE:
        entry = choose(rng, known)
        answer = entry["answer"] if right else choose(rng, known)["answer"]
        rows.append({**row(entry), "response": f" {answer}", "quality": "right" if right else "other"})
    return rows


def settings(config: Mapping[str, Any] | None) -> str:
    """A config as JSON, which can be a key."""
    return json.dumps(config or {}, sort_keys=True)


@functools.cache
def tokenizer(dataset: str, config: str) -> Any:
    """A byte-level BPE trained on questions and answers of a data set."""
    return trained_tokenizer(
        (
            f"{text}"
            for entry in entries("train", dataset, 1000, 0, config)
            for text in (row(entry)["prompt"], f" {entry['answer']}")
        ),
        VOCAB_SIZE,
    )


@functools.cache
def longest_prompt(dataset: str, size: int, seed: int, config: str) -> int:
    """The tokens of the longest prompt of both splits."""
    both = [
        *entries("train", dataset, size, seed, config),
        *make_dataset(dataset, size, seed + SEEDS_APART, config),
    ]
    encoded = tokenizer(dataset, config)([row(entry)["prompt"] for entry in both])["input_ids"]
    return max(map(len, encoded))


class ReasoningGymEnv(TextGenerationEnv):
    """Answer the questions of a data set of reasoning-gym.

    ## Description
    reasoning-gym (Stojanovski et al. 2025) makes questions of some hundred kinds, algebra, logic, games, and verifies the
    answers. Any of its data sets by name. Most are too hard for a small model that starts from nothing: begin with
    ``config={"min_animals": 1, "max_animals": 2, "max_instances": 3}``, or give the environment the ``tokenizer`` of a model
    that knows English.

    ## Action Space
    ``Discrete(V)``: the next token of a byte-level BPE trained in memory on the data set, V at most 512.

    ## Observation Space
    As `TextGenerationEnv`, with L as long as the longest question of both splits + ``max_new_tokens``; where another
    tokenizer or other prompts are given, of these prompts.

    ## Rewards
    The score of the data set's own verifier, 0 to 1: see `Verifier`. The optimum is 1.

    ## Starting State
    A question of the split, drawn uniformly. `prompts` lists them, `demonstrations` answers them.

    ## Episode End
    At EOS, and after ``max_new_tokens`` tokens.

    ## Arguments
    * ``dataset="leg_counting"``, ``size=1000``, ``seed=0``: the data set, how many questions, and from which seed.
    * ``config=None``: the data set's other settings, a dict.
    * ``split="train"``: the questions of ``seed``; or ``"held_out"``: those of another seed that are not among them.
    * All of `TextGenerationEnv`; ``max_new_tokens`` is 32. There is no default model: make one by `agents.sft.finetune` on
      `demonstrations`, with this environment's ``tokenizer``.

    It needs the extra ``[tasks]``.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        dataset: str = "leg_counting",
        size: int = 1000,
        seed: int = 0,
        split: str = "train",
        config: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        text = settings(config)
        defaults = {
            "max_prompt_tokens": None
            if {"tokenizer", "prompts"} & set(kwargs)
            else longest_prompt(dataset, size, seed, text),
            "tokenizer": kwargs["tokenizer"] if "tokenizer" in kwargs else tokenizer(dataset, text),
            "prompts": kwargs["prompts"]
            if "prompts" in kwargs
            else prompts(split, dataset, size, seed, config),
            "reward_model": Verifier(dataset, text),
            "max_new_tokens": MAX_NEW_TOKENS,
        }
        super().__init__(**{**defaults, **kwargs})
        if "reward_model" not in kwargs:
            self.task.optimum = 1.0


make_vec = ReasoningGymEnv.make_vec
