"""One trial: raters at a server that nobody disturbs, which gives the latency; then at one that is killed again and again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.feedback.audit import audit
from benchmarks.feedback.crowd import Crowd, Work
from benchmarks.feedback.serving import Server
from reward_models.preferences.entries import Sample
from reward_models.preferences.records import Origin
from reward_models.preferences.store import FeedbackStore

OVERLAP = 2


def ask(store: FeedbackStore, n_votes: int) -> None:
    """Ask for `n_votes` comparisons, each pair seen by two raters."""
    origin = Origin("0" * 64, {"temperature": 1.0}, 0)
    text = (
        "An answer of the length that a small model writes, so that pages and rows have a size one meets. "
        * 2
    )
    store.add_samples(
        Sample(f"Question {i}: what do you make of it?", f"{side} {i}. {text}", origin)
        for i in range(n_votes // OVERLAP)
        for side in ("First", "Second")
    )
    store.request_comparisons(overlap=OVERLAP)


def undisturbed(db: str, n_votes: int, n_raters: int, log: Path, think: float = 0.0) -> dict[str, Any]:
    """Latency of votes, and how many a second."""
    with FeedbackStore(db) as store:
        ask(store, n_votes)
        with Server(db, log) as server:
            start = time.perf_counter()
            work = Crowd(server.url, n_raters, think).run()
            seconds = time.perf_counter() - start
        return _counts(store, work, n_votes) | {
            "think_seconds": think,
            "seconds": round(seconds, 2),
            "votes_per_second": round(len(work.seconds) / seconds, 1),
            **_latency(work),
        }


def killed(db: str, n_votes: int, n_raters: int, n_kills: int, log: Path) -> dict[str, Any]:
    """What is lost when the server is killed at `n_kills` moments, evenly spread over the votes, and started again."""
    with FeedbackStore(db) as store:
        ask(store, n_votes)
        with Server(db, log) as server:

            def kill(crowd: Crowd) -> None:
                for number in range(1, n_kills + 1):
                    while crowd.counted < number * n_votes / (n_kills + 1) and not crowd.errors:
                        time.sleep(0.002)
                    server.kill()
                    server.start()

            start = time.perf_counter()
            work = Crowd(server.url, n_raters).run(meanwhile=kill)
            seconds = time.perf_counter() - start
        return _counts(store, work, n_votes) | {"kills": n_kills, "seconds": round(seconds, 2)}


def _counts(store: FeedbackStore, work: Work, n_votes: int) -> dict[str, Any]:
    return {
        "votes_asked_for": n_votes,
        "votes_acknowledged": len(work.acknowledged),
        "undos_acknowledged": len(work.undone),
        "votes_that_count": store.progress().votes,
        **audit(store, work.acknowledged, work.undone),
    }


def _latency(work: Work) -> dict[str, float]:
    """Of a vote, from sending to the confirmation, in milliseconds."""
    p50, p99 = np.percentile(work.seconds, [50, 99]) * 1000
    return {
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "max_ms": round(max(work.seconds) * 1000, 1),
    }
