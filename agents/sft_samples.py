"""What a model answers before and after fine-tuning, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from transformers import GenerationConfig, PreTrainedModel

from agents.callbacks import visible
from agents.demonstrations import DemonstrationEncoder, Pair
from text_envs.tokenizer import decode


@dataclass(frozen=True)
class Sample:
    """What the model answered to a prompt before and after fine-tuning, and what the demonstration says."""

    prompt: str
    demonstration: str
    before: str
    after: str


@dataclass(frozen=True)
class Answers:
    """A model's answers to the prompts of some demonstrations; torch's generators are as before afterwards.

    Args:
        limit: of prompt and answer in tokens; an answer also has at most twice those of the longest demonstration.
        temperature: of sampling; 0 takes the likeliest token each time.
    """

    tokenizer: Any
    encode: DemonstrationEncoder
    pairs: Sequence[Pair]
    limit: int
    temperature: float
    seed: int

    def __call__(self, model: PreTrainedModel) -> list[str]:
        if not self.pairs:
            return []
        longest = max(map(len, self.encode.responses(self.pairs)))
        was_training = model.training
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self.seed)
            model.eval()
            ids = [self._answer(model, prompt, 2 * longest) for prompt in self.encode.prompts(self.pairs)]
            model.train(was_training)
        return decode(self.tokenizer, ids)

    def _answer(self, model: PreTrainedModel, prompt: list[int], most: int) -> list[int]:
        ends = list(self.encode.eos_token_ids)
        sampling: dict[str, Any] = dict(do_sample=False)
        if self.temperature:
            sampling = dict(do_sample=True, temperature=self.temperature, top_k=0, top_p=1.0)
        config = GenerationConfig(
            max_new_tokens=max(1, min(most, self.limit - len(prompt))),
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            **sampling,
        )
        ids = torch.tensor([prompt], device=model.device)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)  # type: ignore[operator]
        return out[0, len(prompt) :].tolist()


def spread(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """`n` pairs of different prompts, evenly spread over all."""
    different = list({pair.prompt: pair for pair in reversed(pairs)}.values())[::-1]
    n = min(n, len(different))
    return [different[i * len(different) // n] for i in range(n)]


def table_of(samples: Sequence[Sample], title: str = "", longest: int = 240) -> Table:
    """Samples as a table for `rich.console.Console.print`; texts are cut after `longest` characters."""
    table = Table(title=title, title_justify="left", show_lines=True)
    for heading, ratio in (("prompt", 3), ("demonstration", 4), ("before", 4), ("after", 4)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    for sample in samples:
        texts = (sample.prompt, sample.demonstration, sample.before, sample.after)
        table.add_row(*(Text(visible(shortened(text.strip(), longest))) for text in texts))
    return table


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]} ..."
