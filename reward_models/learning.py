"""Learns a reward model from comparisons and rankings: a causal language model that scores as people would."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments

from reward_models.classifier import Classifier, Stored
from reward_models.completion import RewardError
from reward_models.encoding import TEMPLATE, CompletionEncoder, longest
from reward_models.learning_watch import Epoch, Watch
from reward_models.preference_data import (
    BucketSampler,
    EncodedGroup,
    RankingLoss,
    collate,
    encode_groups,
    groups_of,
    judges,
)
from reward_models.preference_losses import Contests, centring, contest_losses
from reward_models.preferences.formats import read
from reward_models.preferences.records import Comparison, Ranking
from reward_models.preferences.splits import split
from reward_models.quiet import quiet_transformers
from reward_models.reward_head import (
    EveryToken,
    RewardHead,
    load_classifier,
    load_reward_tokenizer,
    set_pad_token,
    vocabulary_of,
)
from reward_models.sharding_trainer import ShardingTrainer


@dataclass
class TrainedReward:
    """What `train` made.

    Attributes:
        model: a sequence classifier of one label, in eval mode. tokenizer: its tokenizer.
        folder: where both were written; None if nowhere.
        epochs: how it went. losses: nats per group, of each batch.
        groups, responses: rankings and compared pairs learned from, and the texts in them.
        held_out: groups that were not learned from.
        unjudged: records that say nothing, such as skipped comparisons.
        steps, seconds: of training.
        stopped: whether `should_stop` ended it early.
    """

    model: PreTrainedModel
    tokenizer: Any
    folder: Path | None
    epochs: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    groups: int = 0
    responses: int = 0
    held_out: int = 0
    unjudged: int = 0
    steps: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def reward(self, **kwargs: Any) -> Classifier:
        """The model as a reward: what `reward_models.make(folder)` gives."""
        return Classifier(self.model, self.tokenizer, **kwargs)


def train(
    model: Any,
    preferences: Any,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    tokenizer: Any = None,
    held_out: Any = None,
    ranking_loss: RankingLoss = "plackett_luce",
    epochs: float = 3.0,
    batch_size: int = 16,
    learning_rate: float = 1e-4,
    lr_schedule: str = "linear",
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
    centring_coef: float = 0.0,
    token_coef: float = 0.0,
    margin_scale: float = 1.0,
    template: str = TEMPLATE,
    max_length: int | None = None,
    seed: int = 0,
    device: str = "auto",
    should_stop: Callable[[], bool] | None = None,
    progress: TextIO | None = sys.stderr,
    **training_arguments: Any,
) -> TrainedReward:
    """Train a reward model: Bradley-Terry on pairs, Plackett-Luce on rankings, one forward pass for each response.

    The result is an `AutoModelForSequenceClassification` of one label with its tokenizer. Its score is that of the
    text's last token, and the text is what `reward_models.make(folder)` judges: the template is stored in the config. No EOS
    is added, because completions come without it; a template can add it: "{prompt}{response}</s>".

    Args:
        model: folder or hub id of a causal LM (or of a reward model, to go on); a transformers config or its dict (random
            weights); or a module, which is copied.
        preferences: comparisons and rankings; or what `reward_models.preferences.formats.read` takes.
        output_dir: gets a plain Hugging Face folder, model and tokenizer; None: nothing is written.
        tokenizer: tokenizer or its folder; None: the model's folder.
        held_out: preferences to measure on after each epoch; or the share of the prompts to hold out, such as 0.1.
        ranking_loss: "plackett_luce", or "pairs" for Bradley-Terry on all pairs of a ranking (Ouyang et al. 2022, 3.5).
        epochs: passes over the preferences. Small models need several: the first may look useless.
        batch_size: pairs or rankings per step; of several processes (`accelerate launch`) each takes as many of them.
        learning_rate: its peak; 1e-4 (TRL's default).
        lr_schedule: after warm-up: "linear" to 0, "cosine" to 0, or "constant".
        weight_decay: of AdamW, which is fused.
        dropout: of the model while it learns; 0 (as TRL's reward trainer has it).
        label_smoothing: the chance that a choice is a slip; about the share of votes that raters get wrong.
        centring_coef: weight of the term that keeps scores near zero; see `preference_losses.centring`.
        token_coef: weight of the same loss on the mean score of a response's tokens, beside that on its last one; see
            `reward_head.EveryToken`. 1 helps a small model to read response and prompt together.
        margin_scale: units of score that one unit of the records' margins asks for (Touvron et al. 2023, 3.2.2); margins come
            in a data set's own scale. 0 leaves them out.
        template: the text that is judged, by "{prompt}" and "{response}", or "chat".
        max_length: tokens; a longer text loses its beginning. None: what the tokenizer and the model allow.
        seed: of the order, dropout, and random weights. Sets the global generators, as Trainer does.
        device: "auto" uses a GPU where there is one; "cpu" never.
        should_stop: asked after each step; True ends training there, and what was learned is kept.
        progress: gets a line every few seconds; None: silence.
        training_arguments: more of transformers' `TrainingArguments`: bf16, gradient_accumulation_steps, max_steps, ...

    Raises:
        RecordError: records that are no preferences. RewardError: a model or tokenizer that cannot serve. ValueError: nothing
        to learn from; arguments that do not fit.
    """
    if lr_schedule not in ("linear", "cosine", "constant"):
        raise ValueError(f"lr_schedule={lr_schedule!r} is not known. Use linear, cosine or constant.")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing={label_smoothing} must be at least 0 and below 0.5.")
    torch.manual_seed(seed)
    records, held_out_records = _records(preferences, held_out, seed)
    tokenizer = load_reward_tokenizer(tokenizer, model)
    with quiet_transformers():
        classifier = load_classifier(model)
    _check_vocabulary(classifier, tokenizer)
    limit = max_length or longest(classifier, tokenizer)
    encode = CompletionEncoder(tokenizer, template, limit)
    examples = encode_groups(groups_of(records, ranking_loss, margin_scale), encode)
    if not examples:
        raise ValueError(f"None of the {len(records)} preferences says which response is better.")
    held_out_examples = encode_groups(groups_of(held_out_records, "pairs", 0.0), encode)
    set_pad_token(classifier, tokenizer, [row for example in examples for row in example.rows])
    Stored(template, limit).put_into(classifier.config)
    set_dropout(classifier, dropout)
    head = RewardHead(classifier)
    watch = Watch(head, held_out_examples, batch_size, should_stop or (lambda: False), progress)
    with tempfile.TemporaryDirectory() as scratch:
        arguments: dict[str, Any] = dict(
            output_dir=scratch, num_train_epochs=epochs, per_device_train_batch_size=batch_size, learning_rate=learning_rate,
            lr_scheduler_type="constant_with_warmup" if lr_schedule == "constant" else lr_schedule, warmup_steps=warmup_steps,
            weight_decay=weight_decay, optim="adamw_torch_fused", remove_unused_columns=False, dataloader_pin_memory=False,
            use_cpu=device == "cpu", seed=seed, save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        settings = TrainingArguments(**(arguments | training_arguments))
        is_first = settings.process_index == 0
        settings.per_device_train_batch_size = _share(
            settings.per_device_train_batch_size, settings.world_size
        )
        watch.file = progress if is_first else None
        trainer = _RewardTrainer(
            EveryToken(head) if token_coef else head,
            settings,
            examples,
            watch,
            label_smoothing,
            centring_coef,
            token_coef,
        )
        started = time.perf_counter()
        trainer.train()
    classifier = trainer.model.classifier
    set_dropout(classifier, 0.0)
    classifier.eval()
    result = TrainedReward(
        model=classifier,
        tokenizer=tokenizer,
        folder=None if output_dir is None else Path(output_dir),
        epochs=watch.epochs,
        losses=torch.stack(watch.losses).tolist() if watch.losses else [],
        groups=len(examples),
        responses=sum(len(example.rows) for example in examples),
        held_out=len(held_out_examples),
        unjudged=sum(not judges(record) for record in records),
        steps=trainer.state.global_step,
        seconds=time.perf_counter() - started,
        stopped=watch.stopped,
    )
    if result.folder is not None and is_first:
        with quiet_transformers():
            classifier.save_pretrained(result.folder)
            tokenizer.save_pretrained(result.folder)
    return result


def _records(preferences: Any, held_out: Any, seed: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """The records to learn from, and those to measure on."""
    records = read_preferences(preferences)
    if held_out is None:
        return records, []
    if isinstance(held_out, float | int):
        return split(records, held_out, seed)
    return records, read_preferences(held_out)


def read_preferences(preferences: Any) -> Sequence[Any]:
    """Records as they are; anything else as `formats.read` reads it.

    Raises:
        RecordError: rows that are no preferences, with their file and line.
    """
    if isinstance(preferences, Sequence) and all(isinstance(r, Comparison | Ranking) for r in preferences):
        return preferences
    return read(preferences).records


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set every dropout of a transformers model, those that it keeps as numbers included."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


def _share(batch_size: int, n_processes: int) -> int:
    if batch_size % n_processes:
        raise ValueError(
            f"batch_size is {batch_size}: in train, in {n_processes} processes. Each takes as many as the others: make it a "
            f"multiple of {n_processes}."
        )
    return batch_size // n_processes


def _check_vocabulary(classifier: PreTrainedModel, tokenizer: Any) -> None:
    known = vocabulary_of(classifier)
    needed = max(tokenizer.get_vocab().values()) + 1
    if known < needed:
        raise RewardError(
            f"The model knows {known} tokens, its tokenizer has {needed}: they do not belong together. Give the model's own "
            "tokenizer, or resize the model with resize_token_embeddings."
        )


class _RewardTrainer(ShardingTrainer):
    """`ShardingTrainer` with the loss of `preference_losses`, and batches of like lengths."""

    def __init__(
        self,
        head: RewardHead | EveryToken,
        arguments: TrainingArguments,
        examples: list[EncodedGroup],
        watch: Watch,
        label_smoothing: float,
        centring_coef: float,
        token_coef: float,
    ) -> None:
        super().__init__(
            model=head,
            args=arguments,
            train_dataset=examples,  # type: ignore[arg-type]
            data_collator=collate,  # type: ignore[arg-type]
            callbacks=[watch],
        )
        self.remove_callback(PrinterCallback)
        self.examples, self.watch = examples, watch
        self.label_smoothing, self.centring_coef, self.token_coef = label_smoothing, centring_coef, token_coef

    def _get_train_sampler(self, *_: Any) -> BucketSampler:
        lengths = [example.length for example in self.examples]
        return BucketSampler(lengths, self.args.train_batch_size * self.args.world_size, self.args.seed)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:  # type: ignore[override]
        group, n_groups = inputs.pop("group"), inputs.pop("n_groups")
        rows = [inputs.pop(name) for name in ("input_ids", "lengths", "starts")]
        contests = Contests(**inputs)
        if self.token_coef:
            scores, means = model(*rows)
            loss = self.token_coef * contest_losses(means, contests, self.label_smoothing).sum() / n_groups
        else:
            scores, loss = model(*rows[:2]), 0.0
        loss = loss + contest_losses(scores, contests, self.label_smoothing).sum() / n_groups
        if self.centring_coef:
            loss = loss + self.centring_coef * centring(scores, group, n_groups)
        self.watch.losses.append(loss.detach())
        return loss
