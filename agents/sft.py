"""Stage one of RLHF: supervised fine-tuning on demonstrations, pairs of a prompt and the response to imitate."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers import PreTrainedModel, TrainingArguments

from agents import processes
from agents.demonstrations import IGNORED, DemonstrationEncoder, Example, Pair, collate, read_pairs
from agents.loading import load_causal_lm
from agents.lora import merged, put_adapter, train_adapter_only
from agents.lora_files import hash_of_base
from agents.response_losses import is_output_of_hidden, response_losses
from agents.sft_samples import Answers, Sample, spread
from agents.sft_trainer import Progress, ResumableTrainer
from reward_models.gelu import use_quick_gelu
from reward_models.preferences.splits import split
from reward_models.quiet import quiet_transformers
from text_envs.tokenizer import load_tokenizer


@dataclass
class FineTuned:
    """What `finetune` made.

    Attributes:
        model: the fine-tuned module, in eval mode. Under FSDP2 it is whole, and another one than was given.
        tokenizer: its tokenizer.
        folder: where both were written; None if nowhere.
        train_loss: nats per response token, mean over the last tenth of the steps. losses: that of each step.
        held_out_loss, held_out_loss_before: nats per response token on the demonstrations that were held out, after and
            before; None without them.
        steps, seconds: of training; those before an interruption included.
        examples: demonstrations learned from. overlong: those left out because they exceed `max_length`.
        held_out: demonstrations held out.
        stopped: whether `should_stop` ended it early.
        samples: see `finetune`.
    """

    model: PreTrainedModel
    tokenizer: Any
    folder: Path | None
    train_loss: float
    held_out_loss: float | None
    steps: int
    seconds: float
    examples: int
    overlong: int
    stopped: bool
    held_out_loss_before: float | None = None
    held_out: int = 0
    samples: list[Sample] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def finetune(
    model: Any,
    demonstrations: Any,
    tokenizer: Any = None,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    epochs: float = 3.0,
    max_steps: int | None = None,
    batch_size: int = 16,
    learning_rate: float = 5e-5,
    lr_schedule: str = "linear",
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    max_length: int | None = None,
    lora: Mapping[str, Any] | None = None,
    prompt_field: str = "prompt",
    response_field: str = "response",
    response_prefix: str = "",
    eos_token_id: int | Sequence[int] | None = None,
    eval_demonstrations: Any = None,
    held_out: float = 0.0,
    samples: int = 0,
    sample_temperature: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    resume: bool = False,
    on_start: Callable[[], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    progress: TextIO | None = sys.stderr,
) -> FineTuned:
    """Fine-tune a causal LM on demonstrations: the loss stands on the response and its EOS, never on the prompt.

    A prompt is encoded as the environments encode it, a response without special tokens, and the EOS that ends
    episodes is appended, so that the model learns to end. Trains with `transformers.Trainer`.

    Args:
        model: folder or hub id of a causal LM, a transformers config or its dict (random weights), or a module.
        demonstrations: list of dicts, path to a `.jsonl[.gz]`, or `datasets.Dataset`: prompt and response, TRL's prompt and
            completion, an export of the feedback store (`agents.demonstrations.read_pairs`).
        tokenizer: tokenizer or its folder; None: the model's folder.
        output_dir: gets a plain Hugging Face folder, model and tokenizer; None: nothing is written.
        epochs: passes over the demonstrations; 3 (transformers' default; Ouyang et al. 2022 use 16).
        max_steps: optimiser steps instead of epochs.
        batch_size: demonstrations per step; of several processes each takes as many of them.
        learning_rate: its peak; 5e-5 (transformers' default); small models bear 1e-3.
        lr_schedule: after warm-up: "linear" to 0, "cosine" to 0, or "constant".
        max_length: longest prompt plus response in tokens; longer ones are left out, and said. None: what the
            model's positions allow.
        lora: arguments of ``peft.LoraConfig``: an adapter learns instead of all weights, and is merged into them at the end.
        prompt_field, response_field: of rows that name them otherwise.
        response_prefix: put before responses that do not begin with white space, such as " ".
        eos_token_id: as the environments' argument; the tokenizer's own EOS is preferred where several end.
        eval_demonstrations: held out, in the same format.
        held_out: without `eval_demonstrations`, this share of the demonstrations, split by prompt, is not learned from;
            nothing, where there is but one prompt.
        samples: so many prompts, held-out ones where there are, are answered before and after.
        sample_temperature: of these answers; 0 takes the likeliest token each time.
        seed: of the order, dropout, samples, and random weights. Sets the global generators, as Trainer does.
        device: "auto" uses a GPU where there is one; "cpu" never.
        checkpoint: the path of a zip that is written every `checkpoint_every` steps, and when `should_stop` ends training.
        resume: go on from `checkpoint`, if it is there. On a CPU the result has the same bits as without the interruption.
        on_start: called once everything is read and checked, before the first step.
        should_stop: asked after each step; True ends training there, and what was learned is kept.
        progress: gets a line every few seconds; None: silence.

    Raises:
        PromptError: a row that is no demonstration, with its file and line.
        CheckpointError: a checkpoint that is damaged, or another training's.
        ValueError: no demonstration is short enough; arguments that do not fit; a loss that is no number in the end.
    """
    if lr_schedule not in ("linear", "cosine", "constant"):
        raise ValueError(f"lr_schedule={lr_schedule!r} is not known. Use linear, cosine or constant.")
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(tokenizer if tokenizer is not None else _own_tokenizer(model))
    encode = DemonstrationEncoder(tokenizer, eos_token_id, response_prefix)
    with quiet_transformers():
        lm = load_causal_lm(model, encode.vocab_size, max_length or 512)
    _check_vocabulary(lm, encode.vocab_size)
    use_quick_gelu(lm)
    if lora is not None:
        put_adapter(lm, lora)
        train_adapter_only(lm)
    limit = _length_limit(lm, max_length)
    pairs, kept_back = read_pairs(demonstrations, prompt_field, response_field), list[Pair]()
    if eval_demonstrations is not None:
        kept_back = read_pairs(eval_demonstrations, prompt_field, response_field)
    elif held_out and len({pair.prompt for pair in pairs}) > 1:
        pairs, kept_back = split(pairs, held_out, seed)
    examples, overlong = encode(pairs, limit)
    held_out_examples = encode(kept_back, limit)[0] if kept_back else []
    settings = dict(
        demonstrations=_fingerprint(examples), epochs=epochs, max_steps=max_steps, batch_size=batch_size,
        learning_rate=learning_rate, lr_schedule=lr_schedule, warmup_steps=warmup_steps, weight_decay=weight_decay, seed=seed,
        lora=None if lora is None else dict(lora) | {"base": hash_of_base(lm)},
    )  # fmt: skip
    watch = Progress(
        should_stop or (lambda: False), progress, None if checkpoint is None else checkpoint_every
    )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=epochs,
            max_steps=max_steps or -1,
            per_device_train_batch_size=processes.share(batch_size, "batch_size", "finetune"),
            learning_rate=learning_rate,
            lr_scheduler_type="constant_with_warmup" if lr_schedule == "constant" else lr_schedule,
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=device == "cpu",
            seed=seed,
            save_strategy="no",
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to=[],
            disable_tqdm=True,
        )
        trainer = ResumableTrainer(
            lm, arguments, examples, watch, settings, None if checkpoint is None else Path(checkpoint)
        )
        if on_start is not None:
            on_start()
        shown = spread(kept_back or pairs, samples) if processes.is_first() else []
        answer = Answers(tokenizer, encode, shown, limit, sample_temperature, seed)
        before = answer(lm)
        loss_before = response_loss(lm, held_out_examples, batch_size) if held_out_examples else None
        use_cache = lm.config.use_cache
        if resume and checkpoint is not None and Path(checkpoint).is_file():
            trainer.resume(checkpoint)
        else:
            trainer.train()
    lm = trainer.model
    lm.config.use_cache = use_cache  # Trainer switches it off, and save_pretrained would keep it so
    lm = merged(lm).requires_grad_(True).eval()
    _set_eos(lm, encode.eos_token_ids)
    last_losses = watch.losses[-max(1, len(watch.losses) // 10) :]
    train_loss = sum(last_losses) / max(len(last_losses), 1)
    if not (math.isfinite(train_loss) and all(weight.isfinite().all() for weight in lm.parameters())):
        raise ValueError(
            f"The loss is {train_loss} after {trainer.state.global_step} steps, and the weights with it are of no use: in "
            "fine-tuning. No model was saved. Lower learning_rate, or give more warmup_steps, and begin anew."
        )
    result = FineTuned(
        model=lm,
        tokenizer=tokenizer,
        folder=None if output_dir is None else Path(output_dir),
        train_loss=train_loss,
        held_out_loss=response_loss(lm, held_out_examples, batch_size) if held_out_examples else None,
        steps=trainer.state.global_step,
        seconds=watch.elapsed(),
        examples=len(examples),
        overlong=overlong,
        stopped=watch.stopped,
        held_out_loss_before=loss_before,
        held_out=len(held_out_examples),
        samples=[
            Sample(pair.prompt, pair.response, *texts) for pair, *texts in zip(shown, before, answer(lm))
        ],
        losses=watch.losses,
    )
    if result.folder is not None and processes.is_first():
        with quiet_transformers():
            lm.save_pretrained(result.folder)
            tokenizer.save_pretrained(result.folder)
    processes.wait()
    return result


@torch.no_grad()
def response_loss(
    model: PreTrainedModel, examples: Sequence[Mapping[str, list[int]]], batch_size: int
) -> float:
    """Mean negative log-likelihood of the response tokens, in nats; every token counts the same. Dropout is off."""
    was_training = model.training
    model.eval()
    total, count, by_tokens = 0.0, 0, is_output_of_hidden(model)
    ordered = sorted(examples, key=lambda example: len(example["input_ids"]))
    for start in range(0, len(ordered), batch_size):
        batch = {
            key: tensor.to(model.device)
            for key, tensor in collate(ordered[start : start + batch_size]).items()
        }
        n_tokens = int((batch["labels"][:, 1:] != IGNORED).sum())
        if by_tokens:
            total += float(response_losses(model, batch["input_ids"], batch["labels"]).sum())
        else:
            total += float(model(**batch).loss) * n_tokens
        count += n_tokens
    model.train(was_training)
    return total / count


def _fingerprint(examples: Sequence[Example]) -> str:
    return hashlib.sha256(json.dumps(examples).encode()).hexdigest()


def _own_tokenizer(model: Any) -> str:
    folder = model if isinstance(model, (str, os.PathLike)) else getattr(model, "name_or_path", None)
    if not folder:
        raise ValueError(
            "tokenizer is not given, and the model is no folder that could hold one. Give tokenizer."
        )
    return os.fspath(folder)


def _check_vocabulary(model: PreTrainedModel, vocab_size: int) -> None:
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    known = weight.shape[0]
    if known < vocab_size:
        raise ValueError(
            f"The model knows {known} tokens, its tokenizer has {vocab_size}: they do not belong together. "
            "Give the model's own tokenizer, or resize the model with resize_token_embeddings."
        )


def _length_limit(model: PreTrainedModel, max_length: int | None) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    if max_length is not None and max_length > positions:
        raise ValueError(f"max_length={max_length} exceeds the model's {positions} positions. Lower it.")
    return int(min(max_length or positions, positions, 1 << 20))


def _set_eos(model: PreTrainedModel, eos_token_ids: Sequence[int]) -> None:
    """Let `generate`, and environments on the saved folder, end where the demonstrations ended."""
    if model.generation_config is not None and eos_token_ids:
        single = len(eos_token_ids) == 1
        model.generation_config.eos_token_id = eos_token_ids[0] if single else list(eos_token_ids)
