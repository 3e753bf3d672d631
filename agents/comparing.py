"""Stage 2b: a round's answers go into the feedback store, raters compare them, and all that was said so far comes out."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.settings import FeedbackSettings
from agents.stages import Pace, Stopped
from reward_models import Completion, RewardModel
from reward_models.preferences import Origin
from reward_models.preferences.entries import Sample
from reward_models.preferences.raters import SimulatedRater
from reward_models.preferences.store import FeedbackStore

CHUNK = 256  # votes of a simulated rater between two looks at whether to stop


@dataclass
class Comparing:
    """A round of comparing.

    Attributes:
        store: where everything stays.
        settings: who compares, what, how often.
        judge: what a simulated rater prefers.
        seed: of the pairing and of a simulated rater.
        uncertainty: disagreement about the pairs of a prompt, for pairing "uncertain"; None: pairs are drawn at random.
        should_stop: asked while votes come in.
    """

    store: FeedbackStore
    settings: FeedbackSettings
    judge: RewardModel | None
    seed: int
    uncertainty: Callable[..., Any] | None
    should_stop: Callable[[], bool]
    say: Console

    def request(self, answers: Sequence[Sequence[Completion]], origin: Origin) -> list[int]:
        """Store the answers, shape [prompts][K], and ask for their comparison. Asking again changes nothing.

        Returns:
            Ids of the items.
        """
        settings, k = self.settings, len(answers[0])
        samples = self.store.add_samples(
            Sample(one.prompt, one.response, origin, dict(one.columns))
            for of_prompt in answers
            for one in of_prompt
        )
        if settings.kind == "ranking":
            return self.store.request_rankings(k=k, overlap=settings.overlap, samples=samples, seed=self.seed)
        pairing = settings.pairing
        if pairing == "uncertain" and self.uncertainty is None:
            pairing = "random"  # in the first round nothing disagrees yet
        return self.store.request_comparisons(
            overlap=settings.overlap,
            pairing=pairing,
            n=len(answers) if k > 2 and pairing != "all" else None,
            samples=samples,
            seed=self.seed,
            uncertainty=self.uncertainty,
        )

    def collect(self, items: Sequence[int]) -> int:
        """Let the items be rated, until there are as many votes as the settings ask for.

        Returns:
            Votes on these items.

        Raises:
            Stopped: `should_stop` said so; every vote is in the store.
        """
        asked, wanted = set(items), len(items) * self.settings.overlap
        if self.settings.votes is not None:
            wanted = min(wanted, self.settings.votes)
        there = sum(vote.item in asked for vote in self.store.votes(current=True))
        others = self.store.progress().votes - there
        if there < wanted:
            rate = {"simulated": self._simulate, "terminal": self._ask_here, "web": self._ask_on_page}
            rate[self.settings.rater](wanted, others)
        there = self.store.progress().votes - others
        if there < wanted:
            raise Stopped
        return there

    def _simulate(self, wanted: int, others: int) -> None:
        assert self.judge is not None
        settings = self.settings
        raters = [
            SimulatedRater(
                self.judge,
                settings.temperature,
                settings.flip,
                settings.tie_band,
                seed=self.seed,
                name=f"simulated-{i}",
            )
            for i in range(settings.overlap)
        ]
        there = self.store.progress().votes - others
        tell = Pace(self.say, "votes", wanted, there)
        while there < wanted and not self.should_stop():
            if not sum(rater.rate(self.store, min(CHUNK, wanted - there)) for rater in raters):
                break
            there = self.store.progress().votes - others
            tell(there)

    def _ask_here(self, wanted: int, others: int) -> None:
        from reward_models.preferences.terminal import TerminalRater

        rater = TerminalRater(self.say, read_line=self._read_line)
        rater.rate(self.store, wanted + others - self.store.progress().votes)

    def _read_line(self, prompt: str) -> str:
        """What the person types. KeyboardInterrupt, by which the rater leaves, at the first signal."""
        with raising_on_signals():
            if self.should_stop():
                raise KeyboardInterrupt
            return input(prompt)

    def _ask_on_page(self, wanted: int, others: int) -> None:
        there = self.store.progress().votes - others
        with rating_page(self.store, self.settings.host, self.settings.port) as address:
            self.say.print(
                f"Rate at {address} ({there} of {wanted} votes are in; the organiser's page is {address}organiser). "
                "Ctrl-C stops; the next run goes on, and no vote is lost."
            )
            if self.say.is_terminal:
                open_browser(address)
            while there < wanted and not self.should_stop():
                now = self.store.wait(others + there + 1, timeout=5.0, should_stop=self.should_stop) - others
                if now > there:
                    there = now
                    self.say.print(f"{there} of {wanted} votes", highlight=False)


@contextmanager
def raising_on_signals() -> Iterator[None]:
    """While the block runs, Ctrl-C and SIGTERM raise KeyboardInterrupt, besides what else they do."""

    def handle(number: int, frame: Any) -> None:
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_browser(address: str) -> None:
    """Open the page where there is a desktop; elsewhere, over ssh say, its printed address must do."""
    if sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        webbrowser.open(address)


@contextmanager
def rating_page(store: FeedbackStore, host: str, port: int) -> Iterator[str]:
    """Serve the rating page from a thread while the block runs; yields its address.

    Raises:
        OSError: the port is taken. ImportError: the extra [feedback] is not installed.
    """
    import uvicorn

    from agents.feedback_serve import listen
    from reward_models.preferences.server import create_app

    with listen(host, port) as listener:
        config = uvicorn.Config(
            create_app(store), access_log=False, log_level="warning", server_header=False,
            timeout_graceful_shutdown=1,  # a browser that is in the middle of something is not waited for
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="rating page"
        )
        thread.start()
        try:
            yield f"http://{host}:{listener.getsockname()[1]}/"
        finally:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # not what it breaks off
            server.should_exit = True
            thread.join(10)


def export(store: FeedbackStore, path: Path) -> int:
    """Write all comparisons and rankings so far, with who made them and where the answers came from; returns how many."""
    from reward_models.preferences.formats import write

    return write(path, [*store.comparisons(), *store.rankings()], format="full").rows
