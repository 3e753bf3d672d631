"""What a set-up shows before anything is computed: tokenizer, vocabulary, generation settings, demonstrations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.demonstrations import IGNORED, DemonstrationEncoder, read_pairs
from agents.doctor_findings import Finding, ok, problem, warning
from agents.doctor_run import read_json
from text_envs.encoding import PromptError

# Settings of generation_config.json that change what is sampled, and the value at which they change nothing.
NEUTRAL: Mapping[str, Any] = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0, "min_new_tokens": 0, "min_length": 0,
}  # fmt: skip
# Shares of the demonstrations that are worth a word: of faults; and of lengths, which may be meant.
FEW, MANY = 0.01, 0.2


def pad_token(tokenizer: Any, replies_end: bool | None = None) -> Finding:
    """Whether padding has a token of its own.

    Args:
        replies_end: whether the model's replies end by themselves; None where nobody looked.
    """
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    if pad is None:
        return ok("pad token", "There is none. This library needs none: it marks padding by masks.")
    if pad != eos:
        return ok("pad token", f"{tokenizer.pad_token!r} ({pad}) is not the EOS token.")
    seen = f"{tokenizer.pad_token!r} ({pad}) is both the pad token and the EOS token."
    advice = "Give padding a token of its own (tokenizer.pad_token = ...), and fine-tune with a loss that keeps the EOS."
    if replies_end is False:
        return problem(
            "pad token",
            f"{seen} And the model never ends a reply: a loss that leaves out padding leaves out every EOS too.",
            advice,
        )
    return warning(
        "pad token",
        f"{seen} Nothing here goes wrong by it, for padding is marked by masks; elsewhere a loss that leaves out padding "
        "leaves out every EOS, and classifiers read the token before it.",
        advice,
    )


def end_token(
    tokenizer: Any, eos_token_ids: Sequence[int], stop: Sequence[str], endless: bool = False
) -> Finding:
    """What ends a reply: the tokens and texts of the environment, and whether the tokenizer's own is among them.

    Args:
        endless: it is meant so, if nothing does.
    """
    own, listed = tokenizer.eos_token_id, ", ".join(map(str, eos_token_ids))
    if not eos_token_ids and not stop and endless:
        return ok("end token", "Nothing ends a reply but its length, as the environment wants it.")
    if not eos_token_ids and not stop:
        return warning(
            "end token",
            "No token and no text ends a reply: each goes on to the length limit.",
            "If replies should end by themselves, set tokenizer.eos_token, or give --eos-token-id or --stop.",
        )
    if not eos_token_ids:
        return ok("end token", f"Replies end at {' or '.join(map(repr, stop))}; no token ends them.")
    if own is not None and own not in eos_token_ids:
        return warning(
            "end token",
            f"The tokenizer's EOS {tokenizer.eos_token!r} ({own}) does not end a reply; what does: {listed}.",
            "A model that was fine-tuned to write it goes on after it: name both with --eos-token-id.",
        )
    return ok("end token", f"Replies end at token {listed}{''.join(f' or {text!r}' for text in stop)}.")


def is_endless(settings: Mapping[str, Any]) -> bool:
    """Whether the settings of `rlhf ppo` say that nothing needs to end a reply: by an environment of its own, or no EOS."""
    own = settings.get("env") not in (None, "text_envs/TextGeneration-v0")
    return own or settings.get("eos_token_id") == []


def vocabulary(vocab_size: int, model_config: Any) -> Finding:
    """Whether the model knows every token of the environment.

    Args:
        vocab_size: V of the environment.
        model_config: a transformers config.
    """
    known = model_config.get_text_config().vocab_size
    if known < vocab_size:
        return problem(
            "vocabulary",
            f"The tokenizer has {vocab_size:,} tokens, the model knows {known:,}.",
            "Take the model's own tokenizer, or resize the model with resize_token_embeddings and fine-tune it again.",
        )
    rest = f"; the model's other {known - vocab_size:,} are never sampled" if known > vocab_size else ""
    return ok("vocabulary", f"The model knows all {vocab_size:,} tokens of the tokenizer{rest}.")


def generation_settings(folder: Path, temperature: float) -> Finding:
    """Whether who generates with the model's folder samples what training samples.

    Args:
        temperature: of training.
    """
    path = folder / "generation_config.json"
    told = {name: value for name, value in read_json(path).items() if name in NEUTRAL and value is not None}
    trained = {**NEUTRAL, "temperature": temperature}
    others = {name: value for name, value in told.items() if value != trained[name]}
    if told.get("temperature", 1.0) != temperature:
        others["temperature"] = told.get("temperature", 1.0)
    if not others:
        return ok(
            "generation settings",
            f"generation_config.json samples as training does, at temperature {temperature:g}.",
        )
    listed = ", ".join(f"{name} {value:g}" for name, value in others.items())
    return warning(
        "temperature" if "temperature" in others else "generation settings",
        f"The model's folder is sampled with {listed}, by its generation_config.json; training samples at temperature "
        f"{temperature:g}, from all tokens.",
        f"Generate as it is trained: temperature {temperature:g}, top_k 0, top_p 1; or train at the other temperature.",
    )


def demonstrations(
    demos: Any,
    tokenizer: Any,
    eos_token_ids: Sequence[int],
    stop: Sequence[str] = (),
    max_new_tokens: int | None = None,
    positions: int | None = None,
    prompt_field: str = "prompt",
    response_field: str = "response",
) -> Finding:
    """Whether the demonstrations, encoded as `rlhf sft` encodes them, teach replies that end, whole and not empty.

    Args:
        eos_token_ids, stop, max_new_tokens: of the environment; None: replies have no limit.
        positions: tokens that the model has positions for.
    """
    try:
        encode = DemonstrationEncoder(tokenizer)
        examples, overlong = encode(read_pairs(demos, prompt_field, response_field), positions or 1 << 20)
    except PromptError as error:
        return problem("demonstrations", str(error), "Mend the file, or name its fields.")
    replies = [[i for i in example["labels"] if i != IGNORED] for example in examples]
    n = len(replies)
    texts = [tokenizer.decode(reply[:-1] if reply[-1] == encode.eos else reply) for reply in replies]
    ending = eos_token_ids or ([] if encode.eos is None else [encode.eos])
    endless = sum(
        reply[-1] not in ending and not any(end in text for end in stop)
        for reply, text in zip(replies, texts)
    )
    if endless:
        appended = (
            "the tokenizer has no EOS token"
            if encode.eos is None
            else f"the EOS {encode.eos} ends no reply here"
        )
        return problem(
            "demonstrations",
            f"{endless} of {n} do not end in what ends a reply: {appended}.",
            "A model that learns from them never ends: set tokenizer.eos_token or --eos-token-id, and fine-tune again.",
        )
    seen = f"All {n:,} end, their replies have {min(map(len, replies))} to {max(map(len, replies))} tokens"
    faults = _faults(replies, texts, overlong, tokenizer.eos_token, max_new_tokens or 1 << 20)
    if faults:
        return warning(
            "demonstrations",
            f"{seen}; {'; '.join(faults)}.",
            "Mend or leave out those, then fine-tune again.",
        )
    return ok("demonstrations", f"{seen}.")


def _faults(
    replies: Sequence[Sequence[int]], texts: Sequence[str], overlong: int, eos: str | None, limit: int
) -> list[str]:
    """In words, what is wrong with so many demonstrations that it is worth a word."""
    counts = (
        (FEW, sum(not text.strip() for text in texts), "are empty"),
        (
            FEW,
            sum(eos in text for text in texts) if eos else 0,
            f"hold {eos!r} as text, which is learned as text",
        ),
        (FEW, overlong, "are longer than the model's positions and left out"),
        (MANY, cut_off(replies), f"seem cut off, at exactly {max(map(len, replies)) - 1} tokens"),
        (
            MANY,
            sum(len(reply) > limit for reply in replies),
            f"are longer than the {limit} tokens of a reply",
        ),
    )
    total = len(replies) + overlong
    return [f"{count / total:.0%} {what}" for share, count, what in counts if count > share * total]


def cut_off(replies: Sequence[Sequence[int]]) -> int:
    """How many replies have exactly the greatest length, where far more do than have nearly that length; else 0."""
    lengths = Counter(map(len, replies))
    longest = max(lengths)
    near = sum(count for length, count in lengths.items() if longest - 5 <= length < longest)
    return lengths[longest] if len(lengths) > 5 and lengths[longest] > 2 * near else 0
