"""The text that a learned judge reads: a prompt and a response put into a template, as token ids."""

import re
from collections.abc import Sequence
from typing import Any

from reward_models.completion import RewardError

TEMPLATE = "{prompt}{response}"


class CompletionEncoder:
    """Prompts and responses as token ids: one way for training and for scoring.

    Args:
        tokenizer: a Hugging Face tokenizer. Its `truncation_side` must be "left": what is judged stands at the end.
        template: the text, by "{prompt}" and "{response}"; "chat" for the tokenizer's chat template of one user and
            one assistant message.
        max_length: tokens; a longer text loses its beginning. None for no limit.

    Raises:
        RewardError: a template without the response.
    """

    def __init__(self, tokenizer: Any, template: str = TEMPLATE, max_length: int | None = None) -> None:
        if template != "chat" and "{response}" not in template:
            raise RewardError(f'template {template!r} leaves out the response. Put "{{response}}" in it.')
        self.tokenizer, self.template, self.max_length = tokenizer, template, max_length

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
        """The token ids of n texts, each with at least one token."""
        if not prompts:
            return []
        rows = self.tokenizer(
            [self.text(prompt, response) for prompt, response in zip(prompts, responses)],
            truncation=self.max_length is not None,
            max_length=self.max_length,
            add_special_tokens=self.template != "chat",  # a chat template writes them itself
            return_attention_mask=False,
        )["input_ids"]
        return [row or [self._token_for_nothing()] for row in rows]

    def text(self, prompt: str, response: str) -> str:
        """The text that is judged."""
        # Tokenizers refuse lone surrogates, which a decoded byte-level reply may hold.
        prompt, response = (text.encode("utf-8", "replace").decode() for text in (prompt, response))
        if self.template == "chat":
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            return self.tokenizer.apply_chat_template(messages, tokenize=False)
        fields = {"{prompt}": prompt, "{response}": response}
        return "".join(
            fields.get(part, part) for part in re.split(r"(\{prompt\}|\{response\})", self.template)
        )

    def _token_for_nothing(self) -> int:
        """What stands for an empty text, of which a model cannot make a score."""
        known = self.tokenizer
        ids = (known.bos_token_id, known.eos_token_id, known.cls_token_id, known.pad_token_id)
        found = next((token for token in ids if token is not None), None)
        if found is None:
            raise RewardError(
                "The text to judge is empty, and the tokenizer has no special token to stand for it. "
                'Give a template that adds something, such as template="Reply: {response}".'
            )
        return found


def longest(model: Any, tokenizer: Any) -> int | None:
    """The most tokens that the tokenizer and the model's positions allow; None for no limit."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 10**9 else []
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and positions > 0:  # XLNet says -1
        # RoBERTa and its kin start to count after the pad id.
        taken = [
            module.padding_idx + 1
            for name, module in model.named_modules()
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        ]
        limits.append(positions - max(taken, default=0))
    return min(limits, default=None)
