"""A causal language model as two functions: hidden states of token sequences, logits of the hidden states one needs."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from agents.attention import WRITTEN_OUT
from agents.lora import base_of, has_adapter, train_adapter_only, twin
from agents.memory import of_logits, round_to_bfloat16
from agents.token_log_probs import token_log_probs
from reward_models.gelu import use_quick_gelu
from reward_models.last_layer import hidden_at

# Below it the casts eat what the products gain (1.0x to 1.2x of an iteration on AVX512-BF16, 1.6x from here on; on an
# H200, where every cast is a kernel more, an iteration at 128 takes 3.4 times as long as in float32), and float32 keeps a
# small model's training the same on every machine.
BFLOAT16_HIDDEN_SIZE = 192


@dataclass
class SequenceBatch:
    """Right-padded token sequences, and which of their tokens the policy chose.

    Right padding needs no attention mask: in a causal model no real token sees what stands to its right.

    Attributes:
        ids: int64, shape [sequences, length].
        rows, columns: int64, shape [tokens]; the hidden state at (row, column) predicts the token at column + 1.
        actions: int64, shape [tokens], the tokens that the policy chose there.
        legal: bool, shape [tokens, vocabulary], which tokens it might choose; None where all were legal.
    """

    ids: Tensor
    rows: Tensor
    columns: Tensor
    actions: Tensor
    legal: Tensor | None = None

    def to(self, device: torch.device) -> "SequenceBatch":
        ids, rows, columns, actions = (
            t.to(device) for t in (self.ids, self.rows, self.columns, self.actions)
        )
        return SequenceBatch(
            ids, rows, columns, actions, None if self.legal is None else self.legal.to(device)
        )


class LanguageModel(nn.Module):
    """A Hugging Face causal LM whose trunk and output layer are called apart.

    The output layer is the expensive part at a real vocabulary, so it sees only the hidden states that predict a token
    the policy chose. Dropout is off always, whatever mode Stable-Baselines3 asks for: the module stays in eval mode.

    Args:
        model: what ``AutoModelForCausalLM`` gives.
        vocab_size: V of the environment. A larger vocabulary of the model is cut to the first V tokens, in sampling and
            in log-probabilities alike.
        temperature: divides the logits, in sampling and in log-probabilities alike.
        dtype: "float32", "bfloat16" (autocast, the weights stay float32) or "auto"; see ``compute_dtype``.

    Raises:
        ValueError: if the model's vocabulary is smaller than V, or its logits are not output_layer(hidden states).
    """

    def __init__(
        self, model: PreTrainedModel, vocab_size: int, temperature: float = 1.0, dtype: str = "auto"
    ):
        super().__init__()
        if not temperature > 0:
            raise ValueError(
                f"temperature is {temperature}: in the policy. It must be positive; predict(deterministic=True) is greedy."
            )
        self.model = model
        self.vocab_size = vocab_size
        self.temperature = temperature
        self.dtype_name = dtype
        compute_dtype(dtype, "cpu", self.hidden_size)  # raises for an unknown name
        self.softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self.attention_written_out = False
        train_adapter_only(model)
        self.train(False)
        use_quick_gelu(model)
        self._choose_attention()
        self._check_output_layer()

    @property
    def trunk(self) -> nn.Module:
        return self.model.base_model

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.dtype_name, self.device.type, self.hidden_size)

    @property
    def hidden_size(self) -> int:
        return self.model.get_output_embeddings().in_features

    def train(self, mode: bool = True) -> "LanguageModel":
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> "LanguageModel":
        super()._apply(fn, recurse)
        self._choose_attention()  # the device may be another now
        return self

    def _choose_attention(self) -> None:
        """Write attention out in bfloat16 on a CPU, where the backward of torch's SDPA is slow."""
        slow = self.dtype == torch.bfloat16 and self.device.type == "cpu"
        given, wanted = ("sdpa", WRITTEN_OUT) if slow else (WRITTEN_OUT, "sdpa")
        if (
            getattr(self.model.config, "_attn_implementation", None) == given
            and slow != self.attention_written_out
        ):
            self.model.set_attn_implementation(wanted)
            self.attention_written_out = slow

    @contextmanager
    def without_backward(self) -> Iterator[None]:
        """Where no gradient will be asked for, SDPA is the faster one in bfloat16 too: its backward is what is slow."""
        if not self.attention_written_out:
            yield
            return
        self.model.config._attn_implementation = "sdpa"
        try:
            yield
        finally:
            self.model.config._attn_implementation = WRITTEN_OUT

    def autocast(self) -> AbstractContextManager:
        device, dtype = self.device.type, self.dtype
        return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype=dtype)

    def hidden(self, ids: Tensor, **kwargs: Any) -> Tensor:
        """Last hidden states, shape [sequences, length, hidden_size], of ``ids``, shape [sequences, length]."""
        kwargs.setdefault("use_cache", False)
        return self.trunk(inputs_embeds=self._embedded(ids), **kwargs).last_hidden_state

    def _embedded(self, ids: Tensor) -> Tensor:
        # Embeddings, not ids: transformers else searches every batch of ids for padding, to warn about a missing mask.
        return self.model.get_input_embeddings()(ids)

    def logits(
        self,
        hidden: Tensor,
        legal: Tensor | None = None,
        output_layer: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Logits of the distribution that is sampled, float32, shape [..., V], from ``hidden``, shape [..., hidden_size].

        The vocabulary is cut to V, divided by the temperature, and tokens that are not ``legal`` get -inf.

        Args:
            output_layer: computes what the model's own does.
        """
        return self._logits(hidden, legal, output_layer).float()

    def _logits(
        self, hidden: Tensor, legal: Tensor | None, output_layer: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """The same in the dtype of the output layer, where nothing has to be computed in float32."""
        logits = (output_layer or self.model.get_output_embeddings())(hidden)[..., : self.vocab_size]
        if self.softcap:  # Gemma's: part of the model, before any temperature
            logits = self.softcap * torch.tanh(logits.float() / self.softcap)
        if self.temperature != 1.0:
            logits = logits.float() / self.temperature
        return logits if legal is None else logits.masked_fill(~legal, -torch.inf)

    def token_hidden(self, batch: SequenceBatch) -> Tensor:
        """Hidden states that predict the chosen tokens, by one forward pass; shape [tokens, hidden_size]."""
        with self.autocast():
            return hidden_at(self.trunk, self._embedded(batch.ids), batch.rows, batch.columns)

    def token_log_probs(
        self, batch: SequenceBatch, entropies: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-probabilities of the chosen tokens by one forward pass, on this model's device.

        Returns:
            log_probs, shape [tokens]; entropies in nats, shape [tokens], or None where they are not asked for; hidden
            states, shape [tokens, hidden_size].
        """
        batch = batch.to(self.device)
        hidden = self.token_hidden(batch)
        return *self.log_probs(hidden, batch.actions, batch.legal, entropies), hidden

    def log_probs(
        self, hidden: Tensor, actions: Tensor, legal: Tensor | None = None, entropies: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of ``actions``, shape [tokens], and entropies or None, from ``hidden``, [tokens, hidden_size].

        Many tokens times a large vocabulary are more than memory holds: they are computed in chunks.
        """

        def compute(hidden: Tensor, actions: Tensor, legal: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return token_log_probs(self._logits(hidden, legal), actions, entropies)

        with self.autocast():
            return of_logits(compute, self.vocab_size, hidden, actions, legal)  # type: ignore[return-value]

    def frozen_copy(self) -> "LanguageModel":
        """The reference: the same weights now, never trained; below an adapter those of the base, not copied."""
        if has_adapter(self.model):
            return base_of(self)
        return copy.deepcopy(self).requires_grad_(False)

    def twin(self) -> "LanguageModel":
        """The same weights now, to go their own way; weights below an adapter are not copied."""
        return twin(self)

    def hold_in_bfloat16(self) -> "LanguageModel":
        """Round the weights to bfloat16, half the bytes, and compute in it; for models that are not trained."""
        round_to_bfloat16(self.model)
        self.dtype_name = "bfloat16"
        self._choose_attention()
        return self

    @torch.no_grad()
    def _check_output_layer(self) -> None:
        model_vocab = self.model.get_output_embeddings().weight.shape[0]
        if model_vocab < self.vocab_size:
            raise ValueError(
                f"The model knows {model_vocab} tokens, the environment {self.vocab_size}: in CausalLMPolicy. "
                "Give the environment the model's own tokenizer, or resize the model with resize_token_embeddings."
            )
        ids = torch.arange(4, device=self.device)[None] % model_vocab
        whole = (
            self.model(input_ids=ids, use_cache=False).logits.float()[..., : self.vocab_size]
            / self.temperature
        )
        if not torch.allclose(whole, self.logits(self.hidden(ids)), atol=1e-3, rtol=1e-3):
            raise ValueError(
                f"The logits of {type(self.model).__name__} are not output_layer(hidden states): in CausalLMPolicy. "
                "It scales them; choose a model family without that, such as GPT-2, Llama, Qwen, OPT or Phi."
            )


@contextmanager
def kept_casts() -> Iterator[None]:
    """Autocast casts each weight once for all passes in the block, not once for each. The weights must not change in it."""
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


@lru_cache
def compute_dtype(name: str, device_type: str, hidden_size: int) -> torch.dtype:
    """The dtype of "float32", "bfloat16" or "auto": bfloat16 where it is faster, else float32.

    That takes hardware for its products, on a CPU AMX or AVX512-BF16 (elsewhere they are emulated, several times slower than
    float32), and a hidden size of at least ``BFLOAT16_HIDDEN_SIZE``.

    Raises:
        ValueError: for another name.
    """
    if name == "auto":
        fast = hidden_size >= BFLOAT16_HIDDEN_SIZE and has_fast_bfloat16(device_type)
        return torch.bfloat16 if fast else torch.float32
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in dtypes:
        raise ValueError(f"Unknown dtype {name!r}: in CausalLMPolicy. Choose auto, float32 or bfloat16.")
    return dtypes[name]


def has_fast_bfloat16(device_type: str = "cpu") -> bool:
    """Whether this CPU or GPU multiplies bfloat16 in hardware."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )
