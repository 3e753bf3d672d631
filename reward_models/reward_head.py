"""A causal language model with one number for an output: its making, and the score at a text's last token."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from reward_models.completion import RewardError, in_short
from reward_models.gelu import use_quick_gelu
from reward_models.last_layer import hidden_at
from reward_models.sharding import load_in_each_process

TOLERANCE = 1e-4  # of a float32 score, computed in two ways


class RewardHead(nn.Module):
    """Scores of right-padded token rows by a Hugging Face sequence classifier of one label.

    Only the hidden state of each text's last token goes through the head, and its place is counted, not searched for:
    a pad token that is also EOS, or that the text itself holds, changes nothing. Right padding needs no attention
    mask, because in a causal model no token sees what stands to its right.

    Args:
        classifier: what `load_classifier` gives: a trunk, `base_model`, and a linear layer, `score`.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        use_quick_gelu(classifier)
        self.classifier = classifier

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Scores, float32, shape [n], of `input_ids`, shape [n, length], the first `lengths` of each row real."""
        return self.scores_at(input_ids, torch.arange(len(lengths), device=lengths.device), lengths - 1)

    def scores_at(self, input_ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores, float32, shape [tokens], of the texts up to these places: int64, shape [tokens], none twice."""
        # Embeddings, not ids: transformers else searches every batch of ids for padding, to warn about a missing mask.
        embedded = self.classifier.get_input_embeddings()(input_ids)
        return self.score(hidden_at(self.classifier.base_model, embedded, rows, columns))[:, 0].float()

    @property
    def score(self) -> nn.Module:
        return self.classifier.score  # type: ignore[return-value]

    def score_padded(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores, shape [n], of rows padded on either side, or anywhere: what `attention_mask` leaves out is not read."""
        order = (attention_mask == 0).sort(dim=1, stable=True).indices
        return self(input_ids.gather(1, order), attention_mask.sum(1))

    @torch.no_grad()
    def score_rows(self, rows: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
        """Scores, shape [n], of token rows of any lengths, on the CPU; dropout is off."""
        training, device = self.training, self.classifier.device
        self.eval()
        scores = torch.empty(len(rows))
        by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for start in range(0, len(rows), batch_size):
            batch = by_length[start : start + batch_size]
            ids, lengths = right_padded([rows[index] for index in batch])
            scores[batch] = self(ids.to(device), lengths.to(device)).cpu()
        self.train(training)
        return scores


class EveryToken(nn.Module):
    """A reward head that scores rows by their last token, and by the mean over their tokens from `starts` on.

    The mean is for training alone: what stands at one place of a response, the name of a thing for instance, gets its own
    score, and the last token only has to gather them (token-level verifiers: Cobbe et al. 2021, section 4.2).
    """

    def __init__(self, head: RewardHead) -> None:
        super().__init__()
        self.head = head

    @property
    def classifier(self) -> PreTrainedModel:
        return self.head.classifier

    def forward(self, input_ids: Tensor, lengths: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Two float32 tensors of shape [n]: the scores, and the means. Starts, shape [n], are below `lengths`."""
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        counts = (place >= starts[:, None]) & (place < lengths[:, None])
        rows, columns = torch.where(counts)  # in order: each text's last one is its last token
        scores = self.head.scores_at(input_ids, rows, columns)
        n_counted = counts.sum(1)
        sums = scores.new_zeros(len(counts)).index_add(0, rows, scores)
        return scores[n_counted.cumsum(0) - 1], sums / n_counted


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token rows as one tensor, int64, shape [n, longest], padded with 0; and their lengths, shape [n]."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.as_tensor(row)
    return ids, lengths


def load_classifier(model: Any) -> PreTrainedModel:
    """A sequence classifier of one label, float32, with the weights of a causal LM and a new head; or one made before.

    The head starts with standard deviation 1 / sqrt(hidden size + 1) (Stiennon et al. 2020).

    Args:
        model: folder or hub id of a causal LM or of a sequence classifier; a transformers config or its dict (random
            weights); or a module, which is copied.

    Raises:
        RewardError: nothing of that kind could be loaded; a family whose classifier is no trunk with a linear head.
    """
    if isinstance(model, str | os.PathLike):
        classifier, new_head = _from_folder(os.fspath(model))
    elif isinstance(model, PreTrainedModel):
        classifier, new_head = _from_module(model)
    elif isinstance(model, Mapping | PreTrainedConfig):
        classifier, new_head = _from_config(model), True
    else:
        raise RewardError(
            f"A {type(model).__name__} is no language model. Give a folder, a transformers config, its dict with "
            "model_type, or a module."
        )
    head = getattr(classifier, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise RewardError(
            f"{type(classifier).__name__} is no trunk with a linear layer `score` of one output. Give a causal language "
            "model such as GPT-2, Llama, Qwen, OPT or Phi, or a reward model with one label."
        )
    if new_head:
        nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    _check(classifier)
    return classifier


def load_reward_tokenizer(tokenizer: Any, model: Any) -> Any:
    """A copy of the tokenizer, set up as a reward model's: padded on the right, cut on the left.

    Args:
        tokenizer: a tokenizer or its folder; None: the model's folder.
    """
    if tokenizer is None:
        tokenizer = model if isinstance(model, str | os.PathLike) else getattr(model, "name_or_path", None)
        if not tokenizer:
            raise RewardError(
                "tokenizer is not given, and the model is no folder that could hold one. Give tokenizer."
            )
    if isinstance(tokenizer, str | os.PathLike):
        try:
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        except Exception as error:
            raise RewardError(
                f"No tokenizer could be loaded from {tokenizer!r}: {in_short(error)}. Give tokenizer, or its folder."
            ) from error
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.truncation_side, tokenizer.padding_side = "left", "right"
    return tokenizer


def set_pad_token(classifier: PreTrainedModel, tokenizer: Any, rows: Sequence[Sequence[int]]) -> None:
    """Give model and tokenizer one pad token, by which other libraries find the end of a text.

    They take the last token that is not the pad token for the end. So it is one that ends none of `rows`: the tokenizer's
    own, its EOS, its unknown token, or else a new one.
    """
    ends = {row[-1] for row in rows}
    candidates = [tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token]
    pad = next((t for t in candidates if t and tokenizer.convert_tokens_to_ids(t) not in ends), None)
    if pad is None:
        pad = next(t for t in ("<pad>", "<|pad|>", "<|reward_pad|>") if t not in tokenizer.get_vocab())
    tokenizer.add_special_tokens({"pad_token": pad})
    classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if tokenizer.pad_token_id >= vocabulary_of(classifier):
        classifier.resize_token_embeddings(tokenizer.pad_token_id + 1)


def vocabulary_of(classifier: PreTrainedModel) -> int:
    """How many tokens the model knows."""
    return len(classifier.get_input_embeddings().weight)  # type: ignore[arg-type]


def _from_folder(folder: str) -> tuple[PreTrainedModel, bool]:
    load_in_each_process()
    try:
        config = AutoConfig.from_pretrained(folder)
        made = "ForSequenceClassification" in "".join(config.architectures or ())
        if not made:
            config.num_labels = 1
        classifier, info = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # of transformers, safetensors, huggingface_hub
        raise RewardError(
            f"No causal language model could be loaded from {folder!r}. Give a folder that holds config.json and weights, "
            f"as save_pretrained writes it. transformers said: {in_short(error)}."
        ) from error
    missing = sorted(key for key in info["missing_keys"] if made or not key.startswith("score."))
    if missing:
        raise RewardError(
            f"{folder!r} lacks the weights {missing}; they would be random. Give a whole model."
        )
    return classifier, not made


def _from_module(model: PreTrainedModel) -> tuple[PreTrainedModel, bool]:
    if isinstance(getattr(model, "score", None), nn.Linear):
        return copy.deepcopy(model).float(), False
    classifier = _from_config(model.config)
    classifier.base_model.load_state_dict(model.base_model.state_dict())
    return classifier, True


def _from_config(config: Any) -> PreTrainedModel:
    if isinstance(config, Mapping):
        settings = dict(config)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    config = copy.deepcopy(config)
    config.num_labels = 1
    try:
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise RewardError(f"{type(config).__name__} has no sequence classifier: {error}") from error


@torch.no_grad()
def _check(classifier: PreTrainedModel) -> None:
    """The score must be that of the model's own forward pass, and padding must not change it."""
    training, head = classifier.training, RewardHead(classifier).eval()
    row = (torch.arange(4, device=classifier.device) % vocabulary_of(classifier))[None]
    text_config = classifier.config.get_text_config()
    pad, text_config.pad_token_id = text_config.pad_token_id, None
    whole = classifier(input_ids=row, use_cache=False).logits[:, 0]
    text_config.pad_token_id = pad
    padded = head(torch.cat([row, row], dim=1), torch.tensor([4], device=row.device))
    classifier.train(training)
    if not torch.allclose(whole, padded, rtol=TOLERANCE, atol=TOLERANCE):
        raise RewardError(
            f"{type(classifier).__name__} does not score a text by its last token, whatever follows it: "
            f"{whole.item():.5f} alone, {padded.item():.5f} padded. Give a causal language model such as GPT-2 or Llama."
        )
