"""`rlhf demo`: from random weights to polite support replies in minutes, with every stage to be read.

A tiny causal LM is fine-tuned on demonstrations of mixed quality, then trained by PPO against a judge; both are compared on
customers that neither has seen.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.utils import LinearSchedule
from transformers import AutoConfig

from agents.callbacks import SampleTable, stop_on_signals, visible
from agents.commands import exit_status, set_up, summary, train
from agents.generation import complete, log_likelihoods
from agents.ppo import TextPPO
from agents.runs import Progress, RunFolder, clock
from agents.sft import FineTuned, finetune
from reward_models import Completion
from text_envs.tasks import support_reply

# The recipe. Each demonstration is seen once; minibatches of 8 replies, twice over, keep the KL low.
SFT: dict[str, Any] = dict(max_steps=1400, batch_size=16, learning_rate=3e-3, warmup_steps=40)
DEMONSTRATIONS = 22_400
PPO: dict[str, Any] = dict(n_episodes=64, batch_size=8, n_epochs=2)
LEARNING_RATE = 2.5e-4
TOTAL_TIMESTEPS = 150_000
HELD_OUT = 256  # customers on which SFT and PPO are compared
SHOWN = 6


@dataclass
class Evaluation:
    """How a policy answers the held-out customers: scores have shape [customers]; components are means, 0 to 1."""

    completions: list[Completion]
    scores: np.ndarray
    components: dict[str, float]


def demo(options: Namespace, config: str) -> int:
    """`rlhf demo`: returns the exit status."""
    set_up(options)
    started = time.perf_counter()
    run = RunFolder(options.out or f"runs/demo-{datetime.now():%Y%m%d-%H%M%S}", options.overwrite)
    run.start(config)
    say = Console()

    say.print(
        f"[bold]1/4[/] Fine-tune a model with random weights on {DEMONSTRATIONS:,} replies, most of them bad"
    )
    with stop_on_signals() as stopped:
        tuned = fine_tune(run, options, should_stop=lambda: bool(stopped))
    if stopped:
        return exit_status(stopped, f"the model as it was after {tuned.steps} steps is in {tuned.folder}.")

    say.print(f"[bold]2/4[/] Let it answer {HELD_OUT} customers it has not seen")
    model = make_ppo(str(tuned.folder), options)
    customers = held_out_customers()
    before = evaluate(model, customers, options.seed)

    total = options.total_timesteps or TOTAL_TIMESTEPS
    say.print(f"[bold]3/4[/] Train it by PPO against the judge, {total:,} tokens")
    model.set_logger(run.logger(Progress(total)))
    samples = SampleTable(every=20, n=2, path=run.samples, console=say)
    stopped, _ = train(model, total, [samples], run.last_checkpoint)
    model.save_pretrained(run.policy)
    if stopped:
        return exit_status(
            stopped, f"what was learned is in {run.last_checkpoint}: TextPPO.load goes on from it."
        )

    say.print("[bold]4/4[/] Let it answer the same customers again")
    after = evaluate(model, customers, options.seed)
    kl, seconds = kl_from_reference(model, after.completions), time.perf_counter() - started
    run.write_result(
        {
            "command": "demo",
            "gold_score": {"sft": before.scores.mean(), "ppo": after.scores.mean()},
            "components": {"sft": before.components, "ppo": after.components},
            "kl": kl,
            "seconds": seconds,
            "sft": {"steps": tuned.steps, "seconds": tuned.seconds, "held_out_loss": tuned.held_out_loss},
            "ppo": summary(run.metrics),
            "seed": options.seed,
        }
    )
    show(say, before, after)
    print(
        f"KL from the fine-tuned model: {kl:.1f} nats per reply. Time: {clock(seconds)}. Run folder: {run.path}"
    )
    print(
        f"Ask it yourself: rlhf generate --model {run.policy} --prompt {bash_quoted(customers[0]['prompt'])}"
    )
    return 0


def fine_tune(run: RunFolder, options: Namespace, should_stop: Callable[[], bool]) -> FineTuned:
    """The shipped model's architecture with random weights, fine-tuned on demonstrations of mixed quality."""
    settings = SFT | ({"max_steps": options.sft_steps} if options.sft_steps else {})
    return finetune(
        AutoConfig.from_pretrained(support_reply.FOLDER),
        support_reply.demonstrations("train", DEMONSTRATIONS, seed=options.seed),
        support_reply.FOLDER,
        run.path / "sft",
        **settings,
        eval_demonstrations=support_reply.demonstrations("held_out", HELD_OUT),
        seed=options.seed,
        device=options.device,
        should_stop=should_stop,
    )


def make_ppo(folder: str, options: Namespace) -> TextPPO:
    """PPO on the support task, from the fine-tuned model."""
    return TextPPO(
        "CausalLMPolicy",
        gym.make("text_envs/SupportReply-v0"),
        learning_rate=LinearSchedule(LEARNING_RATE, 0.0, 1.0),
        policy_kwargs={"model": folder},
        seed=options.seed,
        device=options.device,
        **PPO,
    )


def held_out_customers() -> list[dict[str, Any]]:
    """The same customers for every seed, of all products and problems, none of them in the training prompts' pairs."""
    rows = support_reply.prompts("held_out")
    chosen = np.random.default_rng(0).permutation(len(rows))[:HELD_OUT]
    return [rows[i] for i in chosen]


def evaluate(model: TextPPO, customers: Sequence[Mapping[str, Any]], seed: int) -> Evaluation:
    """One sampled reply to each customer, judged."""
    assert model.env is not None
    torch.manual_seed(seed)
    completions = complete(model.policy, model.env.get_attr("task")[0], customers)
    components = [support_reply.judge.components(completion) for completion in completions]
    return Evaluation(
        completions=completions,
        scores=np.array(support_reply.judge(completions)),
        components={name: float(np.mean([c[name] for c in components])) for name in components[0]},
    )


def kl_from_reference(model: TextPPO, completions: Sequence[Completion]) -> float:
    """KL(policy || reference) in nats per reply, estimated from the policy's own samples (k1)."""
    difference = log_likelihoods(model.policy.lm, completions) - log_likelihoods(model.reference, completions)
    return float(difference.mean())


def bash_quoted(text: str) -> str:
    """`text` as bash reads it, its line breaks included."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{escaped}'"


def show(console: Console, before: Evaluation, after: Evaluation) -> None:
    """Replies side by side, then the mean scores by component."""
    replies = Table(title="Held-out customers", title_justify="left", show_lines=True)
    for heading in ("customer", "after fine-tuning", "after PPO"):
        replies.add_column(heading, ratio=1)
    for old, new, low, high in list(zip(before.completions, after.completions, before.scores, after.scores))[
        :SHOWN
    ]:
        message = old.prompt.removeprefix("Customer: ").removesuffix("\nReply:")
        cells = (message, f"{old.response.strip()}\n[{low:.2f}]", f"{new.response.strip()}\n[{high:.2f}]")
        replies.add_row(*(Text(visible(cell)) for cell in cells))
    console.print(replies)

    scores = Table(title=f"Mean over {len(before.scores)} held-out customers", title_justify="left")
    for heading in ("", "after fine-tuning", "after PPO"):
        scores.add_column(heading, justify="left" if not heading else "right")
    scores.add_row(
        "gold score",
        f"{before.scores.mean():.3f}",
        f"{after.scores.mean():.3f}",
        style="bold",
        end_section=True,
    )
    for name, value in before.components.items():
        scores.add_row(name.replace("_", " "), f"{value:.3f}", f"{after.components[name]:.3f}")
    console.print(scores)
