"""A reward model learns what raters prefer, from pairs and from rankings, and is a plain Hugging Face folder."""

import io
import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from reward_models import Completion, RewardError, make, score
from reward_models.learning import train
from reward_models.preferences import Comparison, Ranking
from reward_models.preferences.records import RecordError
from text_envs.letters import letter_tokenizer

LETTERS = "abcdef"
LLAMA = dict(
    model_type="llama", vocab_size=8, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=64, pad_token_id=None, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
QUICK = dict(tokenizer=letter_tokenizer(LETTERS), device="cpu", progress=None, batch_size=16)


def gold(text):
    """The share of a's minus that of b's."""
    return (text.count("a") - text.count("b")) / len(text)


def texts(rng, n):
    return ["".join(rng.choice(list(LETTERS), rng.integers(3, 9))) for _ in range(n)]


def comparisons(n, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [texts(rng, 2) for _ in range(n)]
    return [Comparison(text, (a, b), "left" if gold(a) > gold(b) else "right" if gold(a) < gold(b) else "tie")
            for (a, b), text in zip(pairs, texts(rng, n))]  # fmt: skip


def rankings(n, k=5, seed=0):
    rng = np.random.default_rng(seed)
    groups = [texts(rng, k) for _ in range(n)]
    ranks = [[1 + sum(gold(other) > gold(text) for other in group) for text in group] for group in groups]
    return [Ranking("c", tuple(group), tuple(rank)) for group, rank in zip(groups, ranks)]


def accuracy(judge):
    """Over 300 new pairs of which one is better: chance is 0.5 ± 0.03."""
    pairs = [pair for pair in comparisons(400, seed=1) if pair.chosen is not None][:300]
    chosen, rejected = (
        score(judge, [Completion(pair.prompt, text) for pair, text in zip(pairs, side)])
        for side in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    )
    return (chosen > rejected).mean()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(
        LLAMA,
        comparisons(400),
        tmp_path_factory.mktemp("reward"),
        held_out=0.2,
        epochs=5,
        learning_rate=3e-3,
        **QUICK,
    )


def test_pairs_are_learned(trained):
    assert accuracy(trained.reward()) > 0.9
    first, last = trained.epochs[0], trained.epochs[-1]
    assert last.train_loss < first.train_loss < 0.9
    assert last.held_out_accuracy > 0.9 and last.held_out_loss < 0.3
    assert trained.groups + trained.held_out == 400 and trained.responses == 2 * trained.groups


@pytest.mark.parametrize("kind", ["plackett_luce", "pairs"])
def test_rankings_are_learned_as_rankings(kind):
    made = train(LLAMA, rankings(100), ranking_loss=kind, epochs=6, learning_rate=3e-3, **QUICK)
    assert accuracy(made.reward()) > 0.85
    assert made.groups == 100 and made.responses == 500


def test_folder_is_a_reward(trained):
    completions = [Completion("c", text) for text in ("aaaa", "cdcd", "bb", "abcdefab")]
    expected = score(trained.reward(), completions)
    np.testing.assert_allclose(score(make(str(trained.folder)), completions), expected, atol=1e-5)


def test_transformers_alone_scores_the_same_unpadded_and_padded(trained):
    """As TRL, OpenRLHF and RewardBench load it: by the Auto classes, the saved pad token, padding on the right."""
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder)
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    assert model.config.num_labels == 1 and model.config.pad_token_id == tokenizer.pad_token_id is not None
    assert tokenizer.padding_side == "right"
    replies = ["a", "bcdef", "ffffff", "abab"]
    ours = score(make(str(trained.folder)), [Completion("cc", reply) for reply in replies])
    batch = tokenizer(["cc" + reply for reply in replies], padding=True, return_tensors="pt")
    with torch.no_grad():
        padded = model(batch["input_ids"], batch["attention_mask"]).logits[:, 0]
        alone = [
            model(tokenizer("cc" + reply, return_tensors="pt")["input_ids"]).logits[0, 0] for reply in replies
        ]
    np.testing.assert_allclose(padded, ours, atol=1e-4)
    np.testing.assert_allclose(alone, ours, atol=1e-4)


def test_config_tells_which_text_is_judged(tmp_path):
    train(LLAMA, comparisons(20), tmp_path, template="{response}ff", max_length=5, epochs=1, **QUICK)
    stored = json.loads((tmp_path / "config.json").read_text())["text_envs_reward"]
    assert stored == {"template": "{response}ff", "max_length": 5, "mean": 0.0, "std": 1.0}
    judge = make(str(tmp_path))
    same, other = score(judge, [Completion("a", "bc"), Completion("dddd", "bc")])
    assert same == other
    np.testing.assert_allclose(
        same, score(make(str(tmp_path), template="{prompt}{response}"), [Completion("bc", "ff")])
    )


def test_same_seed_same_weights_and_another_seed_others():
    def weights(seed):
        return train(LLAMA, comparisons(40), epochs=2, dropout=0.1, seed=seed, **QUICK).model.score.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_training_goes_on_from_a_reward_model_and_leaves_the_module_alone(trained):
    before = trained.model.score.weight.clone()
    made = train(trained.model, comparisons(40, seed=2), epochs=1, learning_rate=1e-4, **QUICK)
    assert torch.equal(trained.model.score.weight, before)
    assert 0 < (made.model.score.weight - before).abs().max() < 0.01


def test_language_model_in_a_folder_is_the_backbone(tmp_path):
    torch.manual_seed(0)
    settings = {name: value for name, value in LLAMA.items() if name != "model_type"}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **settings)).save_pretrained(tmp_path)
    letter_tokenizer(LETTERS).save_pretrained(tmp_path)
    made = train(tmp_path, comparisons(20), epochs=1, device="cpu", progress=None, learning_rate=1e-9)
    embedded = AutoModelForCausalLM.from_pretrained(tmp_path).model.embed_tokens.weight
    torch.testing.assert_close(made.model.model.embed_tokens.weight, embedded, atol=1e-6, rtol=0)


