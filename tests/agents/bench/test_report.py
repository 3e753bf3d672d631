"""The tables and the pages, from runs whose numbers were chosen by hand."""

import json
import re
import shutil

import pytest

from agents.bench.report import write_report
from agents.bench.results import Result, Results
from agents.bench.tables import cost_table, improvement_table, score_table, tier_table
from agents.cli import main


def result(task, algorithm, seed, score, kl=None, optimum=1.0, tier="probe", updates=(), budget=100):
    """A run whose held-out answers score `score` all, 2 of them."""
    settings = dict(task=task, algorithm=algorithm, seed=seed, tier=tier, env=f"{task}-v0", budget=budget)
    head = dict(
        record="run", settings=settings, versions={"text-envs": "1", "torch": "2"}, commit="abc",
        machine={"cpu": "a", "cores": 2, "threads": 1},
    )  # fmt: skip
    final = dict(
        record="final", scores=[score, score], kl=None if kl is None else [kl, kl], lengths=[3, 5], optimum=optimum,
        tokens=budget, seconds=2.0, peak_memory_mb=300.0, gpu_memory_mb=None,
    )  # fmt: skip
    return Result(head, [dict(record="update", **row) for row in updates], final)


UPDATES = [
    {"tokens": 50, "seconds": 1.0, "score": 0.2, "kl": 0.0, "length": 4},
    {"tokens": 100, "seconds": 2.0, "score": 0.6, "kl": 8.0, "length": 4},
]


def some_results():
    """Two tasks: the start scores 0.2 and 0.0; TextPPO 0.6 and 0.5 with every seed; PPO is on Copy alone."""
    runs = []
    for seed in (1, 2, 3):
        runs += [result("Copy", "start", seed, 0.2, kl=0.0), result("Sort", "start", seed, 0.0, kl=0.0)]
        runs += [result("Copy", "TextPPO", seed, 0.6, kl=8.0, updates=UPDATES)]
        runs += [result("Sort", "TextPPO", seed, 1.0, kl=8.0, optimum=2.0, updates=UPDATES)]
        runs += [result("Copy", "PPO", seed, 0.1 * seed, updates=[u | {"kl": None} for u in UPDATES])]
    return Results(runs)


def rows(table):
    return {row[0]: row[1:] for row in table.rows}


def test_the_score_table_shows_every_seed():
    found = rows(score_table(some_results(), "Copy"))
    assert list(found) == [
        "TextPPO",
        "start (no RL)",
        "PPO",
    ]  # best first; of equals as the library lists them
    assert found["TextPPO"] == [
        "0.60 (0.60 to 0.60)",
        "0.60 (0.60 to 0.60)",
        "8.0",
        "4.0",
        "0.60  0.60  0.60",
    ]
    assert found["PPO"] == ["0.20 (0.10 to 0.30)", "0.20 (0.10 to 0.30)", "–", "4.0", "0.10  0.20  0.30"]


def test_a_tier_is_summed_up_by_normalised_scores_of_those_that_ran_on_all_its_tasks():
    """Copy: (0.6 - 0.2) / (1 - 0.2) = 0.5. Sort: (1 - 0) / (2 - 0) = 0.5."""
    found = rows(tier_table(some_results(), "probe"))
    assert found == {
        "TextPPO": ["0.50 (0.50 to 0.50)", "0.50 (0.50 to 0.50)", "–", "6"],
        "start (no RL)": ["0.00 (0.00 to 0.00)", "0.00 (0.00 to 0.00)", "0.00 (0.00 to 0.00)", "6"],
    }


def test_the_score_at_a_kl_says_where_it_was_not_reached():
    """From (0 nats, 0.2) to (8 nats, 0.6): 5 nats are passed at 0.45."""
    found = rows(cost_table(some_results(), "Copy"))
    assert found["TextPPO"] == ["0.45 (0.45 to 0.45)", "not reached", "not reached", "100", "2.0", "300"]
    assert found["PPO"][:3] == ["–", "–", "–"]
    some = Results([result("Copy", "TextPPO", s, 0.5, kl=1.0, updates=UPDATES[:s]) for s in (1, 2)])
    assert rows(cost_table(some, "Copy"))["TextPPO"][0] == "0.45 (1 of 2 seeds)"


def test_the_table_of_improvements_is_read_by_row():
    assert improvement_table(some_results(), "probe").rows == [
        ["1. TextPPO", "", "1.00*"],
        ["2. start (no RL)", "0.00*", ""],
    ]


@pytest.fixture
def folder(tmp_path):
    """A folder of results with those runs, and one that failed."""
    for run in some_results().runs:
        path = tmp_path / "runs" / run.task / run.algorithm / f"{run.seed}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, [run.head, *run.updates, run.final])) + "\n")
    failed = tmp_path / "runs" / "Copy" / "DQN" / "1.error"
    failed.parent.mkdir()
    failed.write_text("Traceback")
    return tmp_path


def test_the_page_and_the_leaderboard_hold_all_tables(folder):
    page, board = write_report(folder)
    html, text = page.read_text(), board.read_text()
    for shown in (re.sub("<[^>]*>", "", html), text):
        assert "Copy, DQN, seed 1" in shown and "0.45 (0.45 to 0.45)" in shown
        assert "did not run on all of these tasks: PPO" in shown
    assert "<script" not in html and not re.search(r'(src|href)="http', html)
    assert (
        html.count("<svg") == 3 + 2 * 2 + 2 + 1
    )  # of the tier; seeds and KL of both tasks; curves of 2 + 1 families
    assert "| TextPPO | 0.60 (0.60 to 0.60) |" in text
    for name in re.findall(r"\(figures/(.*?)\)", text):
        assert (folder / "figures" / name).read_text().startswith("<?xml")


def test_tuning_is_shown_apart(folder):
    shown = Results.read(folder).tasks()
    tuned = result("Tuned", "start", 0, 0.0, kl=0.0)
    tuned.head["settings"]["tuning"] = True
    path = folder / "runs" / "Tuned" / "start" / "0.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(map(json.dumps, [tuned.head, tuned.final])))
    assert Results.read(folder).tasks() == shown == ["Copy", "Sort"]
    shutil.rmtree(folder / "runs" / "Copy")
    shutil.rmtree(folder / "runs" / "Sort")
    assert "Made with --tuning" in write_report(folder)[1].read_text()


def test_the_same_runs_give_the_same_files(folder):
    shutil.rmtree(folder / "runs" / "Sort")  # one task is enough
    before = [path.read_bytes() for path in write_report(folder)]
    assert [path.read_bytes() for path in write_report(folder)] == before


def test_a_folder_without_runs_and_a_damaged_run_are_said(folder, tmp_path, capfd):
    assert main(["bench", "report", str(tmp_path / "nothing")]) == 2
    assert "There are no runs in" in capfd.readouterr().err
    path = folder / "runs" / "Copy" / "PPO" / "1.jsonl"
    path.write_text(path.read_text().splitlines()[0])
    assert main(["bench", "report", str(folder)]) == 2
    assert f"{path} is no complete run" in capfd.readouterr().err


def test_a_task_whose_start_is_at_the_optimum_is_left_out_of_the_sums(tmp_path):
    runs = [result("Easy", "start", s, 1.0, kl=0.0) for s in (1, 2, 3)]
    results = Results([*some_results().runs, *runs])
    assert results.comparable("probe") == ["Copy", "Sort"]
    assert list(rows(tier_table(results, "probe"))) == ["TextPPO", "start (no RL)"]
