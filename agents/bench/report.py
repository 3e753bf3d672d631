"""LEADERBOARD.md and leaderboard.html, made from the files of the runs alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.bench import figures, tables
from agents.bench.results import Results, label
from agents.bench.statistics import interval
from agents.runs import clock
from reward_models.files import replacing
from reward_models.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.bench.tables import Table

METHOD = (
    "All algorithms of a task generate the same number of tokens in training; a rollout that has begun is finished. Then "
    "each answers the same held-out prompts once, sampled at temperature 1 from the whole vocabulary; algorithms that learn "
    "values take their best token. Settings were chosen with other seeds than those shown. Baselines learn nothing by "
    "reward: random tokens; the start, the model from which all language models begin (fine-tuned on demonstrations where "
    "the task has some, else small and random); the best of n of its answers, an unbiased estimate."
)
COLOURS = (
    "95 % intervals. Blue: a language model learns; orange: stock algorithms on token features; grey: no RL."
)


def write_report(folder: Path) -> list[Path]:
    """Write leaderboard.html, LEADERBOARD.md and its figures into the folder of results; returns the two files.

    Raises:
        ValueError: there are no runs, or a file is damaged.
    """
    results = Results.read(folder)
    page = Board(folder, results)
    for tier in results.tiers:
        page.tier(tier)
    page.setup()
    return page.write()


class Board:
    """The page and the Markdown file, put together side by side."""

    def __init__(self, folder: Path, results: Results):
        self.folder, self.results = folder, results
        versions = results.runs[-1].head["versions"]
        subtitle = (
            f"{len(results.algorithms())} algorithms and baselines, {len(results.tasks())} tasks, {len(results.runs)} runs; "
            f"text-envs {versions['text-envs']}, torch {versions['torch']}"
        )
        self.page = Report("Leaderboard", subtitle)
        self.lines = ["# Leaderboard", "", subtitle + ".", ""]
        self.text(METHOD)
        self.page.facts(dict(self.best(tier) for tier in results.tiers if results.complete(tier)))
        if any(run.head["settings"].get("tuning") for run in results.runs):
            self.warning(
                "Made with --tuning: other seeds, training prompts. For choosing settings, not for comparing."
            )
        seeds = {(run.task, run.algorithm): len(results.of(run.task, run.algorithm)) for run in results.runs}
        if min(seeds.values()) < 3:
            self.warning("Of some algorithms there are fewer than three runs: their intervals say little.")
        if results.failed:
            self.warning(
                f"{len(results.failed)} runs failed and are in no table: {'; '.join(results.failed)}."
            )

    def best(self, tier: str) -> tuple[str, tuple[str, str]]:
        """The best algorithm of a tier, its IQM and interval."""
        name = self.results.complete(tier)[0]
        found = interval(self.results.matrix(tier, name))
        return f"Best on {tier}", (label(name), f"normalised IQM {tables.shown(found)}")

    def tier(self, tier: str) -> None:
        """Its tasks together, then one by one."""
        results, tasks = self.results, self.results.comparable(tier)
        left_out = [task for task in results.tasks(tier) if task not in tasks]
        if left_out:
            self.warning(
                f"{', '.join(left_out)}: the start is at the optimum, or was not run; left out of the sums."
            )
        names = results.complete(tier)
        if len(tasks) > 1 and names:
            self.heading(f"Tier {tier}: {', '.join(tasks)}")
            incomplete = [
                n for n in results.algorithms() if n not in names and any(results.of(t, n) for t in tasks)
            ]
            if incomplete:
                self.text(
                    f"Not summed up, for they did not run on all of these tasks: {', '.join(incomplete)}."
                )
            self.table(tables.tier_table(results, tier))
            self.figure(
                figures.tier_intervals(results, tier),
                f"{tier}-intervals",
                COLOURS,
            )
            if any(results.family(name) != "baseline" for name in names):
                caption = "Performance profiles: further up and to the right is better. Bands: 95 %."
                self.figure(figures.tier_profiles(results, tier), f"{tier}-profiles", caption)
            if len(names) > 1:
                caption = "Probability of improvement, 95 % intervals. Right of the dashed line is better."
                self.figure(figures.tier_improvement(results, tier), f"{tier}-improvement", caption)
                self.table(tables.improvement_table(results, tier))
        for task in results.tasks(tier):
            self.task(task)

    def task(self, task: str) -> None:
        """Its tables and figures."""
        results = self.results
        settings = results.of(task, results.algorithms(task)[0])[0].head["settings"]
        self.heading(task)
        self.text(f"{settings['env']}, {settings['budget']:,} generated tokens for each run.")
        self.table(tables.score_table(results, task))
        caption = "Every seed is a dot; the stroke is the IQM, the bar its interval; the dashed line is the optimum."
        self.figure(figures.seeds(results, task), f"{task}-seeds", caption)
        if any(results.family(name) != "baseline" for name in results.algorithms(task)):
            self.table(tables.cost_table(results, task))
        for family, words in figures.FAMILIES.items():
            caption = f"Mean over seeds with 95 % interval: {words}."
            self.figure(
                figures.curves(results, task, family), f"{task}-{family}", caption, also_markdown=False
            )
        caption = (
            "A line for each seed: what the KL bought. Diamonds: best-of-n, at the KL that it has in theory."
        )
        self.figure(figures.score_against_kl(results, task), f"{task}-kl", caption, also_markdown=False)

    def setup(self) -> None:
        """What was run, where."""
        self.heading("What was run")
        runs = self.results.runs
        facts = {
            "seeds": ", ".join(str(seed) for seed in sorted({run.seed for run in runs})),
            "commit": _all(str(run.head["commit"])[:10] for run in runs),
            "machine": _all(
                f"{m['cpu']}, {m['cores']} cores, {m['threads']} thread"
                for m in (r.head["machine"] for r in runs)
            ),
            "versions": _all(
                ", ".join(f"{k} {v}" for k, v in run.head["versions"].items() if v) for run in runs
            ),
            "training, all runs": clock(sum(run.final["seconds"] for run in runs)),
        }
        self.table(
            tables.Table(
                ["What", ""], [[key, value] for key, value in facts.items()], "Settings: settings.yaml."
            )
        )

    def heading(self, text: str) -> None:
        self.page.heading(text)
        self.lines += [f"## {text}", ""]

    def text(self, text: str) -> None:
        self.page.text(text)
        self.lines += [text, ""]

    def warning(self, text: str) -> None:
        self.page.warning(text)
        self.lines += [f"> {text}", ""]

    def table(self, table: Table) -> None:
        self.page.table(table.headings, table.rows, table.caption)
        self.lines += [table.markdown()]

    def figure(self, figure: Figure | None, name: str, caption: str, also_markdown: bool = True) -> None:
        if figure is None:
            return
        self.page.figure(figure, caption)
        if also_markdown:
            path = self.folder / "figures" / f"{name}.svg"
            path.parent.mkdir(exist_ok=True)
            save(figure, path)
            self.lines += [f"![{caption}](figures/{path.name})", ""]

    def write(self) -> list[Path]:
        """Both files."""
        page, board = self.folder / "leaderboard.html", self.folder / "LEADERBOARD.md"
        self.page.write(page)
        with replacing(board) as file:
            file.write("\n".join(self.lines).encode())
        return [page, board]


def save(figure: Figure, path: Path) -> None:
    """A figure as a file of its own, on white; the same figure gives the same bytes."""
    import matplotlib

    with (
        matplotlib.rc_context({"svg.hashsalt": "text-envs", "svg.fonttype": "none"}),
        replacing(path) as file,
    ):
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})


def _all(values: Any) -> str:
    return "; ".join(sorted({str(value) for value in values}))
