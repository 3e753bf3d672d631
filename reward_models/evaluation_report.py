"""What `evaluation.evaluate` found, as a page to read: from the figure that matters most to the texts behind it."""

from __future__ import annotations

import numpy as np

from reward_models.evaluation import BINS, Evaluation, Share
from reward_models.report import PALETTE, Answer, Report, ink, new_figure

MOST_POINTS = 1500  # of the scatter plot: more say nothing more, and weigh


def add_evaluation(report: Report, found: Evaluation) -> None:
    """Put accuracy beside raters and baselines, the reliability diagram, score against length, and the worst
    disagreements on a page."""
    agreement = found.rater_agreement
    report.facts(
        {
            "Accuracy": (f"{found.accuracy.value:.1%}", _interval(found.accuracy)),
            "Two raters agree": (
                (f"{agreement.value:.1%}", _interval(agreement))
                if agreement
                else ("–", "no pair has two raters")
            ),
            "Log-loss, nats": (f"{found.log_loss:.3f}", "0.693 knows nothing"),
            "Calibration error": (f"{found.ece:.3f}", f"expected, {BINS} bins"),
        }
    )
    report.text(
        f"Measured on {_count(found.votes, 'vote')} on {_count(found.prompts, 'prompt')}. Left out: "
        f"{_count(found.ties, 'tie')}, and {found.unjudged:,} without a judgement."
    )
    for warning in warnings(found):
        report.warning(warning)
    _accuracy(report, found)
    _reliability(report, found)
    _lengths(report, found)
    _disagreements(report, found)


def warnings(found: Evaluation) -> list[str]:
    """What a reader should not miss."""
    said = []
    if found.shared_prompts:
        said.append(
            f"{_count(found.shared_prompts, 'prompt')} of {found.prompts:,} were trained on, too: what is measured is partly "
            "memory. Split by prompt."
        )
    if found.accuracy.low <= 0.5:
        said.append(
            "The accuracy may be chance: its interval reaches 50 %. Collect more preferences, or train longer."
        )
    if found.ceiling is not None and found.accuracy.low > found.ceiling:
        said.append(
            f"The accuracy is above {found.ceiling:.0%}, what a judge who is always right would reach with these raters. "
            "Look for answers that give themselves away, or prompts that were trained on."
        )
    for name, baseline in (
        ("the longer one wins", found.longer_wins),
        ("a bag of words", found.bag_of_words),
    ):
        if baseline is not None and baseline.value >= found.accuracy.value:
            said.append(
                f"The baseline “{name}” is as good: {baseline.value:.1%}. The model shows no more than that."
            )
    return said


def _accuracy(report: Report, found: Evaluation) -> None:
    report.heading("Accuracy")
    report.text(
        "How often the preferred answer has the higher score. The lines are 95 % intervals; votes on one prompt count as "
        "partly the same vote. What the model adds is what it has over the baselines; what it can reach is bounded by "
        "how well people agree."
    )
    judges = {
        "this model": found.accuracy,
        "a bag of words": found.bag_of_words,
        "the longer one wins": found.longer_wins,
        "two raters agree": found.rater_agreement,
    }
    measured = {name: share for name, share in judges.items() if share is not None}
    with new_figure(5.6, 0.75 + 0.42 * len(measured)) as (figure, axes):
        for place, share in enumerate(reversed(measured.values())):
            own = share is found.accuracy
            colour = PALETTE[0] if own else PALETTE[5]
            axes.plot([share.low, share.high], [place, place], color=colour, linewidth=2.5)
            axes.plot(share.value, place, "o", color=colour, markersize=9 if own else 7)
        axes.axvline(0.5, **ink())
        axes.set_yticks(range(len(measured)), reversed(measured))
        axes.set_ylim(-0.6, len(measured) - 0.4)
        axes.set_xlim(min(0.45, *(share.low - 0.02 for share in measured.values())), 1.0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of votes; 0.5 is a coin")
    report.figure(figure)
    rows = [
        [name, f"{share.value:.1%}", _interval(share), f"{share.n:,}"] for name, share in measured.items()
    ]
    report.table(["judge", "accuracy", "95 % interval", "votes or pairs"], rows)
    if found.bag_of_words is None:
        report.text(
            "The bag of words is missing: it learns from the training preferences, and none were given."
        )
    if found.ceiling is not None:
        report.text(
            f"A judge who is always right would agree with {found.ceiling:.1%} of these raters' votes, if each of them slips "
            "as often as the others and on his own."
        )


def _reliability(report: Report, found: Evaluation) -> None:
    report.heading("How sure, how right")
    report.text(
        "A difference d of two scores claims that the higher one is preferred with the chance 1 / (1 + exp(-d)). On the "
        "dashed line that is true; above it the model is too modest, below it too sure. The bars show how many "
        "pairs there are."
    )
    bins, width = found.reliability, 0.5 / BINS
    most = max(b.n for b in bins)
    with new_figure(5.6, 3.6) as (figure, axes):
        left = [0.5 + width * min(int((b.confidence - 0.5) / width), BINS - 1) for b in bins]
        heights = [0.25 * b.n / most for b in bins]
        axes.bar(left, heights, width * 0.9, align="edge", color=PALETTE[5], alpha=0.35)
        axes.plot([0.5, 1], [0.5, 1], **ink())
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], marker="o", color=PALETTE[0])
        axes.set(xlim=(0.49, 1.01), ylim=(0, 1.03))
        axes.set(xlabel="chance that the model gives its own choice", ylabel="share that it gets right")
    report.figure(figure)


def _lengths(report: Report, found: Evaluation) -> None:
    report.heading("Score against length")
    longer, shorter = found.accuracy_longer_preferred, found.accuracy_shorter_preferred
    said = [f"Spearman's correlation of score and length is {found.length_correlation:.2f}."]
    if longer and shorter:
        said.append(
            f"Where raters prefer the longer answer the model agrees in {longer.value:.1%} of {_count(longer.n, 'vote')}, "
            f"where they prefer the shorter in {shorter.value:.1%} of {shorter.n:,}."
        )
    report.text(" ".join(said))
    points = found.points
    if len(points) > MOST_POINTS:
        points = [points[i] for i in np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)]
    with new_figure(5.6, 3.6) as (figure, axes):
        for wanted, label, colour in ((False, "rejected", PALETTE[1]), (True, "preferred", PALETTE[0])):
            of_kind = np.array([(x, y) for x, y, preferred in points if preferred is wanted]).reshape(-1, 2)
            axes.scatter(*of_kind.T, s=14, alpha=0.45, linewidths=0, color=colour, label=label)
        axes.set(xlabel="characters", ylabel="score")
        axes.legend(markerscale=1.6)
    report.figure(figure)


def _disagreements(report: Report, found: Evaluation) -> None:
    report.heading("Where it disagrees most")
    if not found.disagreements:
        report.text("Nowhere: every preferred answer has the higher score.")
        return
    report.samples(
        [
            (
                worst.prompt,
                [
                    Answer(
                        worst.chosen,
                        f"{worst.rater or 'the rater'} prefers",
                        f"score {worst.chosen_score:.2f}",
                    ),
                    Answer(worst.rejected, "the model prefers", f"score {worst.rejected_score:.2f}"),
                    *([Answer(worst.reason, "reason given")] if worst.reason else []),
                ],
            )
            for worst in found.disagreements
        ],
        "The pairs on which the model is surest, and the rater said otherwise. Read them: who is right?",
    )


def _interval(share: Share) -> str:
    return f"{share.low:.1%} to {share.high:.1%}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
