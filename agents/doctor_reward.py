"""What is looked at in a reward: its scores, whether it is one at all, its padding, its agreement with raters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from agents.doctor_findings import Finding, ok, problem, warning
from agents.doctor_run import read_json
from reward_models import Completion, RewardModel
from reward_models import score as score_completions

CLIPPED = 0.2
SAME_SCORES = 0.9
NOISE = 0.1  # of the scores' standard deviation: less than replies differ, more than bfloat16 rounds
ALONE = 8  # completions that are also scored one by one
FEW_PAIRS = 50  # below it, 0.64 and 0.5 cannot be told apart with 95 % confidence


def scores(values: np.ndarray, clip: float | None, kl_coef: float) -> Finding:
    """Range and spread of the scores of sampled replies.

    Args:
        values: shape [replies].
        clip: scores are clipped to ± this; None: they are not.
        kl_coef: price of one nat of KL.
    """
    spread = float(values.std())
    seen = f"{values.min():.3g} to {values.max():.3g} on {len(values)} replies, mean {values.mean():.3g} ± {spread:.2g}."
    if spread < 1e-9:
        return problem(
            "reward",
            f"The reward is constant: {values[0]:.3g} for each of {len(values)} replies.",
            "Nothing can be learned from it. Score a good and a bad reply by hand; does it read the right column or label?",
        )
    clipped = 0.0 if clip is None else float((np.abs(values) >= clip).mean())
    if clipped > CLIPPED:
        return warning(
            "reward",
            f"{clipped:.0%} of the scores are at or beyond the clip of ±{clip:g}: {seen}",
            "Replies beyond the clip all count the same: scale the reward, calibrate it, or raise --score-clip.",
        )
    if spread < kl_coef:
        return warning(
            "reward",
            f"One nat of KL costs {kl_coef:g}, more than replies differ in score: {seen}",
            "The policy will hardly move: scale the reward up, or lower --kl-coef.",
        )
    return ok("reward", seen)


def within_prompts(values: np.ndarray) -> Finding:
    """Whether several replies to one prompt are told apart. Scores of shape [prompts, replies]."""
    same = float((np.ptp(values, axis=1) == 0).mean())
    seen = (
        f"For {same:.0%} of {len(values)} prompts all {values.shape[1]} sampled replies have the same score."
    )
    if same >= SAME_SCORES:
        return warning(
            "reward within prompts",
            seen,
            "Only replies to one prompt that differ in score teach anything: a finer reward, or easier prompts at first.",
        )
    return ok("reward within prompts", seen)


def repeatability(reward: RewardModel, completions: Sequence[Completion], together: np.ndarray) -> Finding:
    """Whether a reply has one score: asked again, and asked alone.

    Args:
        together: their scores as they came, shape [completions].
    """
    some = completions[:ALONE]
    again = score_completions(reward, completions)
    alone = np.array([score_completions(reward, [one])[0] for one in some])
    tolerance = max(NOISE * float(np.std(together)), 1e-6)
    if (random := float(np.abs(again - together).max())) > tolerance:
        return warning(
            "reward noise",
            f"The same replies, scored twice, differ by up to {random:.2g}.",
            "Noise in the reward costs updates. Is dropout on in its model, or does it sample?",
        )
    if (off := float(np.abs(alone - together[: len(alone)]).max())) > tolerance:
        return problem(
            "reward in batches",
            f"Replies score otherwise in a batch than alone, by up to {off:.2g}.",
            "Padding changes the scores: pass the attention mask, pad on the right, and give padding a token of its own.",
        )
    return ok("reward in batches", "Replies score the same alone and in a batch, and the second time.")


# --- classifiers ---------------------------------------------------------------------------------------------------


def classifiers_in(reward: Any, depth: int = 3) -> Iterator[tuple[PreTrainedModel, Any, bool]]:
    """The sequence classifiers that a reward holds, with a tokenizer that stands beside each, and whether it is guarded.

    `reward_models.classifier.Classifier` is: it pads so that no model reads a wrong token. Looked at are attributes, lists
    of them, and what a function closes over or names.
    """
    beside = list(_held_by(reward))
    tokenizer = next((held for held in beside if callable(getattr(held, "batch_decode", None))), None)
    for held in beside:
        if isinstance(held, PreTrainedModel):
            if type(held).__name__.endswith("ForSequenceClassification"):
                yield held, tokenizer, hasattr(reward, "_batches_agree")
        elif depth and (hasattr(held, "__code__") or not _is_library(held)):
            yield from classifiers_in(held, depth - 1)


def _is_library(value: Any) -> bool:
    return type(value).__module__.split(".")[0] in ("torch", "transformers", "numpy", "builtins")


def _held_by(holder: Any) -> Iterator[Any]:
    held = list(getattr(holder, "__dict__", {}).values())
    if (code := getattr(holder, "__code__", None)) is not None:
        held += [cell.cell_contents for cell in holder.__closure__ or ()]
        held += [holder.__globals__[name] for name in code.co_names if name in holder.__globals__]
    for value in held:
        yield from value if isinstance(value, list | tuple) else [value]


@torch.inference_mode()
def pooling(model: PreTrainedModel, tokenizer: Any, texts: Sequence[str], guarded: bool) -> Finding:
    """Whether a classifier reads a text's last token, or looks for it by a pad token that is also its EOS.

    Args:
        texts: some that it judges; the EOS is put behind each.
        guarded: the reward that holds it pads so that this does no harm.
    """
    config = model.config.get_text_config()
    pad, eos = config.pad_token_id, tokenizer.eos_token_id if tokenizer is not None else config.eos_token_id
    if pad is None and not guarded:
        return warning(
            "pad token",
            "The reward's classifier has no pad token: transformers scores only one text at a time with it.",
            "Set model.config.pad_token_id to a token of its own, or give the folder as the reward, which is padded rightly.",
        )
    if pad is None or pad != eos:
        return ok(
            "pad token", f"The reward's classifier does not take its EOS for padding (pad {pad}, EOS {eos})."
        )
    off = 0.0
    if tokenizer is not None:
        for text in texts[:ALONE]:
            ids = torch.tensor(
                [[*tokenizer(text, add_special_tokens=False)["input_ids"], eos]], device=model.device
            )
            native = model(input_ids=ids).logits
            try:
                config.pad_token_id = None  # of one text the last token is then read
                off = max(off, float((model(input_ids=ids).logits - native).abs().max()))
            finally:
                config.pad_token_id = pad
    seen = f"Token {pad} is both pad and EOS of the reward's classifier: of a text that ends in EOS it reads the token before"
    seen += f", and its logits are off by up to {off:.2g}." if off else "."
    advice = "Give padding a token of its own in its tokenizer and config, as when it was trained."
    if guarded:
        return warning(
            "pad token", f"{seen} Here it is padded otherwise, so that its scores are right.", advice
        )
    return problem(
        "pad token", seen, f"{advice} Or give its folder as the reward: it is padded rightly then."
    )


# --- agreement with raters -----------------------------------------------------------------------------------------


def accuracy(evaluation: Mapping[str, Any]) -> Iterator[Finding]:
    """How often the model agrees with raters, beside their own agreement and simple baselines.

    Args:
        evaluation: JSON of `reward_models.evaluation.Evaluation`.
    """
    found, raters, ceiling = (evaluation.get(name) for name in ("accuracy", "rater_agreement", "ceiling"))
    if not found:
        return
    value, low, high, n = found["value"], found["low"], found["high"], found.get("n", 0)
    seen = f"It agrees with {value:.0%} of the held-out votes ({low:.0%} to {high:.0%}, {n} votes)"
    seen += f"; raters agree with one another on {raters['value']:.0%}." if raters else "."
    if low <= 0.5:
        useless = value <= 0.5 or n >= FEW_PAIRS
        yield (problem if useless else warning)(
            "reward accuracy",
            f"It cannot be told from guessing: {seen}",
            "Do not train against it. Collect more comparisons, train longer (small models learn late), and see that the "
            "preferred reply is read as the preferred one.",
        )
    elif raters and low > (best := max(ceiling or 0.0, raters["value"])):
        yield warning(
            "reward accuracy",
            f"It agrees with the raters better than a judge without fault would (about {best:.0%}): {seen}",
            "Suspicious. Are the same prompts in training and evaluation, or does one feature, such as length, tell all?",
        )
    else:
        yield ok("reward accuracy", seen)
    baselines = evaluation.get("baselines", evaluation)
    longer = baselines.get("longer_wins")
    if longer and longer["value"] >= value:
        yield warning(
            "reward baselines",
            f"'The longer one wins' agrees with {longer['value']:.0%} of the votes, the model with {value:.0%}.",
            "What it has learned may be length: compare replies of equal length, or collect such comparisons.",
        )
    if evaluation.get("shared_prompts"):
        yield warning(
            "reward evaluation",
            f"{evaluation['shared_prompts']} of its held-out prompts were trained on.",
            "Split by prompt, never by pair: the accuracy is too good otherwise.",
        )


def evaluation_in(folder: Path) -> Mapping[str, Any] | None:
    """The evaluation in the result.json of `rlhf reward train` or `rlhf reward eval`, or in the stage.json of a stage of the
    loop, in which the reward model itself is a folder."""
    result, stage = read_json(folder / "result.json"), read_json(folder / "stage.json")
    above = read_json(folder.parent / "stage.json") if folder.name.startswith("member-") else {}
    candidates = (
        result,
        result.get("held_out"),
        *((one.get("result") or {}).get("held_out") for one in (stage, above)),
    )
    return next((one for one in candidates if isinstance(one, Mapping) and "accuracy" in one), None)
