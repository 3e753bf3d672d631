"""Fine-tune a fresh model on a task, and measure what it answers to prompts that it has not seen, before and after."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agents.generation import complete, policy_for
from agents.loading import load_causal_lm
from agents.sft import finetune
from benchmarks.sft.tasks import Task
from reward_models.lexical import rouge_l
from reward_models.preferences.records import Demonstration
from text_envs.task import TextTask

EOS = "<|end|>"
MODEL = dict(
    model_type="llama", hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
    num_key_value_heads=6, max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=None, bos_token_id=None,
)  # fmt: skip
LEARNING = dict(batch_size=32, learning_rate=2e-3, lr_schedule="cosine", warmup_steps=100, weight_decay=0.05)
PROMPTS = 300  # that are answered
LONGEST = 80  # tokens of an answer
SHOWN = 8


@dataclass(frozen=True)
class Figures:
    """Means over the held-out prompts: ROUGE-L F1 against the best demonstration, coverage, both 0 to 1; words."""

    rouge_l: float
    coverage: float
    words: float


def measure(task: Task, seed: int, steps: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything that is told of one task, as JSON values."""
    started = time.perf_counter()
    train, held_out = task.demonstrations()
    say(f"{task.name}: {len(train):,} demonstrations to learn from, {len(held_out):,} of other prompts")
    more = task.drawn(train, held_out, seed)
    tokenizer = make_tokenizer(train, task.vocabulary)
    torch.manual_seed(seed)
    model = load_causal_lm(
        MODEL | task.model | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id},
        len(tokenizer),
        256,
    )
    references = by_prompt(held_out)
    prompts = chosen(list(references))
    shown = {prompt: references[prompt] for prompt in prompts}
    before = answers(model, tokenizer, prompts)
    tuned = finetune(
        model,
        [*train, *more],
        tokenizer,
        max_steps=steps or task.steps,
        response_prefix=" ",
        eval_demonstrations=[d for d in held_out if d.prompt in shown],
        seed=seed,
        device="cpu",
        **LEARNING | task.learning,
    )
    after = answers(tuned.model, tokenizer, prompts)
    contenders = {
        "before": before,
        "after": after,
        "the prompt itself": dict(zip(prompts, prompts)),
        "answer to the nearest training prompt": nearest(train, prompts),
    }
    figures = {name: figures_of(task, said, shown) for name, said in contenders.items()}
    figures["people"] = figures_of_people(task, shown)
    return {
        "task": task.name,
        "title": task.title,
        "counted": task.counted,
        "demonstrations": len(train),
        "drawn": len(more),
        "prompts": len({d.prompt for d in train}),
        "held_out_prompts": len(prompts),
        "held_out_demonstrations": tuned.held_out,
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "steps": tuned.steps,
        "seed": seed,
        "train_loss": tuned.train_loss,
        "held_out_loss": {"before": tuned.held_out_loss_before, "after": tuned.held_out_loss},
        "figures": {name: asdict(value) for name, value in figures.items()},
        "seconds": {"training": tuned.seconds, "all": time.perf_counter() - started},
        "samples": [
            {"prompt": p, "demonstration": shown[p][0], "before": before[p], "after": after[p]}
            for p in prompts[:: max(1, len(prompts) // SHOWN)][:SHOWN]
        ],
    }


def make_tokenizer(train: Sequence[Demonstration], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the training part."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((f"{d.prompt} {d.response.strip()}" for d in train), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)


def by_prompt(demonstrations: Sequence[Demonstration]) -> dict[str, list[str]]:
    """The responses to each prompt."""
    responses: dict[str, list[str]] = {}
    for demonstration in demonstrations:
        responses.setdefault(demonstration.prompt, []).append(demonstration.response.strip())
    return responses


def chosen(prompts: Sequence[str]) -> list[str]:
    """At most so many as are to be answered, always the same."""
    order = np.random.default_rng(0).permutation(len(prompts))[:PROMPTS]
    return [prompts[i] for i in order]


def answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> dict[str, str]:
    """The likeliest continuation of each prompt, token by token."""
    task = TextTask(
        tokenizer, list(prompts), lambda completions: [0.0] * len(completions), max_new_tokens=LONGEST
    )
    policy = policy_for(task, copy.deepcopy(model))
    completions = complete(policy, task, prompts, deterministic=True)
    return {prompt: c.response.strip() for prompt, c in zip(prompts, completions)}


def nearest(train: Sequence[Demonstration], prompts: Sequence[str]) -> dict[str, str]:
    """What the demonstrations say to the training prompt that shares most words, in proportion: copying, without learning."""
    known = [(frozenset(words(d.prompt)), d.response) for d in {d.prompt: d for d in train}.values()]

    def best(prompt: str) -> str:
        asked = frozenset(words(prompt))
        return max(known, key=lambda entry: len(asked & entry[0]) / len(asked | entry[0]))[1]

    return {prompt: best(prompt) for prompt in prompts}


def words(text: str) -> list[str]:
    return text.lower().replace("[", " ").replace("]", " ").replace(",", " ").split()


def figures_of(task: Task, said: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Figures:
    return Figures(
        rouge_l=mean(max(rouge_l(said[p], reference) for reference in references[p]) for p in references),
        coverage=mean(task.coverage(p, said[p]) for p in references),
        words=mean(len(said[p].split()) for p in references),
    )


def figures_of_people(task: Task, references: Mapping[str, Sequence[str]]) -> Figures:
    """Each demonstration against the others of its prompt, where there are others: what a good answer scores."""
    pairs = [(p, text, [t for t in texts if t != text]) for p, texts in references.items() for text in texts]
    return Figures(
        rouge_l=mean(max(rouge_l(text, other) for other in others) for _, text, others in pairs if others),
        coverage=mean(task.coverage(p, text) for p, text, _ in pairs),
        words=mean(len(text.split()) for _, text, _ in pairs),
    )


def mean(values: Any) -> float:
    return float(np.mean(list(values)))