def test_centring_keeps_scores_near_zero():
    def mean_score(centring_coef):
        records = comparisons(100)
        made = train(LLAMA, records, epochs=3, learning_rate=3e-3, centring_coef=centring_coef, **QUICK)
        return score(
            made.reward(), [Completion(c.prompt, text) for c in records for text in c.responses]
        ).mean()

    assert abs(mean_score(1.0)) < 0.15 < abs(mean_score(0.0))


def test_stop_keeps_what_was_learned(tmp_path):
    asked = iter([False, False, True])
    made = train(LLAMA, comparisons(100), tmp_path, should_stop=lambda: next(asked), **QUICK)
    assert made.stopped and made.steps == 3 and (tmp_path / "model.safetensors").is_file()


def test_progress_says_epochs():
    said = io.StringIO()
    train(LLAMA, comparisons(40), held_out=0.5, epochs=2, **QUICK | {"progress": said})
    epochs = [line for line in said.getvalue().splitlines() if line.startswith("epoch")]
    assert [line.split("   ")[0] for line in epochs] == ["epoch 1", "epoch 2"]
    assert "held-out" in epochs[-1]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="None of the 1 preferences says which response is better"):
        train(LLAMA, [Comparison("a", ("b", "c"), "skip")], **QUICK)
    with pytest.raises(RecordError, match="Rating says nothing of which response is better"):
        train(LLAMA, [{"prompt": "a", "response": "b", "score": 1.0}], **QUICK)
    with pytest.raises(ValueError, match=r"label_smoothing=0\.5"):
        train(LLAMA, comparisons(2), label_smoothing=0.5, **QUICK)
    with pytest.raises(RewardError, match="The model knows 8 tokens, its tokenizer has 10"):
        train(LLAMA, comparisons(2), **QUICK | {"tokenizer": letter_tokenizer("abcdefghij")})
