"""The memory benchmark: all its cases on a few tokens, and the arithmetic of its tables."""

import json

import pytest
import torch
from transformers import GPT2Config

from agents import memory
from benchmarks.memory import cases
from benchmarks.memory.cases import CASES
from benchmarks.memory.measure import differences
from benchmarks.memory.report import failures, shares, write


@pytest.fixture
def few_tokens(monkeypatch):
    small = GPT2Config(
        vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=12, bos_token_id=0, eos_token_id=0
    )
    sizes = dict(TOKENS=9, HIDDEN=24, VOCABULARY=30, EPISODES=3, PROMPT=2, RESPONSE=(2, 6), SMALL=small)
    for name, size in sizes.items():
        monkeypatch.setattr(cases, name, size)
    monkeypatch.setattr(memory, "LOGITS_AT_ONCE", 0)
    monkeypatch.setattr(memory, "LOGITS_PER_CHUNK", 100)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.plain is not None])
def test_each_way_gives_the_gradients_of_the_plain_one(name, few_tokens):
    case = CASES[name]
    found, plain = case.prepare()(), CASES[case.plain].prepare()()
    assert bool(found) == ("no gradients" not in name)
    if found:
        assert all(tensor.abs().max() > 0 for key, tensor in plain.items() if "value_head" not in key)
        assert differences(found, plain)["difference"] < 1e-6


def test_differences_are_the_largest_ones():
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([10.0])}
    other = {"a": torch.tensor([1.0, 4.0]), "b": torch.tensor([13.0])}
    assert differences(one, other) == pytest.approx({"difference": 3.0, "relative_difference": 2 / 4})


def row(case, peak, plain=None, at_most=None, difference=None):
    return {
        "case": case, "table": "A table.", "plain": plain, "at_most": at_most, "peak_bytes": peak, "seconds": 1.0,
        "difference": difference, "relative_difference": difference,
    }  # fmt: skip


def test_shares_are_of_the_plain_way_and_a_missed_bar_is_told(tmp_path):
    rows = [row("plain", 8e6), row("half", 4e6, "plain", 0.35, 1e-8), row("wrong", 2e6, "plain", None, 1e-3)]
    assert shares(rows) == {"half": 0.5, "wrong": 0.25}
    assert failures(rows) == [
        "half: 0.50 of the plain way, more than 0.35",
        "wrong: gradients differ by 1.0e-03",
    ]
    write(rows, {"cpu": "An abacus", "threads": 1, "load_average": [0.5]}, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["results"][1]["peak_bytes"] == 4e6
    assert (
        "| half | 4 | 0.50 (at most 0.35) | 1.0 | 1.0e-08 | 1.0e-08 |"
        in (tmp_path / "results.md").read_text()
    )
