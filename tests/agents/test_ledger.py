"""The ledger: what is done is not done again, and what it was made from is held to."""

import pytest

from agents.ledger import Ledger, LedgerError, differences, fingerprint


def test_a_finished_stage_is_not_run_again(tmp_path):
    calls = []

    def work(folder):
        calls.append(folder)
        return {"loss": 0.5}

    for _ in range(2):
        assert Ledger(tmp_path).run("round-1/reward", {"seed": 1}, work) == {"loss": 0.5}
    assert calls == [tmp_path / "round-1" / "reward"]


def test_a_stage_that_fails_leaves_no_record_and_is_run_again(tmp_path):
    def fail(folder):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        Ledger(tmp_path).run("sft", {}, fail)
    assert Ledger(tmp_path).record("sft") is None
    assert Ledger(tmp_path).run("sft", {}, lambda folder: {"steps": 3}) == {"steps": 3}


def test_a_changed_input_is_named(tmp_path):
    Ledger(tmp_path).run("sft", {"sft": {"epochs": 3.0}, "seed": 0}, lambda folder: {})
    with pytest.raises(LedgerError, match=r"sft\.epochs was 3\.0 and is 5\.0.*--redo sft"):
        Ledger(tmp_path).run("sft", {"sft": {"epochs": 5.0}, "seed": 0}, lambda folder: {})


def test_what_the_record_of_an_earlier_version_does_not_know_is_not_compared(tmp_path):
    Ledger(tmp_path).run("sft", {"seed": 0}, lambda folder: {})
    Ledger(tmp_path).run("sft", {"seed": 0, "task": {"env": None}, "judge": None}, lambda folder: {})
    with pytest.raises(LedgerError, match=r'demos was null and is "x"'):
        Ledger(tmp_path).run("sft", {"seed": 0, "demos": "x"}, lambda folder: {})


def test_what_is_run_again_is_put_aside_and_not_lost(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.run("sft", {}, lambda folder: (folder / "model.bin").write_text("weights") and {})
    aside = ledger.redo(["sft", "round-1/sample"])
    assert ledger.record("sft") is None
    assert (aside / "sft" / "model.bin").read_text() == "weights"


def test_a_damaged_record_is_refused(tmp_path):
    Ledger(tmp_path).run("sft", {}, lambda folder: {})
    (tmp_path / "sft" / "stage.json").write_text("{")
    with pytest.raises(LedgerError, match=r"stage\.json is damaged"):
        Ledger(tmp_path).record("sft")


def test_differences_are_told_in_words():
    old, new = {"ppo": {"kl_coef": 0.05}, "seed": 0}, {"ppo": {"kl_coef": 0.1}, "seed": 0, "more": "x"}
    assert list(differences(old, new)) == ["ppo.kl_coef was 0.05 and is 0.1", 'more was null and is "x"']
    assert list(differences({"votes": [1, 2]}, {"votes": [1, 3]})) == ["votes[1] was 2 and is 3"]


def test_a_fingerprint_follows_content_and_names_and_can_leave_out_what_is_not_weights(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("about")
    whole, weights = fingerprint(folder), fingerprint(folder, weights_only=True)
    (folder / "README.md").write_text("about it")
    assert fingerprint(folder) != whole and fingerprint(folder, weights_only=True) == weights
    (folder / "model.safetensors").write_bytes(b"other")
    assert fingerprint(folder, weights_only=True) != weights
