"""What `evaluation.evaluate` found, as a page to read."""

from __future__ import annotations

from reward_models.evaluation import Evaluation, Share
from reward_models.report import Answer, Report, ink, new_figure

SHOWN = 20  # disagreements


def add_evaluation(report: Report, found: Evaluation) -> None:
    """Put the figures, the reliability diagram, score against length, and the worst disagreements on a page."""
    report.facts(
        {
            "Accuracy": _share(found.accuracy),
            **(
                {"Raters agree with one another": _share(found.rater_agreement)}
                if found.rater_agreement
                else {}
            ),
            "The longer one wins": _share(found.longer_wins),
            **({"A bag of words": _share(found.bag_of_words)} if found.bag_of_words else {}),
            "Log-loss, nats": (f"{found.log_loss:.3f}", "0.693 knows nothing"),
            "Calibration error": f"{found.ece:.3f}",
        }
    )
    for warning in warnings(found):
        report.warning(warning)
    rows = [
        ["Votes with a winner", f"{found.votes:,}"],
        ["Ties and both bad", f"{found.ties:,}"],
        ["Skipped or unranked", f"{found.unjudged:,}"],
        ["Prompts", f"{found.prompts:,}"],
        ["Score against length, Spearman's correlation", f"{found.length_correlation:.2f}"],
    ]
    for label, share in (
        ("Accuracy where raters prefer the longer", found.accuracy_longer_preferred),
        ("Accuracy where raters prefer the shorter", found.accuracy_shorter_preferred),
    ):
        if share is not None:
            rows.append([label, f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"])
    report.table(["Measure", "Value"], rows)
    _reliability(report, found)
    _lengths(report, found)
    if found.disagreements:
        report.heading("Where it disagrees most")
        report.samples(
            [
                (
                    worst.prompt,
                    [
                        Answer(worst.chosen, "Preferred by the rater", f"{worst.chosen_score:.2f}"),
                        Answer(worst.rejected, "Preferred by the model", f"{worst.rejected_score:.2f}"),
                    ],
                )
                for worst in found.disagreements[:SHOWN]
            ],
            "The pairs on which the model is surest, and the rater said otherwise. Read them: who is right?",
        )


def warnings(found: Evaluation) -> list[str]:
    """What a reader should not miss."""
    said = []
    if found.shared_prompts:
        said.append(f"{found.shared_prompts} prompts were trained on, too: the accuracy may be too good.")
    if found.accuracy.low <= 0.5:
        said.append(
            "The accuracy may be chance: its interval reaches 50 %. Collect more preferences, or train longer."
        )
    if found.ceiling is not None and found.accuracy.low > found.ceiling:
        said.append(
            f"The accuracy is above {found.ceiling:.0%}, which a judge who is always right would reach with these raters. "
            "Look for answers that give themselves away, or prompts that were trained on."
        )
    for name, baseline in (
        ("the longer one wins", found.longer_wins),
        ("a bag of words", found.bag_of_words),
    ):
        if baseline is not None and baseline.value >= found.accuracy.value:
            said.append(
                f"The baseline “{name}” is as good: {baseline.value:.0%}. The model learned no more than that."
            )
    return said


def _share(share: Share) -> tuple[str, str]:
    return f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}"


def _reliability(report: Report, found: Evaluation) -> None:
    report.heading("How sure, how right")
    with new_figure(4.6, 3.6) as (figure, axes):
        axes.plot([0.5, 1], [0.5, 1], **ink())
        bins = found.reliability
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o-")
        axes.set_xlabel("predicted chance of the preferred answer")
        axes.set_ylabel("how often it was preferred")
        report.figure(
            figure,
            "A well calibrated model lies on the dashed line; above it, it is too modest; below, too sure.",
        )


def _lengths(report: Report, found: Evaluation) -> None:
    report.heading("Score against length")
    with new_figure() as (figure, axes):
        for wanted, label in ((True, "preferred"), (False, "rejected")):
            points = [(length, value) for length, value, preferred in found.points if preferred is wanted][
                :2000
            ]
            if points:
                axes.scatter(*zip(*points), s=9, alpha=0.5, linewidths=0, label=label)
        axes.set_xlabel("characters")
        axes.set_ylabel("score")
        axes.legend()
        report.figure(figure, "A score that rises with length alone is a length counter.")
