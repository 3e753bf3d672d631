"""`text_envs/TLDR-v0`: summarise a post, at the size of a real model (Stiennon et al. 2020)."""

from __future__ import annotations

from typing import Any

from text_envs.env import TextGenerationEnv
from text_envs.tasks.sources import File, given_path, read_answers


class TLDREnv(TextGenerationEnv):
    """Summarise a post, by the overlap with a reference summary or by a learned reward model.

    ## Description
    TL;DR summarisation (Stiennon et al. 2020; Huang et al. 2024), with the files of the user: a model, posts, and either
    their summaries or a reward model learned from comparisons. Made for a GPU. With all in folders and files:

        rlhf ppo --env text_envs/TLDR-v0 --out runs/tldr --total-timesteps 20000000 --n-episodes 512 \\
            --env-kwargs '{"model": "pythia-1b-tldr", "prompts": "tldr-train.jsonl", "reward_model": "pythia-1b-tldr-reward"}'

    ``pythia-1b-tldr`` comes from ``rlhf sft``, the reward model from ``rlhf reward train``.

    ## Action Space
    ``Discrete(V)``: the next token of the model's tokenizer.

    ## Observation Space
    As `TextGenerationEnv`, with L = ``max_prompt_tokens`` + ``max_new_tokens``.

    ## Rewards
    ROUGE-L F1 with the reference summary, 0 to 1, the best of several; or what ``reward_model`` says.

    ## Starting State
    A post, drawn uniformly; of one that is too long, its end, which asks for the summary.

    ## Episode End
    At EOS, and after 53 tokens (Huang et al. 2024).

    ## Arguments
    * ``model``: the folder of a causal LM and its tokenizer; the tokenizer's alone will do where training names its model.
    * ``prompts``: a ``.jsonl[.gz]`` with the fields ``prompt``, the post and "TL;DR:", and ``summary``, one or a list. Posts
      that occur twice are one prompt with two summaries. With a reward model, summaries may be missing.
    * ``reward_model="rouge_l"``: or the folder of a reward model, or anything of `reward_models.make`.
    * ``summary_field="summary"``.
    * All of `TextGenerationEnv`; ``max_prompt_tokens=512``, ``max_new_tokens=53``.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        model: File | None = None,
        prompts: File | None = None,
        reward_model: Any = "rouge_l",
        summary_field: str = "summary",
        prompt_field: str = "prompt",
        **kwargs: Any,
    ):
        model = given_path("TLDR-v0", "model", model, "the folder of a causal LM and its tokenizer")
        rows: Any = given_path("TLDR-v0", "prompts", prompts, "a .jsonl file of posts and their summaries")
        if reward_model == "rouge_l":
            reward_model = {"name": "rouge_l", "column": summary_field}
            summaries = read_answers(rows, [prompt_field], [summary_field])
            rows = [{prompt_field: post, summary_field: texts} for post, texts in summaries.items()]
        defaults = {
            "tokenizer": model,
            "default_model": model,
            "max_prompt_tokens": 512,
            "max_new_tokens": 53,
        }
        arguments = {
            "prompts": rows,
            "prompt_field": prompt_field,
            "reward_model": reward_model,
            "prompts_too_long": "truncate_left",
        }
        super().__init__(**{**defaults, **arguments, **kwargs})


make_vec = TLDREnv.make_vec
