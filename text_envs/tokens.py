"""TokenBatch: the ``[n, max_length]`` buffers that every environment of this package is a view of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class TokenBatch:
    """The tokens of n episodes, right-padded: prompt, then response so far.

    Attributes:
        input_ids: int64 ``[n, max_length]``, ``filler_id`` beyond each row's length.
        attention_mask: int8 ``[n, max_length]``, 1 on tokens, 0 on padding.
        action_mask: bool ``[n, max_length]``, True on the tokens that the policy chose. Prompt tokens,
            padding and tokens that an environment appended of its own are False, so that a loss can leave
            them out.
        lengths: int64 ``[n]``, tokens in the row so far.
        prompt_lengths: int64 ``[n]``, how many of them are the prompt.
    """

    def __init__(self, n: int, max_length: int, filler_id: int = 0):
        self.filler_id = filler_id
        self.input_ids = np.full((n, max_length), filler_id, dtype=np.int64)
        self.attention_mask = np.zeros((n, max_length), dtype=np.int8)
        self.action_mask = np.zeros((n, max_length), dtype=np.bool_)
        self.lengths = np.zeros(n, dtype=np.int64)
        self.prompt_lengths = np.zeros(n, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def start(self, rows: IntArray, prompts: Sequence[IntArray]) -> None:
        """Begin anew in ``rows`` [k], each with its prompt's ids (k arrays of any lengths)."""
        lengths = np.fromiter(map(len, prompts), np.int64, len(prompts))
        filled = np.arange(self.input_ids.shape[1]) < lengths[:, None]
        ids = np.full(filled.shape, self.filler_id, dtype=np.int64)
        ids[filled] = np.concatenate(prompts)
        self.input_ids[rows], self.attention_mask[rows], self.action_mask[rows] = ids, filled, False
        self.lengths[rows] = self.prompt_lengths[rows] = lengths

    def append(self, rows: IntArray, tokens: IntArray, chosen: bool = True) -> None:
        """Append one token to each of ``rows`` [k]; ``chosen=False`` where the policy did not choose it."""
        columns = self.lengths[rows]
        places = rows * self.input_ids.shape[1] + columns  # in the flat buffers, where numpy writes fastest
        self.input_ids.reshape(-1)[places] = tokens
        self.attention_mask.reshape(-1)[places] = 1
        self.action_mask.reshape(-1)[places] = chosen
        self.lengths[rows] = columns + 1

    @property
    def response_lengths(self) -> IntArray:
        """Tokens after the prompt, int64 ``[n]``."""
        return self.lengths - self.prompt_lengths

    def response(self, row: int) -> list[int]:
        """The ids after the prompt in one row, as Python integers."""
        return self.input_ids[row, self.prompt_lengths[row] : self.lengths[row]].tolist()

    def observation(self) -> dict[str, np.ndarray]:
        """Copies of ``input_ids`` and ``attention_mask``: the caller may keep and change them."""
        return {"input_ids": self.input_ids.copy(), "attention_mask": self.attention_mask.copy()}

    def observations(self, rows: IntArray) -> list[dict[str, np.ndarray]]:
        """The observation of each of ``rows`` by itself, arrays ``[max_length]``; copies."""
        ids, masks = self.input_ids[rows], self.attention_mask[rows]
        return [{"input_ids": row_ids, "attention_mask": mask} for row_ids, mask in zip(ids, masks)]
