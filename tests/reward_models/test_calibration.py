"""Calibration: mean 0 and standard deviation 1 on the completions given, kept in the folder."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from reward_models import Completion, RewardError, make, score
from reward_models.calibration import calibrate
from text_envs.letters import letter_tokenizer

COMPLETIONS = [Completion("a", text) for text in ("b", "bc", "bcd", "dcb", "dd", "abcd")]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=1,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    letter_tokenizer("abcd").save_pretrained(tmp_path)
    return tmp_path


def test_scores_have_mean_0_and_deviation_1_and_keep_their_order(folder):
    before = score(make(str(folder)), COMPLETIONS)
    stored = calibrate(folder, COMPLETIONS)
    after = score(make(str(folder)), COMPLETIONS)
    assert (stored.mean, stored.std) == pytest.approx((before.mean(), before.std()))
    assert after.mean() == pytest.approx(0, abs=1e-6) and after.std() == pytest.approx(1)
    assert np.argsort(after).tolist() == np.argsort(before).tolist()


def test_calibrating_again_is_as_calibrating_once(folder):
    first, second = (calibrate(folder, COMPLETIONS) for _ in range(2))
    assert first == second


def test_a_model_that_tells_nothing_apart_is_refused(folder):
    with pytest.raises(RewardError, match="do not differ"):
        calibrate(folder, [COMPLETIONS[0]] * 3)
    with pytest.raises(RewardError, match="1 texts"):
        calibrate(folder, COMPLETIONS[:1])
