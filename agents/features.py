"""TokenFeatures: what lets stock Stable-Baselines3 algorithms train on text environments."""

from __future__ import annotations

import copy
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class TokenFeatures(BaseFeaturesExtractor):
    """Features of a token observation, for the ``MultiInputPolicy`` of any Stable-Baselines3 algorithm.

        PPO("MultiInputPolicy", env, policy_kwargs=dict(features_extractor_class=TokenFeatures))

    Without it, SB3 feeds raw ids to a multilayer perceptron as if 7 were more than 6. Two ways:

    * ``model=None``: every token is embedded, padding is zero, and the positions stand side by side. Features
      ``[batch, L * (embedding_dim + 1)]``, the one more being the attention mask. Small vocabularies and short texts
      learn in seconds.
    * ``model``: a transformer reads the text, and the features are its last hidden state on the last token,
      ``[batch, hidden_size]``. A Hugging Face folder, configuration (random weights) or model; of a causal LM, its
      trunk. A model is copied, since DQN makes a second extractor for its target network. Dropout is set to 0.
      SB3 re-encodes the whole prefix for each token: `agents.TextPPO` does not, and is many times faster.

    Args:
        observation_space: that of a text environment.
        embedding_dim: width of the embedding where there is no ``model``.
        model: see above.

    Raises:
        TypeError: for an observation space without ``input_ids`` and ``attention_mask``.
        ValueError: if the model's vocabulary is smaller than the environment's.
    """

    def __init__(self, observation_space: spaces.Space[Any], embedding_dim: int = 16, model: Any = None):
        if not isinstance(observation_space, spaces.Dict) or not {"input_ids", "attention_mask"} <= set(
            observation_space.spaces
        ):
            raise TypeError(
                f"TokenFeatures reads input_ids and attention_mask, and the observation space is {observation_space}. "
                "Use it on a text environment, with 'MultiInputPolicy'."
            )
        ids: Any = observation_space["input_ids"]
        vocab_size, length = int(ids.high.max()) + 1, ids.shape[0]
        trunk = None if model is None else load_trunk(model)
        features_dim = length * (embedding_dim + 1) if trunk is None else trunk.config.hidden_size
        super().__init__(observation_space, features_dim)
        self.trunk = trunk
        if trunk is None:
            self.embedding = nn.Embedding(vocab_size, embedding_dim)
        elif trunk.get_input_embeddings().num_embeddings < vocab_size:
            raise ValueError(
                f"The model knows {trunk.get_input_embeddings().num_embeddings} tokens, the environment {vocab_size}. "
                "Give a model of at least that vocabulary, or the environment a smaller vocab_size."
            )

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Features ``[batch, features_dim]``; SB3 hands the ids over as floats, exact below 2^24."""
        ids, mask = observations["input_ids"].long(), observations["attention_mask"]
        if self.trunk is None:
            embedded = self.embedding(ids) * mask.unsqueeze(-1)
            return torch.cat([embedded.flatten(1), mask.float()], dim=1)
        lengths = mask.long().sum(dim=1)
        longest = int(lengths.max())
        hidden = self.trunk(
            input_ids=ids[:, :longest], attention_mask=mask[:, :longest].long(), use_cache=False
        ).last_hidden_state
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1].float()


def load_trunk(model: Any) -> Any:
    """The transformer without its head, of a Hugging Face folder, configuration or model; dropout 0."""
    from transformers import AutoModel, PreTrainedConfig

    if isinstance(model, PreTrainedConfig):
        trunk = AutoModel.from_config(model)
    elif isinstance(model, nn.Module):
        trunk = copy.deepcopy(getattr(model, "base_model", model))
    else:
        trunk = AutoModel.from_pretrained(model)
    for module in trunk.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return trunk
