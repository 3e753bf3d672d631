"""The sets of real preferences: comparisons by set, and the rankings of the one that has them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reward_models.preferences import Comparison
from reward_models.preferences.formats import read


@dataclass(frozen=True)
class PreferenceSet:
    """One set, and what is asked of a model on it.

    Attributes:
        name: its folder under `preferences/`.
        bar: accuracy may not be below the bag of words' by more than this; None: it is only reported.
        ranked: its pairs come from rankings, and are learned as rankings too.
    """

    name: str
    bar: float | None = None
    ranked: bool = False


SETS = {
    item.name: item
    for item in (
        PreferenceSet("truthfulqa_pairs", bar=0.03),
        PreferenceSet("nlg_emnlp17_pairs", bar=0.03),
        PreferenceSet("hh_rlhf_harmless", bar=0.03),
        PreferenceSet("ukp_convarg", bar=0.03),
        PreferenceSet("hhh_alignment"),
        PreferenceSet("llmbar"),
        PreferenceSet("mt_bench_human"),
        PreferenceSet("oasst_trees100", ranked=True),
        PreferenceSet("squality_human_eval"),
        PreferenceSet("pandalm_human"),
        PreferenceSet("qa_feedback"),
    )
}


def load(data: Path, name: str) -> list[Comparison]:
    """A set's comparisons, ties included; where votes are counted, one for each vote.

    Raises:
        FileNotFoundError: no such set in the folder.
    """
    files = sorted((data / "preferences" / name).glob("*.jsonl.gz"))
    if not files:
        raise FileNotFoundError(
            f"{data / 'preferences' / name} holds no .jsonl.gz. Set TEXT_ENVS_DATA or give --data."
        )
    records = [record for path in files for record in read(path).records if isinstance(record, Comparison)]
    return [vote for record in records for vote in _votes(record)]


def _votes(record: Comparison) -> Sequence[Comparison]:
    """The raters' votes that a majority was made of, under the raters' numbers; the record where they were not counted."""
    counted = [record.columns.get(f"votes_{side}") for side in ("chosen", "rejected", "tie")]
    if None in counted:
        return [record]
    choices = [choice for n, choice in zip(counted, ("left", "right", "tie")) for _ in range(n)]
    return [replace(record, choice=choice, rater=f"rater {i}") for i, choice in enumerate(choices, 1)]
