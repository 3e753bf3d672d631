"""The update of TRL's PPOTrainer, written out: a value model of its own, logits of all positions.

After ``train`` of trl/experimental/ppo/ppo_trainer.py in TRL 1.12, its statistics included, so that it can be timed by
itself and without an environment of its own.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from benchmarks.throughput.contender import Rounds, watch_dtype
from benchmarks.throughput.setting import PAD, Setting, make_model, make_value_model


def update(setting: Setting, rounds: Rounds, dtype: str) -> None:
    """All epochs on one rollout of random tokens; per response token."""
    torch.manual_seed(0)
    policy = make_model(setting)
    critic = make_value_model(setting)
    watch_dtype(policy, rounds.facts, "dtype")
    optimizer = torch.optim.AdamW(
        [*policy.parameters(), *critic.parameters()], lr=setting.learning_rate, fused=True
    )
    shape = (setting.episodes, setting.response)
    ids = torch.randint(2, setting.vocabulary, (setting.episodes, setting.prompt + setting.response))
    rollout = {
        "ids": ids,
        "log_probs": torch.full(shape, -float(torch.tensor(setting.vocabulary).log())),
        "values": torch.zeros(shape),
        "advantages": torch.randn(shape),
        "returns": torch.randn(shape),
    }
    rounds.units = setting.tokens
    while rounds.next():
        for _ in range(setting.epochs):
            for batch in torch.randperm(setting.episodes).split(setting.minibatch):
                minibatch = {name: tensor[batch] for name, tensor in rollout.items()}
                with torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else nullcontext():
                    logits, values = forward(policy, critic, minibatch["ids"])
                loss = ppo_loss(
                    logits.float(), values.float(), minibatch, setting.prompt
                )  # accelerate gives float32 back
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()


def forward(policy, critic, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [episodes, length, V] and values [episodes, length]."""
    mask = ids != PAD
    inputs = {
        "input_ids": ids, "attention_mask": mask, "position_ids": mask.cumsum(1) - mask.long(),
        "return_dict": True, "output_hidden_states": True,
    }  # fmt: skip
    values = critic.score(critic.base_model(**inputs).hidden_states[-1]).squeeze(-1)
    return policy(**inputs).logits, values


def ppo_loss(logits: Tensor, values: Tensor, batch: dict[str, Tensor], prompt: int) -> Tensor:
    """Clipped surrogate + 0.1 * clipped value loss, with what is computed for the log."""
    logits, values, actions = logits[:, prompt - 1 : -1], values[:, prompt - 1 : -1], batch["ids"][:, prompt:]
    logits = logits / (1.0 + 1e-7)
    chosen = logits.gather(-1, actions[..., None]).squeeze(-1)
    log_probs = chosen - torch.stack(
        [row.logsumexp(-1) for row in logits]
    )  # by row, as its selective_log_softmax
    clipped = torch.clamp(values, batch["values"] - 0.2, batch["values"] + 0.2)
    losses, losses_clipped = (values - batch["returns"]).square(), (clipped - batch["returns"]).square()
    value_loss = 0.5 * torch.max(losses, losses_clipped).mean()
    difference = log_probs - batch["log_probs"]
    ratio = difference.exp()
    surrogate, surrogate_clipped = -batch["advantages"] * ratio, -batch["advantages"] * ratio.clamp(0.8, 1.2)
    policy_loss = torch.max(surrogate, surrogate_clipped).mean()
    with torch.no_grad():
        (surrogate_clipped > surrogate).float().mean(), (losses_clipped > losses).float().mean()
        (
            (logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)).mean(),
            0.5 * difference.square().mean(),
            ratio.mean(),
        )
    return policy_loss + 0.1 * value_loss
