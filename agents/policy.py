"""A causal language model and a value head, as a Stable-Baselines3 policy."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import save_file
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from agents import critics, processes, sharded_tensors
from agents.caches import choose_cache
from agents.lm import LanguageModel, SequenceBatch
from agents.loading import load_causal_lm
from agents.lora import has_adapter, merged, put_adapter, settings_elsewhere
from agents.memory import recompute_layers
from agents.sampling import choose, right_padded
from agents.slots import LeftPaddedBatch, Slots

VALUE_MODELS = ("shared", "separate", critics.NAME, "none")
# One fused kernel a step: 5.5 instead of 14.4 ms for 3.7 M parameters on a CPU.
ADAMW: dict[str, Any] = {"eps": 1e-5, "weight_decay": 0.0, "fused": True}


class CausalLMPolicy(BasePolicy):
    """The state is a token sequence, the action its next token: a causal LM is the policy, a linear head on it the critic.

    It answers to Stable-Baselines3's policy interface, so stock algorithms can train it too (re-encoding every prefix,
    far slower than ``TextPPO``, which sees whole episodes).

    Args:
        observation_space: ``Dict(input_ids, attention_mask)``, each of shape [L]; padding on either side, in any amount.
        action_space: ``Discrete(V)``. A model with a larger vocabulary is cut to its first V tokens.
        lr_schedule: learning rate as a function of the remaining progress (1 to 0).
        model: folder or hub id of a causal LM, a transformers config or its dict, or a module, a ``peft.PeftModel`` too;
            None makes a small random GPT-2 where V is at most 128.
        lora: arguments of ``peft.LoraConfig``, such as ``dict(r=16)``: a new adapter and the value head learn, the model's
            weights stay (Hu et al. 2021). A critic with a trunk of its own gets an adapter of its own.
        value_model: "shared" puts the value head on the policy's trunk; "separate" gives the critic a trunk of its own;
            "from_reward_model": that trunk and its head are those of ``reward_model``; "none": no critic, all values are 0.0,
            as algorithms without one want it.
        reward_model: folder of a learned reward model, or the module (see `agents.critics`); where it is left out, an
            algorithm takes the environment's.
        temperature: of the distribution that is sampled and trained; 1.0 as in Ouyang et al. 2022.
        dtype: "float32", "bfloat16" (autocast over float32 weights) or "auto" (bfloat16 where the hardware is fast at it).
        gradient_checkpointing: compute each layer anew in backward instead of keeping what it computed: a third more time
            for much less memory; the gradients are the same.
        optimizer_class, optimizer_kwargs: AdamW with eps 1e-5 (Huang et al. 2022, "The 37 Implementation Details of PPO",
            detail 3) and no weight decay.

    The value head starts at 0, as in Ziegler et al. 2019's code: the first advantages are the rewards themselves. That of a
    reward model starts as it was learned.

    Raises:
        ValueError: for spaces of another kind, a model that does not fit them, or an unknown option.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: Any = None,
        value_model: str = "shared",
        temperature: float = 1.0,
        dtype: str = "auto",
        gradient_checkpointing: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        lora: Mapping[str, Any] | None = None,
        reward_model: Any = None,
    ):
        check_spaces(observation_space, action_space)
        if value_model not in VALUE_MODELS:
            raise ValueError(
                f"Unknown value_model {value_model!r}: in CausalLMPolicy. Choose one of {', '.join(VALUE_MODELS)}."
            )
        super().__init__(observation_space, action_space)
        self.max_length = observation_space["input_ids"].shape[0]  # type: ignore[index]
        loaded = load_causal_lm(model, int(action_space.n), self.max_length)  # type: ignore[attr-defined]
        if lora is not None:
            put_adapter(loaded, lora)
        self.lm = LanguageModel(loaded, int(action_space.n), temperature, dtype)  # type: ignore[attr-defined]
        if gradient_checkpointing:
            recompute_layers(self.lm.model)
        self._check_positions(self.lm)
        # The critic's own trunk, where it has one.
        self.critic: LanguageModel | None = None
        self.value_head = None if value_model == "none" else zero_head(self.lm.hidden_size)
        if value_model == "separate":  # a copy of the LM, whose output layer is never used
            self.critic = self.lm.twin()
            self.critic.model.get_output_embeddings().requires_grad_(False)
        elif value_model == critics.NAME:
            adapter = lora or (settings_elsewhere(loaded) if has_adapter(loaded) else None)
            self.critic, self.value_head = critics.critic_from(reward_model, self.lm, adapter)
            if gradient_checkpointing:
                recompute_layers(self.critic.model)
            self._check_positions(self.critic, "reward model")
        self.restriction: Callable[..., np.ndarray] | None = None  # an algorithm's, as TextNLPO's
        self.cache_class = choose_cache(self.lm, self.max_length)
        self.optimizer = optimizer_class(
            [p for p in self.parameters() if p.requires_grad],
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **(optimizer_kwargs or (ADAMW if optimizer_class is torch.optim.AdamW else {})),
        )

    # --- whole sequences: what the text algorithms use -------------------------------------------------------------

    def evaluate_sequences(
        self, batch: SequenceBatch, entropies: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, log-probabilities and perhaps entropies of the chosen tokens by one full forward pass.

        Returns:
            values, log_probs, and entropies in nats, each of shape [tokens]; None instead of entropies that are not asked
            for, which cost another pass over all logits.
        """
        log_probs, nats, hidden = self.lm.token_log_probs(batch, entropies)
        return self._values(batch, hidden), log_probs, nats

    def _values(self, batch: SequenceBatch, hidden: Tensor) -> Tensor:
        """Values, shape [tokens], from the policy's hidden states, or from the critic's, where it has a trunk of its own."""
        if self.value_head is None:
            return torch.zeros(len(hidden), device=hidden.device)
        if self.critic is not None:
            hidden = self.critic.token_hidden(batch)
        return self.value_head(hidden.float()).squeeze(-1)

    def slots(self, n_rows: int) -> Slots | LeftPaddedBatch:
        """An empty KV cache for ``n_rows`` sub-environments; good until the weights change."""
        return self.cache_class(self.lm, n_rows, self.max_length)

    def legal_tokens(
        self,
        slots: Slots | LeftPaddedBatch,
        ids: np.ndarray,
        lengths: np.ndarray,
        rows: np.ndarray,
        legal: np.ndarray | None,
    ) -> np.ndarray | None:
        """The tokens that the policy may choose in ``rows``, bool, shape [rows, V], or None for all; arguments as of ``act``.

        They are those that the environment allows, ``legal``, less what ``restriction`` takes away.
        """
        return legal if self.restriction is None else self.restriction(slots, ids, lengths, rows, legal)

    @torch.no_grad()
    def act(
        self,
        slots: Slots | LeftPaddedBatch,
        ids: np.ndarray,
        lengths: np.ndarray,
        rows: np.ndarray,
        legal: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the next token of each of ``rows``.

        Args:
            slots: from ``slots``; it is brought up to date.
            ids: int64, shape [n_rows, L], right-padded; lengths: int64, shape [n_rows].
            rows: int64, shape [rows].
            legal: bool, shape [rows, V], or None.

        Returns:
            actions (int64), values and log_probs, each of shape [rows]. Without a critic on the policy's own trunk the
            values are 0.0: a separate one keeps no cache, its values come from ``evaluate_sequences``.
        """
        with self.lm.autocast():
            hidden = slots.last_hidden(ids, lengths, rows)
            logits = slots.logits(
                hidden, None if legal is None else torch.from_numpy(legal).to(self.device, non_blocking=True)
            )
        actions, log_probs = choose(logits, deterministic)
        if self.value_head is None or self.critic is not None:
            return actions, torch.zeros_like(log_probs), log_probs
        return actions, self.value_head(hidden).squeeze(-1), log_probs

    # --- single states: what Stable-Baselines3 asks for ------------------------------------------------------------

    def evaluate_actions(self, obs: dict[str, Tensor], actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values [n, 1], log-probabilities [n] and entropies [n] of ``actions`` [n] in the states ``obs`` [n, L]."""
        batch = self._states(obs, actions.long().flatten())
        values, log_probs, entropies = self.evaluate_sequences(batch, entropies=True)
        assert entropies is not None
        return values[:, None], log_probs, entropies

    def forward(self, obs: dict[str, Tensor], deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions [n], values [n, 1] and log-probabilities [n] in the states ``obs`` [n, L], without a cache."""
        batch = self._states(obs)
        hidden = self.lm.token_hidden(batch)
        actions, log_probs = choose(self._logits(hidden), deterministic)
        return actions, self._values(batch, hidden)[:, None], log_probs

    def predict_values(self, obs: dict[str, Tensor]) -> Tensor:
        """Values, shape [n, 1], of the states ``obs`` [n, L]."""
        batch = self._states(obs)
        return self._values(batch, self.lm.token_hidden(batch))[:, None]

    def get_distribution(self, obs: dict[str, Tensor]) -> CategoricalDistribution:
        """The distribution over the next token in the states ``obs`` [n, L]."""
        logits = self._logits(self.lm.token_hidden(self._states(obs)))
        return CategoricalDistribution(self.lm.vocab_size).proba_distribution(logits)

    def _logits(self, hidden: Tensor) -> Tensor:
        with self.lm.autocast():
            return self.lm.logits(hidden)

    def _predict(self, observation: dict[str, Tensor], deterministic: bool = False) -> Tensor:  # type: ignore[override]
        return self.forward(observation, deterministic)[0]

    def predict(  # type: ignore[override]
        self,
        observation: dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Next tokens, as Stable-Baselines3's ``predict``; the KV cache travels as the recurrent ``state``.

        Pass the returned state back in and each call costs one token per row; leave it out and the prefix is encoded anew.
        ``episode_start`` is not needed: a row that was reset is recognised by its ids. ``action_masks``: bool, [n, V].
        """
        ids, mask = np.asarray(observation["input_ids"]), np.asarray(observation["attention_mask"])
        single = ids.ndim == 1
        ids, lengths = right_padded(np.atleast_2d(ids).astype(np.int64), np.atleast_2d(mask))
        if state is None or len(state.ids) != len(ids):
            state = self.slots(len(ids))
        legal = None if action_masks is None else np.asarray(action_masks, dtype=bool).reshape(len(ids), -1)
        rows = np.arange(len(ids))
        legal = self.legal_tokens(state, ids, lengths, rows, legal)
        actions, _, _ = self.act(state, ids, lengths, rows, legal, deterministic)
        array = actions.cpu().numpy()
        return (array[0] if single else array), state

    def _states(self, obs: dict[str, Tensor], actions: Tensor | None = None) -> SequenceBatch:
        ids, lengths = right_padded(
            obs["input_ids"].cpu().numpy().astype(np.int64), obs["attention_mask"].cpu().numpy()
        )
        rows, width = torch.arange(len(ids), device=self.device), int(lengths.max())
        columns = torch.from_numpy(lengths - 1).to(self.device)
        if actions is None:
            actions = torch.zeros_like(columns)
        return SequenceBatch(
            torch.from_numpy(ids[:, :width]).to(self.device), rows, columns, actions.to(self.device)
        )

    # --- saving ----------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike, tokenizer: Any = None) -> None:
        """Write a plain Hugging Face folder: any transformers program loads it. The value head lies beside the weights.

        An adapter is merged into the written weights; those of the policy stay as they are.
        ``generate`` samples at the temperature that was trained, if that is not 1. Of several processes all call it, and the
        first one writes.
        """
        generation = self.lm.model.generation_config
        if generation is not None and self.lm.temperature != 1.0:
            generation.do_sample, generation.temperature = True, self.lm.temperature
        weights = None if has_adapter(self.lm.model) else sharded_tensors.whole(self.lm.model.state_dict())
        head = None if self.value_head is None else sharded_tensors.whole(self.value_head.state_dict())
        if not processes.is_first():
            return
        merged(self.lm.model).save_pretrained(folder, state_dict=weights)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        if head is not None:
            head = {name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}
            save_file(head, Path(folder) / "value_head.safetensors")

    def save(self, path: str | os.PathLike) -> None:  # type: ignore[override]
        """As ``save_pretrained``: unlike Stable-Baselines3's own, it writes no pickle."""
        self.save_pretrained(path)

    @classmethod
    def load(cls, path: str, device: torch.device | str = "auto") -> "CausalLMPolicy":
        raise NotImplementedError(
            f"A policy alone cannot be loaded: from {path}. Use TextPPO.load for a checkpoint, or "
            'policy_kwargs=dict(model="folder") for what save_pretrained wrote; no pickle is ever read.'
        )

    def _check_positions(self, lm: LanguageModel, name: str = "model") -> None:
        limit = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and limit < self.max_length:
            raise ValueError(
                f"Episodes may have {self.max_length} tokens, the {name}'s positions end at {limit}: in CausalLMPolicy. "
                "Lower the environment's max_prompt_tokens or max_new_tokens."
            )


def zero_head(hidden_size: int) -> nn.Linear:
    """A value head that says 0 of everything."""
    head = nn.Linear(hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise ValueError unless the spaces are those of a token-level text environment."""
    keys = set(observation_space.spaces) if isinstance(observation_space, spaces.Dict) else set()
    if not {"input_ids", "attention_mask"} <= keys or not isinstance(action_space, spaces.Discrete):
        raise ValueError(
            f"This is no text environment: its spaces are {observation_space} and {action_space}. Observations must be "
            "Dict(input_ids, attention_mask) and actions Discrete(V), as in text_envs.TextGenerationEnv."
        )
