"""Natural language policy optimisation: PPO on the tokens that an earlier policy finds likely."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor, nn

from agents.lm import LanguageModel
from agents.policy import CausalLMPolicy
from agents.ppo import TextPPO
from agents.slots import LeftPaddedBatch, Slots


class TextNLPO(TextPPO):
    """NLPO (Ramamurthy et al. 2023, "Is Reinforcement Learning (Not) for Natural Language Processing?", section 4,
    algorithm 1).

    PPO whose actions are masked: a token is legal if it belongs to the mask policy's top-p, the smallest set of tokens whose
    probability reaches ``top_p`` (Holtzman et al. 2020). The mask policy is a copy of the policy, renewed every
    ``mask_update_interval`` rollouts. All else is PPO's.

    The mask is part of the distribution: it applies in sampling, in the ratio, in the entropy and in the KL to the
    reference, and in ``predict``. (In RL4LMs the copy that the sampler used was never renewed, and the ratio left the mask
    out.) What is trained is the masked policy: what ``save_pretrained`` writes is without the mask; sample it with ``top_p``.

    Args:
        top_p: 0.9 (the paper, table 3 of its appendix).
        mask_update_interval: rollouts between two renewals of the mask policy; 20 (the paper's mu, for IMDB).
        policy, env, and all further arguments: as in `agents.TextPPO`.

    Raises:
        ValueError: for arguments that do not fit one another, the environment, or the model.
    """

    saved_attributes = (*TextPPO.saved_attributes, "top_p", "mask_update_interval", "mask_age")

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        *,
        top_p: float = 0.9,
        mask_update_interval: int = 20,
        **kwargs: Any,
    ):
        self.check_shares(top_p=top_p)
        if mask_update_interval < 1:
            raise ValueError(
                f"mask_update_interval is {mask_update_interval}: in TextNLPO. It must be at least 1."
            )
        self.top_p = top_p
        self.mask_update_interval = mask_update_interval
        self.mask_age = 0  # rollouts since the mask policy was renewed
        super().__init__(policy, env, learning_rate, **kwargs)

    def _copy_policy(self) -> None:
        super()._copy_policy()
        self.mask_policy: LanguageModel = self.policy.lm.twin().requires_grad_(False)
        self.policy.restriction = TopPMask(self.policy, self.mask_policy, self.top_p)

    @property
    def extra_modules(self) -> dict[str, nn.Module]:
        return {"mask_policy": self.mask_policy.model}

    def _collect(self, *args: Any) -> bool:
        if self.mask_age >= self.mask_update_interval:
            with torch.no_grad():
                # Weights, not the state: that would be in parts, where the policy is sharded.
                for weight, new in zip(self.mask_policy.parameters(), self.policy.lm.parameters()):
                    weight.copy_(new)
            self.mask_age = 0
        complete = super()._collect(*args)
        self.mask_age += complete
        return complete


class TopPMask:
    """What `CausalLMPolicy.restriction` is to NLPO: the mask policy's top-p of the legal tokens.

    The mask policy decodes beside the policy, with a cache of its own for each of the policy's.
    """

    def __init__(self, policy: CausalLMPolicy, mask_policy: LanguageModel, top_p: float):
        self.mask_policy, self.top_p = mask_policy, top_p
        self._new_cache = lambda n_rows: policy.cache_class(mask_policy, n_rows, policy.max_length)
        self._caches: WeakKeyDictionary[Any, Slots | LeftPaddedBatch] = WeakKeyDictionary()

    @torch.no_grad()
    def __call__(
        self,
        slots: Slots | LeftPaddedBatch,
        ids: np.ndarray,
        lengths: np.ndarray,
        rows: np.ndarray,
        legal: np.ndarray | None,
    ) -> np.ndarray:
        """bool, shape [rows, V]; arguments as of `CausalLMPolicy.act`."""
        cache = self._caches.get(slots) or self._new_cache(len(ids))
        self._caches[slots] = cache
        allowed = None if legal is None else torch.from_numpy(legal).to(self.mask_policy.device)
        with self.mask_policy.autocast():
            logits = cache.logits(cache.last_hidden(ids, lengths, rows), allowed)
        return top_p_mask(logits, self.top_p).cpu().numpy()


def top_p_mask(logits: Tensor, top_p: float) -> Tensor:
    """The smallest set of most likely tokens whose probabilities sum to at least ``top_p`` (Holtzman et al. 2020, section
    3.1).

    Args:
        logits: shape [rows, V]; -inf marks tokens that are not legal, and they stay out.

    Returns:
        bool, shape [rows, V]; at least one token of each row.
    """
    probabilities, order = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True, stable=True)
    before = (
        probabilities.cumsum(dim=-1) - probabilities
    )  # what is already in the set when a token's turn comes
    kept = (before < top_p) & (probabilities > 0)
    kept[:, 0] = True
    return torch.zeros_like(kept).scatter(-1, order, kept)
