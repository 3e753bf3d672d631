"""A Hugging Face classifier scores a text the same alone, in a batch, and with any pad token."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from reward_models import Completion, RewardError, make, score

WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrst"]
SMALL = {
    "gpt2": dict(n_embd=16, n_layer=2, n_head=2, n_positions=32),
    "llama": dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2),
    "opt": dict(
        hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16
    ),
    "bert": dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2),
    "roberta": dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2),
    "xlnet": dict(d_model=16, d_inner=32, n_layer=2, n_head=2),
}
TEXTS = [
    "a",
    "b c d e f g",
    "h i",
    "k l m <eos>",
    "a b c d e f g h i j <eos> <eos>",
    "<eos>",
    "n o p q r s t",
]


def tokenizer(pad):
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<eos>", unk_token="<unk>", pad_token=pad
    )


def small(kind, pad, labels=1, **kwargs):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=len(WORDS), num_labels=labels, pad_token_id=None if pad is None else WORDS.index(pad),
        eos_token_id=1, bos_token_id=1, initializer_range=0.5, **SMALL[kind], **kwargs,
    )  # fmt: skip
    return AutoModelForSequenceClassification.from_config(config).eval()


def replies(texts=TEXTS):
    return [Completion("", text) for text in texts]


DECODERS = [(kind, pad) for kind in ("gpt2", "llama", "opt", "xlnet") for pad in ("<pad>", "<eos>", None)]
ENCODERS = [("bert", "<pad>"), ("roberta", "<pad>")]  # made with a pad token of their own


@pytest.mark.parametrize(("kind", "pad"), DECODERS + ENCODERS)
@pytest.mark.filterwarnings("ignore:.*scores a text differently in a padded batch")
def test_scores_equal_those_of_each_text_alone(kind, pad):
    """The expected score is the model's own, on the one row, told that there is no pad token."""
    model, tok = small(kind, pad), tokenizer(pad)
    batched = score(make("classifier", model=model, tokenizer=tok, batch_size=4), replies())
    assert model.config.pad_token_id == (None if pad is None else WORDS.index(pad))
    if (kind, pad) in DECODERS:
        model.config.pad_token_id = None
    with torch.no_grad():
        alone = [model(torch.tensor([tok(text)["input_ids"]])).logits.item() for text in TEXTS]
    np.testing.assert_allclose(batched, alone, atol=1e-4)
    assert np.std(alone) > 0.05


def test_eos_at_the_end_is_read_although_it_is_the_pad_token():
    classifier = make("classifier", model=small("gpt2", "<eos>"), tokenizer=tokenizer("<eos>"))
    without, with_eos = score(classifier, replies(["a b", "a b <eos>"]))
    assert abs(without - with_eos) > 1e-2


def test_a_model_whose_batches_disagree_is_run_one_by_one():
    """XLNet summarises the last position, which is padding: the first padded batch shows it."""
    classifier = make("classifier", model=small("xlnet", "<pad>"), tokenizer=tokenizer("<pad>"))
    with pytest.warns(UserWarning, match="scoring one by one"):
        score(classifier, replies(["a b c", "d"]))


def test_order_of_the_scores_is_that_of_the_completions():
    classifier = make("classifier", model=small("llama", None), tokenizer=tokenizer(None), batch_size=3)
    forward, backward = score(classifier, replies()), score(classifier, replies(TEXTS[::-1]))
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)


def test_outputs_of_two_labels():
    model, tok = small("gpt2", "<pad>", labels=2, id2label={0: "NEGATIVE", 1: "POSITIVE"}), tokenizer("<pad>")
    logit = [score(make("classifier", model=model, tokenizer=tok, label=i), replies()) for i in (0, 1)]
    odds = score(
        make("classifier", model=model, tokenizer=tok, label="positive", output="log_odds"), replies()
    )
    chance = score(make("classifier", model=model, tokenizer=tok, output="probability"), replies())
    np.testing.assert_allclose(odds, logit[1] - logit[0], atol=1e-5)
    np.testing.assert_allclose(chance, np.exp(logit[1]) / (np.exp(logit[0]) + np.exp(logit[1])), atol=1e-5)


