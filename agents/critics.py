"""The critic that starts as a learned reward model: the value of a prefix is at first the score it would get as it stands.

Stiennon et al. 2020 (appendix B.1) and Ouyang et al. 2022 (appendix C.4) start the value function so.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from agents.envs import common_attribute
from agents.lm import LanguageModel
from agents.lora import has_adapter, put_adapter
from reward_models.classifier import Classifier, Stored
from reward_models.reward_head import load_classifier
from text_envs.tokenizer import load_tokenizer

NAME = "from_reward_model"
WHERE = f"in the policy, with value_model={NAME!r}"
GIVE = (
    'Give policy_kwargs=dict(reward_model="folder") of a sequence classifier with one label, as '
    "reward_models.learning.train saves it."
)


class RewardTrunk(LanguageModel):
    """The trunk of a sequence classifier: hidden states, and no tokens."""

    @property
    def hidden_size(self) -> int:
        return self.model.config.get_text_config().hidden_size

    def _check_output_layer(self) -> None:
        pass  # it has none


def critic_from(
    reward_model: Any, lm: LanguageModel, lora: Mapping[str, Any] | None = None
) -> tuple[LanguageModel, nn.Linear]:
    """The critic and its value head: together, the calibrated score of every prefix.

    Args:
        reward_model: folder of a sequence classifier of one label; such a module, which is copied; or the `Classifier`.
        lm: of the policy, whose dtype and tokens are the critic's.
        lora: the policy's adapter: the critic gets one too, and its other weights stay.

    Raises:
        ValueError: it is no learned reward model, or knows fewer tokens than the policy; or it has no layers for the adapter.
    """
    model = reward_model.model if isinstance(reward_model, Classifier) else reward_model
    if not _is_learned(model):
        raise ValueError(f"{_named(reward_model)} is no learned reward model: {WHERE}. {GIVE}")
    classifier = load_classifier(model)
    weight: torch.Tensor = classifier.get_input_embeddings().weight  # type: ignore[assignment, union-attr]
    known = weight.shape[0]
    if known < lm.vocab_size:
        raise ValueError(
            f"The reward model knows {known} tokens, the policy {lm.vocab_size}: {WHERE}. Give one that was trained with the "
            "policy's tokenizer."
        )
    value_head = _value_head(classifier)
    classifier.score = nn.Identity()
    if lora is not None and not has_adapter(classifier):
        put_adapter(classifier, lora)
    return RewardTrunk(classifier, lm.vocab_size, dtype=lm.dtype_name), value_head


@torch.no_grad()
def _value_head(classifier: PreTrainedModel) -> nn.Linear:
    """The head of a reward model, its calibration included: (score - mean) / std."""
    score, stored = classifier.score, Stored.of(classifier.config)
    assert isinstance(score, nn.Linear)
    head = nn.Linear(score.in_features, 1)
    head.weight.copy_(score.weight / stored.std)
    bias = torch.zeros(1) if score.bias is None else score.bias
    head.bias.copy_((bias - stored.mean) / stored.std)
    return head


def fitting_reward_model(given: Any, env: VecEnv) -> Any:
    """The reward model that the critic starts from: the one given, or the environment's.

    Raises:
        ValueError: there is none, or it reads other tokens than the environment's.
    """
    model = given
    if model is None:
        model = getattr(common_attribute(env, "task"), "reward_model", None)
        if not isinstance(model, Classifier) or model.output != "logit":
            raise ValueError(
                f"The environment's reward is {_named(model)}, no learned reward model: {WHERE}. {GIVE}"
            )
    theirs = model.tokenizer if isinstance(model, Classifier) else None
    if isinstance(model, str | os.PathLike):
        if not _is_learned(model):
            raise ValueError(f"{_named(model)} is no learned reward model: {WHERE}. {GIVE}")
        theirs = load_tokenizer(model)
    ours = common_attribute(env, "tokenizer")
    if theirs is not None and ours is not None:
        known = theirs.get_vocab()
        strange = [token for token, index in ours.get_vocab().items() if known.get(token) != index]
        if strange:
            raise ValueError(
                f"The reward model reads other tokens than the environment, {strange[0]!r} for one: {WHERE}. Give one that "
                "was trained with the policy's tokenizer."
            )
    return model


def _is_learned(model: Any) -> bool:
    if not isinstance(model, str | os.PathLike):
        return isinstance(getattr(model, "score", None), nn.Linear)
    try:
        made = AutoConfig.from_pretrained(model, trust_remote_code=False).architectures or ()
    except Exception:  # whatever transformers raises over what is no model
        return False
    return "ForSequenceClassification" in "".join(made)


def _named(model: Any) -> str:
    return repr(os.fspath(model)) if isinstance(model, str | os.PathLike) else f"a {type(model).__name__}"
