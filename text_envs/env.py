"""TextGenerationEnv: one action appends one token; the end of the response is scored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from text_envs.encoding import TooLong
from text_envs.episodes import TaskAttributes, TextEpisodes
from text_envs.masks import AllowedTokens, BoolArray
from text_envs.rendering import METADATA, TextRenderer
from text_envs.task import TextTask
from text_envs.vector import TextVectorEnv

Observation = dict[str, np.ndarray]


class TextGenerationEnv(TaskAttributes, gym.Env[Observation, int]):
    """A response to a prompt, written token by token, judged at its end.

    ## Description
    Each episode starts from a prompt. Each step appends one token. When the response ends, the reward model
    scores it. ``text_envs/TextGeneration-v0`` is this class: any tokenizer, prompts and reward model.

    ## Action Space
    ``Discrete(V)``: the next token. V is ``vocab_size``, or the highest id of the tokenizer + 1.
    ``action_masks()`` and, where ``allowed_tokens`` is given, ``info["action_mask"]`` say which tokens are
    legal.

    ## Observation Space
    ``Dict(input_ids=Box(0, V - 1, (L,), int64), attention_mask=MultiBinary(L))`` with L =
    ``max_prompt_tokens`` + ``max_new_tokens``: prompt, then response so far, padded on the right.

    ## Rewards
    0.0 until the response ends; then the score of the reward model, on the step of the last token.

    ## Starting State
    A prompt drawn uniformly from ``prompts`` by ``np_random``, or ``options={"prompt": text or dict}`` of
    ``reset``.

    ## Episode End
    Terminated at an EOS token, at a ``stop`` string, and after ``max_new_tokens`` tokens; never truncated.
    ``info["completion"]``, a `reward_models.Completion`, comes with the last step only.

    ## Arguments
    * ``tokenizer``: a Hugging Face tokenizer, or its folder.
    * ``prompts``: list of strings or dicts, ``.jsonl[.gz]`` or ``.txt`` path, ``datasets.Dataset``, or
      generator function.
    * ``reward_model``: name, ``"module:attr"``, callable or object (`reward_models.make`).
    * ``max_new_tokens=48``, ``max_prompt_tokens=None`` (as long as the longest prompt),
      ``prompt_field="prompt"``.
    * ``prompts_too_long="truncate_left"``: or ``"truncate_right"``, ``"drop"``, ``"error"``
      (`text_envs.prompts.PromptSource`).
    * ``stop=()``, ``eos_token_id=None``, ``vocab_size=None``, ``allowed_tokens=None``, ``default_model=None``
      (`text_envs.task.TextTask`).
    * ``render_mode``: ``"ansi"``, ``"human"`` or ``"rgb_array"``.

    Prompts can be resumed: ``prompt_stream.state()`` is made of JSON values, and ``set_state`` continues from
    it.

    ## Version History
    * v0: first version.
    """

    metadata = METADATA
    task_class: type[TextTask] = TextTask

    def __init__(
        self,
        tokenizer: Any,
        prompts: Any,
        reward_model: Any,
        max_new_tokens: int = 48,
        max_prompt_tokens: int | None = None,
        prompt_field: str = "prompt",
        prompts_too_long: TooLong = "truncate_left",
        stop: str | Sequence[str] | None = (),
        eos_token_id: int | Sequence[int] | None = None,
        vocab_size: int | None = None,
        allowed_tokens: AllowedTokens | None = None,
        default_model: str | os.PathLike[str] | None = None,
        render_mode: str | None = None,
    ):
        self.task = self.task_class(
            tokenizer=tokenizer,
            prompts=prompts,
            reward_model=reward_model,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            prompt_field=prompt_field,
            prompts_too_long=prompts_too_long,
            stop=stop,
            eos_token_id=eos_token_id,
            vocab_size=vocab_size,
            allowed_tokens=allowed_tokens,
            default_model=default_model,
        )
        self.episodes = TextEpisodes(self.task, 1)
        self.observation_space: spaces.Dict = self.task.observation_space()  # type: ignore[assignment]
        self.action_space: spaces.Discrete = self.task.action_space()  # type: ignore[assignment]
        self.render_mode = render_mode
        self.renderer = TextRenderer(self.task, render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start from a new prompt; ``options={"prompt": str | dict}`` names it.

        Raises:
            PromptError: if the prompt cannot be used.
        """
        super().reset(seed=seed)
        self.episodes.seed(0, self.np_random)
        self.episodes.reset(self.episodes.all_rows, [(options or {}).get("prompt")])
        self.renderer.show(self.episodes, 0)
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Append one token.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset, and after the episode's end.
            gymnasium.error.InvalidAction: for an action that is no token of the vocabulary.
        """
        if not self.episodes.running[0]:
            raise gym.error.ResetNeeded(
                "No episode is running: it has ended, or never began. Call reset() first."
            )
        token = np.asarray(action).reshape(-1)  # SB3's predict on one observation returns a 0-d array
        if token.size != 1 or token.dtype.kind not in "iu" or not 0 <= token[0] < self.task.vocab_size:
            raise gym.error.InvalidAction(
                f"Action {action!r} is no token. Give one integer in {self.action_space}."
            )
        rows, completions = self.episodes.step(self.episodes.all_rows, token)
        terminated = len(rows) > 0
        reward = float(self.episodes.scores(completions)[0]) if terminated else 0.0
        info = {"completion": completions[0]} if terminated else self._info()
        self.renderer.show(self.episodes, 0, reward if terminated else None)
        return self._observation(), reward, terminated, False, info

    def _observation(self) -> Observation:
        return {name: array[0] for name, array in self.episodes.tokens.observation().items()}

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks()} if self.masks_actions else {}

    def action_masks(self) -> BoolArray:
        """The legal tokens, bool ``[V]``, as sb3-contrib asks; through wrappers: ``get_wrapper_attr``."""
        return self.episodes.action_masks()[0]

    def render(self) -> Any:
        """``ansi``: prompt and response so far; ``rgb_array``: the same as an image; ``human`` prints."""
        return self.renderer.frame(self.episodes, 0)

    @property
    def prompt_stream(self) -> Any:
        """The `PromptStream` of this environment; None before the first reset."""
        return self.episodes.streams[0]

    def vectorize(
        self,
        num_envs: int,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        defer_scores: bool = False,
    ) -> TextVectorEnv:
        """A vector environment of the same task, which is shared, not built again.

        Raises:
            TypeError: if a subclass has its own ``reset`` or ``step``, which a vector environment would not call.
        """
        for name in ("reset", "step"):
            if getattr(type(self), name) is not getattr(TextGenerationEnv, name):
                raise TypeError(
                    f"{type(self).__name__} overrides {name}(), which a vector environment would not call. Override "
                    "what the task does instead: a subclass of TextTask as task_class, its interject() for instance."
                )
        return TextVectorEnv(
            num_envs,
            task=self.task,
            autoreset_mode=autoreset_mode,
            defer_scores=defer_scores,
            render_mode=self.render_mode,
        )

    @classmethod
    def make_vec(
        cls,
        num_envs: int,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        defer_scores: bool = False,
        **kwargs: Any,
    ) -> TextVectorEnv:
        """What ``gymnasium.make_vec`` calls: ``num_envs`` of ``cls(**kwargs)``, native."""
        return cls(**kwargs).vectorize(num_envs, autoreset_mode, defer_scores)


make_vec = TextGenerationEnv.make_vec
