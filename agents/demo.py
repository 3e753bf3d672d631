"""`rlhf demo`: the whole loop on customer support, from random weights to polite replies in minutes, every stage to be read.

A tiny causal LM is fine-tuned on demonstrations, most of them bad. Then, twice over: it answers customers, raters compare its
answers, a reward model learns from that, and PPO improves the policy against it. Each policy answers the same customers, whom
none has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import AutoConfig

from agents import processes
from agents.callbacks import visible
from agents.commands import set_up
from agents.loop_command import program, stopped
from agents.loop_files import Policy, policies_of
from agents.rlhf import Loop
from agents.runs import clock
from agents.settings import (
    EvaluationSettings,
    FeedbackSettings,
    LoopSettings,
    PPOSettings,
    RewardSettings,
    SampleSettings,
    SFTSettings,
)
from agents.stages import Stopped
from reward_models.files import write_json
from text_envs.tasks import support_reply

SHOWN = 3  # customers whose replies are printed


def settings_of(options: Namespace) -> LoopSettings:
    """The demo's recipe."""
    by_people = options.rater != "simulated"
    comparisons = options.votes or (40 if by_people else 500 if options.quick else 800)
    return LoopSettings(
        env="text_envs/SupportReply-v0",
        # The architecture of the model that comes with the task, with random weights; or, to be quick, that model.
        model=str(support_reply.FOLDER)
        if options.quick
        else AutoConfig.from_pretrained(support_reply.FOLDER).to_diff_dict(),
        demos=None
        if options.quick
        else {"name": "text_envs.tasks.support_reply:demonstrations", "n": 16 * options.sft_steps},
        rounds=1 if options.quick else 2,
        seed=options.seed,
        threads=options.threads,
        device=options.device,
        sft=SFTSettings(max_steps=options.sft_steps, batch_size=16, learning_rate=3e-3, warmup_steps=40),
        samples=SampleSettings(prompts=comparisons),
        feedback=FeedbackSettings(
            rater=options.rater,
            temperature=0.1,
            flip=0.15,
            port=options.port,
        ),
        # Deeper than the policy: two layers do not learn to compare a reply with its message.
        reward=RewardSettings(
            model=str(support_reply.REWARD_START),
            epochs=2,
            batch_size=16,
            learning_rate=1e-4,
            weight_decay=0.05,
            label_smoothing=0.15,
            dropout=0.1,
        ),
        ppo=PPOSettings(
            total_timesteps=options.total_timesteps or (20_000 if options.quick else 36_000),
            learning_rate=2.5e-4,
            batch_size=8,
            n_epochs=2,
            # At half of it PPO finds what the comparisons overlook: replies that break off score high, and the KL runs away.
            kl_coef=0.1,
        ),
        evaluation=EvaluationSettings(prompts=128 if options.quick else 256),
    )


def demo(options: Namespace, config: str) -> int:
    """`rlhf demo`: returns the exit status."""
    set_up(options)
    say = Console()
    folder = Path(options.out or processes.of_first(f"runs/demo-{datetime.now():%Y%m%d-%H%M%S}"))
    run = Loop(settings_of(options), folder, console=say)
    try:
        result = run.run()
    except Stopped:
        return stopped(run, f"{program()} demo --out {folder}, with the other options as before")
    if not processes.is_first():
        return 0
    policies = policies_of(folder)
    show_replies(say, policies)
    say.print(score_table(policies, result["last_reward"], agreements(result["stages"])))
    gold = {policy.name.lower().replace(" ", "_"): _mean(policy, "gold") for policy in policies}
    last = policies[-1]
    write_json(
        folder / "result.json",
        result
        | {
            "command": "demo",
            "gold_score": gold | {"ppo": _mean(last, "gold")},
            "kl": last.result["kl"]["mean"],
            "win_rate": last.result["win_rate"]["sft"]["mean"],
        },
    )
    customer = last.samples[0]["prompt"]
    say.print(f"Time: {clock(result['seconds'])}. The report: {folder / 'report.html'}", highlight=False)
    policy = folder / result["policy"]
    print(f"Ask it yourself: {program()} generate --model {policy} --prompt {bash_quoted(customer)}")
    return 0


def agreements(stages: Mapping[str, Any]) -> dict[str, float]:
    """By evaluation, how often the reward model behind its policy prefers what the gold judge does, on held-out pairs."""
    found = {}
    for name, result in stages.items():
        if name.endswith("/reward") and "agreement_with_gold" in result:
            found[name.replace("/reward", "/evaluate")] = result["agreement_with_gold"]["share"]
    return found


def score_table(
    policies: list[Policy], by_reward: Mapping[str, float], agreement: Mapping[str, float]
) -> Table:
    """The policies side by side: gold score and its components, reward, win rate, KL, length; and their reward models."""
    table = Table(title=f"Mean over {len(policies[0].samples)} held-out customers", title_justify="left")
    table.add_column("")
    for policy in policies:
        table.add_column(policy.name, justify="right")
    rows: list[tuple[str, list[str]]] = [("gold score", [f"{_mean(p, 'gold'):.3f}" for p in policies])]
    for name in policies[0].result["components"]:
        values = [f"{policy.result['components'][name]:.3f}" for policy in policies]
        rows.append((f"  {name.replace('_', ' ')}", values))
    rows += [
        ("last reward model's score", [f"{by_reward[p.stage]:.2f}" if p.stage in by_reward else "" for p in policies]),
        ("win rate against SFT", [_win_rate(policy) for policy in policies]),
        ("KL from SFT, nats per reply", [f"{p.result['kl']['mean']:.1f}" for p in policies]),
        ("tokens per reply", [f"{p.result['length']['mean']:.1f}" for p in policies]),
        ("reward model agrees with gold", [f"{agreement[p.stage]:.0%}" if p.stage in agreement else "" for p in policies]),
    ]  # fmt: skip
    for index, (name, values) in enumerate(rows):
        table.add_row(name, *values, style="bold" if index == 0 else None)
    return table


def show_replies(console: Console, policies: list[Policy]) -> None:
    """The replies of all policies to the same customers."""
    table = Table(
        title="Held-out customers, and the gold score of each reply in brackets",
        title_justify="left",
        show_lines=True,
    )
    for heading in ("customer", *(policy.name for policy in policies)):
        table.add_column(heading, ratio=1)
    for i in range(SHOWN):
        message = policies[0].samples[i]["prompt"].removeprefix("Customer: ").removesuffix("\nReply:")
        replies = [f"{p.samples[i]['response'].strip()}\n[{p.samples[i]['gold']:.2f}]" for p in policies]
        table.add_row(*(Text(visible(cell)) for cell in (message, *replies)))
    console.print(table)


def bash_quoted(text: str) -> str:
    """`text` as bash reads it, its line breaks included."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{escaped}'"


def _mean(policy: Policy, score: str) -> Any:
    return policy.result["scores"][score]["mean"]


def _win_rate(policy: Policy) -> str:
    rate = policy.result["win_rate"].get("sft")
    return f"{rate['mean']:.2f}" if rate else ""
