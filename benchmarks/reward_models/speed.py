"""Training on pairs against TRL's RewardTrainer: the same model, texts, batch and precision, in turns."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reward_models.learning import train
from reward_models.preferences import Comparison

PAIRS, BATCH, MAX_LENGTH, LEARNING_RATE = 320, 16, 256, 1e-4


@dataclass
class Speed:
    """Seconds of one pass over the pairs, in each round.

    Attributes:
        steps: optimiser steps of a pass, the same for both.
    """

    pairs: int
    steps: int
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """How many times faster we are: the median over the rounds."""
        return median(theirs / ours for ours, theirs in zip(self.ours, self.theirs))

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs)]


def measure(comparisons: Sequence[Comparison], data: Path, rounds: int, seed: int) -> Speed:
    """One pass over the pairs with stories260K by each trainer, round after round. fp32, AdamW, dropout 0; TRL logs nothing.

    Making datasets, tokenizing and loading is left out on both sides: only `Trainer.train` is timed. TRL leaves out longer
    pairs, so that only shorter ones are given. It appends EOS to each text: its rows are one token longer.
    """
    folder = str(data / "models" / "stories260K")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fitting = [
        pair for pair in comparisons if pair.chosen is not None and _longest(pair, tokenizer) < MAX_LENGTH
    ]
    pairs = fitting[:PAIRS]
    ours, theirs, steps = [], [], set()
    for _ in range(rounds):
        seconds, n = _trl(pairs, folder, seed)
        theirs.append(seconds)
        steps.add(n)
        made = train(
            folder, pairs, epochs=1, batch_size=BATCH, learning_rate=LEARNING_RATE, max_length=MAX_LENGTH, seed=seed,
            margin_scale=0.0, device="cpu", progress=None,
        )  # fmt: skip
        ours.append(made.seconds)
        steps.add(made.steps)
    if len(steps) != 1:
        raise RuntimeError(f"The trainers took {sorted(steps)} steps: the comparison would not be fair.")
    return Speed(len(pairs), steps.pop(), ours, theirs)


def _longest(pair: Comparison, tokenizer: Any) -> int:
    """Tokens of the longer of the two texts."""
    return max(len(tokenizer(pair.prompt + text)["input_ids"]) for text in pair.responses)


def _trl(pairs: Sequence[Comparison], folder: str, seed: int) -> tuple[float, int]:
    """Seconds and steps of TRL's trainer."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    rows = [{"chosen": p.prompt + (p.chosen or ""), "rejected": p.prompt + (p.rejected or "")} for p in pairs]
    with tempfile.TemporaryDirectory() as scratch:
        settings: dict[str, Any] = dict(
            output_dir=scratch, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=LEARNING_RATE,
            max_length=MAX_LENGTH, bf16=False, gradient_checkpointing=False, use_cpu=True, seed=seed, report_to=[],
            logging_strategy="no", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(**settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started, trainer.state.global_step
