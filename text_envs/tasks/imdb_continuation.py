"""`text_envs/IMDBContinuation-v0`: go on with a film review, in good spirits, with a model of real size."""

from __future__ import annotations

from typing import Any

from text_envs.env import TextGenerationEnv
from text_envs.tasks.sources import File, given_path


class IMDBContinuationEnv(TextGenerationEnv):
    """Go on with a film review, so that a sentiment classifier takes it for a positive one.

    ## Description
    IMDB text continuation of RL4LMs (Ramamurthy et al. 2023, section 4), with the files of the user: GPT-2 or another model,
    the reviews of IMDB, a sentiment classifier. Made for a GPU. With all three in folders and files:

        rlhf ppo --env text_envs/IMDBContinuation-v0 --out runs/imdb --total-timesteps 5000000 --n-episodes 256 \\
            --env-kwargs '{"model": "gpt2-imdb", "prompts": "imdb-train.jsonl", "classifier": "distilbert-imdb"}'

    ``gpt2-imdb`` is best made before, by ``rlhf sft --model gpt2 --demos imdb-demos.jsonl --out gpt2-imdb``.

    ## Action Space
    ``Discrete(V)``: the next token of the model's tokenizer.

    ## Observation Space
    As `TextGenerationEnv`, with L = ``max_prompt_tokens`` + ``max_new_tokens``.

    ## Rewards
    The probability that the classifier gives to ``label`` for prompt and continuation together, 0 to 1.

    ## Starting State
    The first 64 tokens of a review, drawn uniformly.

    ## Episode End
    At EOS, and after 48 tokens.

    ## Arguments
    * ``model``: the folder of a causal LM and its tokenizer; the tokenizer's alone will do where training names its model.
    * ``prompts``: a ``.jsonl[.gz]`` with the field ``text``, or a ``.txt[.gz]`` with one review a line.
    * ``classifier``: the folder of a sequence classifier (`reward_models.classifier.Classifier`); not needed with
      ``reward_model``.
    * ``label=None``: the classifier's label that is wanted, by name or index; of two, the second.
    * All of `TextGenerationEnv`; ``max_prompt_tokens=64``, ``max_new_tokens=48``, ``prompt_field="text"``.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        model: File | None = None,
        prompts: File | None = None,
        classifier: File | None = None,
        label: int | str | None = None,
        **kwargs: Any,
    ):
        here = "IMDBContinuation-v0"
        model = given_path(here, "model", model, "the folder of a causal LM and its tokenizer")
        prompts = given_path(here, "prompts", prompts, "a .jsonl or .txt file of reviews")
        if "reward_model" not in kwargs:
            classifier = given_path(here, "classifier", classifier, "the folder of a sentiment classifier")
            kwargs["reward_model"] = {
                "name": "classifier",
                "model": classifier,
                "label": label,
                "output": "probability",
            }
        defaults = {
            "tokenizer": model,
            "default_model": model,
            "prompt_field": "text",
            "prompts_too_long": "truncate_right",
            "max_prompt_tokens": 64,
            "max_new_tokens": 48,
        }
        super().__init__(**{**defaults, "prompts": prompts, **kwargs})


make_vec = IMDBContinuationEnv.make_vec