def test_log_odds_of_three_labels_are_those_of_the_softmax():
    model, tok = small("gpt2", "<pad>", labels=3), tokenizer("<pad>")
    odds = score(make("classifier", model=model, tokenizer=tok, label=2, output="log_odds"), replies(["a b"]))
    with torch.no_grad():
        p = model(torch.tensor([tok("a b")["input_ids"]])).logits.softmax(1)[0, 2].item()
    assert odds[0] == pytest.approx(np.log(p / (1 - p)), abs=1e-5)


def test_long_text_keeps_its_end_and_template_chooses_what_is_read():
    classifier = make("classifier", model=small("gpt2", "<pad>"), tokenizer=tokenizer("<pad>"), max_length=3)
    long, short = score(classifier, [Completion("a a a a ", "b c d"), Completion("", "b c d")])
    assert long == pytest.approx(short, abs=1e-5)
    classifier = make(
        "classifier",
        model=small("gpt2", "<pad>"),
        tokenizer=tokenizer("<pad>"),
        template="{response} {prompt}",
    )
    scores = score(classifier, [Completion("{response}", "b"), Completion("q", "b"), Completion("b", "q")])
    assert scores[1] != pytest.approx(scores[2], abs=1e-3)
    # A prompt that spells a field is text like any other: here one unknown word.
    assert scores[0] == pytest.approx(score(classifier, [Completion("zzz", "b")])[0], abs=1e-5)


def test_model_positions_limit_the_length():
    for kind in ("gpt2", "roberta"):
        limits = {} if kind == "gpt2" else {"max_position_embeddings": 32}
        classifier = make("classifier", model=small(kind, "<pad>", **limits), tokenizer=tokenizer("<pad>"))
        assert score(classifier, replies(["a b c d e " * 20])).shape == (1,)


def test_empty_text_and_lone_surrogate_have_a_score():
    classifier = make("classifier", model=small("llama", None), tokenizer=tokenizer(None))
    assert np.isfinite(score(classifier, replies(["", "a \ud800"]))).all()


def test_folder_is_a_reward_model(tmp_path):
    model, tok = small("llama", None), tokenizer(None)
    model.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    expected = score(make("classifier", model=model, tokenizer=tok), replies())
    np.testing.assert_allclose(score(make(str(tmp_path)), replies()), expected, atol=1e-6)
    np.testing.assert_allclose(score(make(tmp_path, batch_size=2), replies()), expected, atol=1e-5)


def test_folder_of_a_language_model_is_refused(tmp_path):
    config = small("llama", None).config
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer(None).save_pretrained(tmp_path)
    with pytest.raises(RewardError, match=r"lacks the weights \['score.weight'\]; they would be random"):
        make(str(tmp_path))


def test_damaged_weights_are_named(tmp_path):
    small("gpt2", "<pad>").save_pretrained(tmp_path)
    tokenizer("<pad>").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(
        RewardError, match=f"could be loaded from '{tmp_path}': SafetensorError.* Give a folder"
    ):
        make(str(tmp_path))


def test_mistakes_are_named(tmp_path):
    model, tok = small("gpt2", "<pad>", labels=3), tokenizer("<pad>")
    with pytest.raises(
        RewardError, match=r"label is None. Choose one of \['LABEL_0', 'LABEL_1', 'LABEL_2'\]"
    ):
        make("classifier", model=model, tokenizer=tok)
    with pytest.raises(RewardError, match="comes without its tokenizer"):
        make("classifier", model=model)
    with pytest.raises(RewardError, match="leaves out the response"):
        make("classifier", model=model, tokenizer=tok, label=0, template="{prompt}")
    with pytest.raises(RewardError, match="no sequence classifier could be loaded from"):
        make("classifier", model=str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-thing"}))
    with pytest.raises(RewardError, match="no sequence classifier could be loaded from"):
        make(tmp_path)
