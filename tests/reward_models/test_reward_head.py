"""The score stands at a text's last token, wherever padding is and whatever the pad token is."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig

from reward_models import RewardError
from reward_models.reward_head import (
    RewardHead,
    load_classifier,
    load_reward_tokenizer,
    right_padded,
    set_pad_token,
)
from text_envs.letters import letter_tokenizer

PAD = 3  # also EOS here, and a token like any other
ROWS = [[5, 6, 7], [1], [4, PAD, 2, PAD], [PAD], [2, 2, 9, 8, 7, 6, 5]]
SMALL = {
    "gpt2": dict(n_embd=16, n_layer=2, n_head=2, n_positions=32),
    "llama": dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2),
    "opt": dict(
        hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16
    ),
    "qwen2": dict(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    ),
}


def config(kind, **kwargs):
    special = {"pad_token_id": PAD, "eos_token_id": PAD, "bos_token_id": 0, "initializer_range": 0.5}
    return AutoConfig.for_model(kind, vocab_size=10, **SMALL[kind], **special, **kwargs)


@pytest.fixture(params=SMALL)
def head(request):
    torch.manual_seed(0)
    return RewardHead(load_classifier(config(request.param)).eval())


@pytest.fixture
def alone(head):
    """The expected scores: the model's own, of each row by itself, told that there is no pad token."""
    head.classifier.config.pad_token_id = None
    with torch.no_grad():
        scores = torch.stack([head.classifier(torch.tensor([row])).logits[0, 0] for row in ROWS])
    assert scores.std() > 0.1
    return scores


def test_right_padding(head, alone):
    torch.testing.assert_close(head(*right_padded(ROWS)), alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head.score_rows(ROWS, batch_size=2), alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("extra", [0, 1, 20])
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_any_padding_on_any_side_with_any_token(head, alone, side, extra):
    width = max(map(len, ROWS)) + extra
    for filler in (PAD, 6):
        ids, mask = torch.full((len(ROWS), width), filler), torch.zeros(len(ROWS), width, dtype=torch.long)
        for index, row in enumerate(ROWS):
            room = width - len(row)
            start = {"left": room, "right": 0, "both": room // 2}[side]
            ids[index, start : start + len(row)] = torch.tensor(row)
            mask[index, start : start + len(row)] = 1
        torch.testing.assert_close(head.score_padded(ids, mask), alone, atol=1e-4, rtol=1e-4)


def test_trunk_is_the_language_models_and_the_module_stays_as_it_was():
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config("llama"))
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    classifier = load_classifier(lm)
    for name, value in classifier.base_model.state_dict().items():
        torch.testing.assert_close(value, before[f"model.{name}"])
    with torch.no_grad():
        classifier.base_model.embed_tokens.weight.zero_()
    torch.testing.assert_close(lm.model.embed_tokens.weight, before["model.embed_tokens.weight"])


def test_folder_of_a_language_model_gets_a_new_head_and_one_of_a_reward_model_keeps_its_own(tmp_path):
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config("gpt2"))
    lm.save_pretrained(tmp_path / "lm")
    first, second = (load_classifier(tmp_path / "lm") for _ in range(2))
    torch.testing.assert_close(first.transformer.wte.weight, lm.transformer.wte.weight)
    assert not torch.equal(first.score.weight, second.score.weight)
    first.save_pretrained(tmp_path / "reward")
    torch.testing.assert_close(load_classifier(tmp_path / "reward").score.weight, first.score.weight)


def test_head_starts_with_scores_of_order_one():
    torch.manual_seed(0)
    weight = load_classifier(config("llama")).score.weight
    assert weight.std().item() == pytest.approx(17**-0.5, rel=0.5)


def test_pad_token_ends_no_text():
    classifier = load_classifier(config("llama"))
    tokenizer = load_reward_tokenizer(letter_tokenizer("abcdefg"), None)
    tokenizer.add_special_tokens({"eos_token": "g", "unk_token": "f"})
    for rows, expected in [([[0, 1], [6, 2]], "g"), ([[0, 6]], "f"), ([[6], [5]], "<pad>")]:
        tokenizer.pad_token = None
        set_pad_token(classifier, tokenizer, rows)
        assert tokenizer.pad_token == expected
        assert (
            classifier.config.pad_token_id
            == tokenizer.pad_token_id
            == (7 if expected == "<pad>" else ord(expected) - ord("a"))
        )


def test_a_new_pad_token_gets_a_row():
    classifier = load_classifier(config("llama"))
    tokenizer = load_reward_tokenizer(
        letter_tokenizer("abcdefghij"), None
    )  # as many letters as the model has rows
    set_pad_token(classifier, tokenizer, [[0]])
    assert tokenizer.pad_token_id == 10 and len(classifier.get_input_embeddings().weight) == 11


def test_mistakes_are_named(tmp_path):
    with pytest.raises(RewardError, match="No causal language model could be loaded from"):
        load_classifier(tmp_path)
    with pytest.raises(RewardError, match="A list is no language model"):
        load_classifier([])
    with pytest.raises(
        RewardError, match="BertForSequenceClassification is no trunk with a linear layer `score`"
    ):
        load_classifier(
            BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        )
    with pytest.raises(RewardError, match="tokenizer is not given"):
        load_reward_tokenizer(None, config("llama"))
