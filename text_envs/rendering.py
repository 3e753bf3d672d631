"""Episodes as text and as images: the render modes ``ansi``, ``human`` and ``rgb_array``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from text_envs.episodes import TextEpisodes
    from text_envs.task import TextTask

METADATA: dict[str, Any] = {"render_modes": ["ansi", "human", "rgb_array"], "render_fps": 10}
WIDTH, HEIGHT, COLUMNS, LINE = 640, 400, 88, 14  # pixels, pixels, characters, pixels


class TextRenderer:
    """Shows the rows of a `TextEpisodes` in one render mode.

    Raises:
        ValueError: for an unknown render mode.
    """

    def __init__(self, task: TextTask, render_mode: str | None):
        if render_mode is not None and render_mode not in METADATA["render_modes"]:
            raise ValueError(
                f"render_mode={render_mode!r} is not known. Use one of {METADATA['render_modes']}."
            )
        self.task, self.render_mode = task, render_mode

    def text(self, episodes: TextEpisodes, row: int) -> str:
        """The prompt, a bar, and the response so far."""
        prompt = episodes.prompts[row]
        if prompt is None:
            raise gym.error.ResetNeeded("There is nothing to render yet. Call reset() first.")
        return f"{prompt.text} ▏{self.task.decode([episodes.tokens.response(row)])[0]}"

    def frame(self, episodes: TextEpisodes, row: int) -> str | npt.NDArray[np.uint8] | None:
        """What ``render()`` returns for one row: a string, an image uint8 ``[400, 640, 3]``, or None."""
        if self.render_mode is None:
            gym.logger.warn("render() was called, but no render_mode was given at construction.")
        if self.render_mode in (None, "human"):
            return None
        text = self.text(episodes, row)
        return text if self.render_mode == "ansi" else image_of(text)

    def show(self, episodes: TextEpisodes, row: int, score: float | None = None) -> None:
        """In ``human`` mode, print how the row stands; after its last token also its score."""
        if self.render_mode == "human":
            end = "" if score is None else f"\n{score:+.4g}\n"
            print(f"\r{self.text(episodes, row)}", end=end, flush=True)


def image_of(text: str) -> npt.NDArray[np.uint8]:
    """Text as black on white, its last lines where it is longer than the image, uint8 ``[400, 640, 3]``."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise gym.error.DependencyNotInstalled("rgb_array draws with Pillow: pip install pillow") from error
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, COLUMNS) or [""]]
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines[-(HEIGHT // LINE - 1) :]):
        draw.text((8, 6 + LINE * number), line, fill="black")
    return np.asarray(image).copy()
