"""What RL4LMs does in one iteration of PPO, written out (github.com/allenai/RL4LMs, of 2023, runs with nothing of today).

After its ``alg_wrappers.py`` (rollout), ``causal_policy.py`` (forward passes) and ``ppo.py`` (update): three trunks, for
policy, values and reference; ``generate``, then once more through all three, a token at a time with caches; and an update in
which each token is a sample that encodes its prompt and response again, at full width and through policy and value model.
"""

import copy
import time

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from transformers import PreTrainedModel

from benchmarks.throughput.contender import Rounds, watch_dtype
from benchmarks.throughput.setting import PAD, Setting, make_model, make_prompts, make_tokenizer


class RL4LMs:
    """Policy, value model, reference, and the rollout's samples.

    Shapes: n episodes of R tokens; states are left-padded to the full width W, prompt + R.
    """

    def __init__(self, setting: Setting):
        self.setting = setting
        self.policy = make_model(setting)
        self.value, self.reference = (
            copy.deepcopy(self.policy),
            copy.deepcopy(self.policy).requires_grad_(False),
        )
        self.value_head = nn.Linear(setting.hidden, 1, bias=False)
        self.trained = nn.ModuleList([self.policy, self.value, self.value_head])
        self.optimizer = torch.optim.AdamW(self.trained.parameters(), lr=1e-6, weight_decay=1e-6)

    def forward(self, model: PreTrainedModel, ids: Tensor, mask: Tensor, cache=None):
        """All logits and hidden states, as it asks for; with a cache, of the last token alone."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        if cache is not None:
            ids, positions = ids[:, -1:], positions[:, -1:]
        return model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            output_hidden_states=True,
        )  # fmt: skip

    @torch.no_grad()
    def rollout(self, prompts: Tensor) -> None:
        """``generate`` from ``prompts`` [n, P]; then states [n, R, W], log-probabilities, values and KL rewards [n, R]."""
        n, length, width = len(prompts), self.setting.response, self.setting.prompt + self.setting.response
        sequences = self.policy.generate(
            input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, top_p=1.0,
            max_new_tokens=length, eos_token_id=None, pad_token_id=PAD,
        )  # fmt: skip
        self.actions = sequences[:, self.setting.prompt :]
        self.states = torch.full((n, length, width), PAD)
        for step in range(length):
            known = self.setting.prompt + step
            self.states[:, step, width - known :] = sequences[:, :known]
        self.masks = torch.arange(width) >= width - self.setting.prompt - torch.arange(length)[:, None]
        caches = dict.fromkeys(("policy", "value", "reference"))
        log_probs, values, ref_log_probs = [], [], []
        mask = self.masks[0].expand(n, -1).long()
        for step in range(length):
            out = {
                name: self.forward(getattr(self, name), self.states[:, step], mask, cache)
                for name, cache in caches.items()
            }
            caches = {name: output.past_key_values for name, output in out.items()}
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            for name, found in (("policy", log_probs), ("reference", ref_log_probs)):
                found.append(Categorical(logits=out[name].logits[:, -1]).log_prob(self.actions[:, step]))
            values.append(self.value_head(out["value"].hidden_states[-1][:, -1]).squeeze(-1))
        self.log_probs, self.values = torch.stack(log_probs, 1), torch.stack(values, 1)
        self.rewards = -0.1 * (self.log_probs - torch.stack(ref_log_probs, 1))
        self.rewards[:, -1] += self.actions[:, 0] % 10 / 10

    def compute_advantages(self, gamma: float = 0.99, gae_lambda: float = 0.95) -> None:
        self.advantages, running = torch.zeros_like(self.values), torch.zeros(len(self.values))
        for step in reversed(range(self.setting.response)):
            following = self.values[:, step + 1] if step + 1 < self.setting.response else 0.0
            error = self.rewards[:, step] + gamma * following - self.values[:, step]
            self.advantages[:, step] = running = error + gamma * gae_lambda * running

    def epoch(self, batch_size: int) -> None:
        """One pass over all tokens, in minibatches of ``batch_size`` tokens, each with all that came before it."""
        states, masks = self.states.flatten(0, 1), self.masks.repeat(len(self.states), 1).long()
        actions, old_log_probs, advantages, values = (
            tensor.flatten() for tensor in (self.actions, self.log_probs, self.advantages, self.values)
        )
        returns = advantages + values
        for batch in torch.randperm(len(states)).split(batch_size):
            policy, value = (
                self.forward(model, states[batch], masks[batch]) for model in (self.policy, self.value)
            )
            distribution = Categorical(logits=policy.logits[:, -1])
            ratio = (distribution.log_prob(actions[batch]) - old_log_probs[batch]).exp()
            advantage = advantages[batch]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            policy_loss = -torch.min(advantage * ratio, advantage * ratio.clamp(0.8, 1.2)).mean()
            value_loss = nn.functional.mse_loss(
                returns[batch], self.value_head(value.hidden_states[-1][:, -1]).squeeze(-1)
            )
            loss = policy_loss + 0.5 * value_loss - 0.01 * distribution.entropy().mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.trained.parameters(), 0.5)
            self.optimizer.step()


def iteration(setting: Setting, rounds: Rounds, n_episodes: int, batch_size: int) -> None:
    """One whole iteration, worked out from a smaller one as for stock SB3: ``n_episodes`` episodes and one epoch."""
    torch.manual_seed(0)
    trainer = RL4LMs(setting)
    watch_dtype(trainer.policy, rounds.facts, "dtype")
    prompts = make_tokenizer(setting)(make_prompts(setting)[:n_episodes], return_tensors="pt")["input_ids"]
    rounds.facts["measured"] = f"on {n_episodes} episodes: rollout + {setting.epochs} x one epoch"
    rounds.units = n_episodes
    while rounds.next():
        started = time.perf_counter()
        trainer.rollout(prompts)
        trainer.compute_advantages()
        rolled_out = time.perf_counter()
        trainer.epoch(batch_size)
        rounds.seconds = rolled_out - started + setting.epochs * (time.perf_counter() - rolled_out)
