"""Any Hugging Face sequence classifier as a reward model."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from reward_models.completion import Completion, RewardError, excerpt, in_short
from reward_models.encoding import TEMPLATE, CompletionEncoder, longest

Output = Literal["logit", "log_odds", "probability"]
# Batched and single scores may differ by rounding only; a wrong pooling position differs by far more.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class Stored:
    """What a learned reward model's `config.json` tells about it, under "text_envs_reward".

    Attributes:
        template, max_length: of the texts it was trained on.
        mean, std: of its logits on the texts it was calibrated on; 0 and 1 where it was not.
    """

    template: str = TEMPLATE
    max_length: int | None = None
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, config: Any) -> "Stored":
        """As `config` tells; the defaults where it tells nothing."""
        return cls(**(getattr(config, "text_envs_reward", None) or {}))

    def put_into(self, config: Any) -> None:
        config.text_envs_reward = asdict(self)


class Classifier:
    """Scores with an `AutoModelForSequenceClassification`, in batches, by its own tokenizer and on its own device.

    Range: "logit" and "log_odds" are unbounded, "probability" is [0, 1]. Of a calibrated model (`reward_models.calibration`)
    a logit is given in standard deviations from the mean, the two that its config tells.

    A score does not depend on the batch or its padding. Models that classify at the last token find it by looking
    for the pad token, and so read a wrong one where pad is also EOS, or refuse batches where there is no pad. Here
    rows are padded on the right with an id that occurs in none of them, and the model is told that this is the pad.
    The first padded batch is compared with a row scored alone; a model for which they differ is run one by one.

    Args:
        model: a folder or hub id, or a loaded model.
        tokenizer: a folder, id or tokenizer; by default the model's own. Required with a loaded model.
        label: which label's score is the reward: its index, or its name in `config.id2label`. Not needed with one
            label; with two it is the second by default.
        output: "logit"; "log_odds", the label's log p - log(1 - p); or "probability".
        template: the text that is judged, by "{prompt}" and "{response}"; "chat" for the tokenizer's chat template
            of one user and one assistant message. By default the one the model was trained with, where its config
            tells (see `Stored`), else "{prompt}{response}".
        max_length: tokens; a longer text loses its beginning. By default that of training, where the config tells,
            else what the tokenizer and the model allow.
        batch_size: rows per forward pass.
        device: "auto" takes CUDA where there is one.
        dtype: of the weights, "float32", "bfloat16" or "float16".

    Raises:
        RewardError: the model cannot be loaded, or an argument does not fit it.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        tokenizer: Any = None,
        label: int | str | None = None,
        output: Output = "logit",
        template: str | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        if output not in ("logit", "log_odds", "probability"):
            raise RewardError(
                f'classifier: output is {output!r}. Choose "logit", "log_odds" or "probability".'
            )
        if batch_size < 1:
            raise RewardError(f"classifier: batch_size is {batch_size}. Give at least 1.")
        self.output, self.batch_size = output, batch_size
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        )
        self.model, self.tokenizer = _load(model, tokenizer, dtype)
        self.model.to(self.device).eval()
        self.label = _label_index(self.model.config, label)
        stored = Stored.of(self.model.config)
        self.encode = CompletionEncoder(
            self.tokenizer,
            template or stored.template,
            max_length or stored.max_length or longest(self.model, self.tokenizer),
        )
        self.mean, self.std = stored.mean, stored.std
        self._batches_agree: bool | None = None

    def __repr__(self) -> str:
        return f"Classifier({self.model.config.name_or_path!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Classifier":
        return self  # the weights do not change, and environments copy their arguments

    @torch.inference_mode()
    def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
        """Scores, float64, shape [n]."""
        rows = self.encode([c.prompt for c in completions], [c.response for c in completions])
        by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        scores = np.empty(len(rows))
        for start in range(0, len(rows), self.batch_size):
            batch = by_length[start : start + self.batch_size]
            scores[batch] = self._score([rows[index] for index in batch])
        return scores

    def _score(self, rows: list[list[int]]) -> np.ndarray:
        """Scores of token rows sorted by length, shape [n]."""
        padded = len(rows[0]) < len(rows[-1])
        if padded and self._batches_agree is False:
            logits = torch.cat([self._logits([row]) for row in rows])
        else:
            logits = self._logits(rows)
            if padded and self._batches_agree is None:
                self._batches_agree = self._agree(logits[:1], self._logits(rows[:1]))
                if not self._batches_agree:
                    return self._score(rows)
        return self._reward(logits).double().cpu().numpy()

    def _agree(self, batched: torch.Tensor, alone: torch.Tensor) -> bool:
        """Whether the most padded row scores as it does alone, but for rounding."""
        tolerance = TOLERANCE.get(self.model.dtype, 1e-3)
        agree = torch.allclose(batched, alone, rtol=tolerance, atol=tolerance)
        if not agree:
            warnings.warn(
                f"{self!r} scores a text differently in a padded batch than alone; scoring one by one, which is slow.",
                stacklevel=2,
            )
        return agree

    def _logits(self, rows: list[list[int]]) -> torch.Tensor:
        """float32 logits, shape [n, labels], of rows padded on the right with an id that none of them holds."""
        width = max(map(len, rows))
        embedded = self.model.get_input_embeddings().num_embeddings
        config = self.model.config.get_text_config()
        native = config.pad_token_id
        used = set().union(*rows)
        # A model's own pad goes first: RoBERTa derives positions from it.
        free = (token for token in (native, *range(embedded)) if token is not None and 0 <= token < embedded)
        filler = next((token for token in free if token not in used), None)
        if filler is None and any(len(row) < width for row in rows):
            return torch.cat([self._logits([row]) for row in rows])
        ids = torch.tensor([row + [filler or 0] * (width - len(row)) for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = (torch.arange(width, device=self.device) < lengths[:, None]).long()
        try:
            config.pad_token_id = -1 if filler is None else filler
            return self.model(input_ids=ids, attention_mask=mask).logits.float()
        finally:
            config.pad_token_id = native

    def _reward(self, logits: torch.Tensor) -> torch.Tensor:
        """The wanted output of the wanted label, shape [n], from logits of shape [n, labels]."""
        chosen = logits[:, self.label]
        if self.output == "logit":
            return (chosen - self.mean) / self.std
        exclusive = logits.shape[1] > 1 and self.model.config.problem_type != "multi_label_classification"
        if exclusive:
            others = [label for label in range(logits.shape[1]) if label != self.label]
            chosen = chosen - logits[:, others].logsumexp(1)
        return chosen if self.output == "log_odds" else chosen.sigmoid()


def _load(model: Any, tokenizer: Any, dtype: str) -> tuple[Any, Any]:
    """The model and a tokenizer of its own; RewardError where there is none, or no classification head."""
    if dtype not in ("float32", "float16", "bfloat16"):
        raise RewardError(f"classifier: dtype is {dtype!r}. Choose float32, bfloat16 or float16.")
    missing: Any = ()
    if isinstance(model, str | Path):
        source = str(model)
        try:
            tokenizer = tokenizer if tokenizer is not None else source
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source, dtype=getattr(torch, dtype), output_loading_info=True
            )
        except Exception as error:  # of transformers, safetensors, tokenizers, huggingface_hub
            raise RewardError(
                f"classifier: no sequence classifier could be loaded from {source!r}: {in_short(error)}. Give a folder that "
                f"save_pretrained wrote, with config.json, weights and tokenizer."
            ) from error
        missing = info["missing_keys"]
        if missing:
            raise RewardError(
                f"classifier: {source!r} lacks the weights {sorted(missing)}; they would be random. "
                f"Give a model that was trained and saved as a sequence classifier."
            )
    elif tokenizer is None:
        raise RewardError("classifier: a loaded model comes without its tokenizer. Give tokenizer=... too.")
    if isinstance(tokenizer, str | Path):
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(tokenizer))
        except Exception as error:
            raise RewardError(
                f"classifier: no tokenizer could be loaded from {str(tokenizer)!r}: {in_short(error)}. "
                f"Save it into the model's folder, or give tokenizer=..."
            ) from error
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.truncation_side = "left"  # what is judged stands at the end
    return model, tokenizer


def _label_index(config: Any, label: int | str | None) -> int:
    """The column of the logits that `label` names."""
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    if label is None and len(names) <= 2:
        return len(names) - 1
    if isinstance(label, str) and label.lower() in [name.lower() for name in names]:
        return [name.lower() for name in names].index(label.lower())
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    raise RewardError(f"classifier: label is {excerpt(label)}. Choose one of {names}, or its index.")
