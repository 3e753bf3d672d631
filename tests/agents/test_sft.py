"""Supervised fine-tuning: the loss stands on the response and its EOS alone; a plain folder comes out."""

import gzip
import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, TrainingArguments

from agents import memory
from agents.demonstrations import DemonstrationEncoder, collate, read_pairs
from agents.response_losses import called_for_losses, is_output_of_hidden
from agents.sft import finetune, response_loss
from agents.sft_trainer import Progress, ResumableTrainer
from tests.agents.helpers import small_lm
from text_envs.encoding import PromptError
from text_envs.prompts import PromptSource

DEMONSTRATIONS = [
    {"prompt": "cat", "response": " says meow"},
    {"prompt": "dog", "response": " says woof"},
    {"prompt": "", "response": " nobody"},
    {"prompt": "a rather long prompt about a cow", "response": " moo"},
]


@pytest.fixture(scope="module")
def tokenizer():
    """Every byte is a token; <s> begins a text, </s> ends a response, nothing pads."""
    vocab = {
        symbol: i for i, symbol in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def tiny(**changes):
    return dict(
        model_type="llama", vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    ) | changes  # fmt: skip


def train(tokenizer, demonstrations=DEMONSTRATIONS, model=None, **changes):
    settings = dict(batch_size=4, learning_rate=3e-3, max_steps=2, seed=0, progress=None) | changes
    return finetune(tiny() if model is None else model, demonstrations, tokenizer, **settings)


def encode(tokenizer, demonstrations, max_length=64, **settings):
    return DemonstrationEncoder(tokenizer, **settings)(read_pairs(demonstrations), max_length)


def test_labels_are_the_response_and_its_eos(tokenizer):
    (example,), overlong = encode(tokenizer, [{"prompt": "ab", "response": "c"}], 9)
    a, b, c = (tokenizer.convert_tokens_to_ids(letter) for letter in "abc")
    assert example == {"input_ids": [0, a, b, c, 1], "labels": [-100, -100, -100, c, 1]}
    assert overlong == 0


def test_prompts_are_encoded_as_the_environments_encode_them(tokenizer):
    prompts = [{"prompt": text, "response": "x"} for text in ("é 日本", "", "</s>", " a")]
    examples, _ = encode(tokenizer, prompts)
    source = PromptSource([row["prompt"] for row in prompts], tokenizer)
    for i, example in enumerate(examples):
        n_prompt = example["labels"].count(-100)
        assert example["input_ids"][:n_prompt] == source[i].ids.tolist()


def test_special_token_text_in_a_response_is_plain_text(tokenizer):
    (example,), _ = encode(tokenizer, [{"prompt": "a", "response": "</s>"}])
    assert example["input_ids"].count(1) == 1  # the appended one
    assert len(example["input_ids"]) == 2 + len("</s>") + 1


def test_padding_is_right_masked_and_without_label():
    batch = collate([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]


def test_the_loss_is_the_mean_over_response_tokens_of_any_batching(tokenizer):
    model = train(tokenizer, model=tiny(attention_dropout=0.5), max_steps=1).model
    examples, _ = encode(tokenizer, DEMONSTRATIONS)
    total, count = 0.0, 0
    for example in examples:  # one by one, by hand
        logits = model(torch.tensor([example["input_ids"]])).logits[0].detach().log_softmax(-1)
        for position, label in enumerate(example["labels"]):
            if label != -100:
                total, count = total - float(logits[position - 1, label]), count + 1
    for batch_size in (1, 3, 4):
        assert response_loss(model, examples, batch_size) == pytest.approx(total / count, rel=1e-5)
    model.train()  # with dropout
    assert response_loss(model, examples, 4) == pytest.approx(total / count, rel=1e-5) and model.training


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("n_tokens, at_once", [(None, 2**26), (40, 2**26), (40, 0)])
def test_the_loss_of_response_tokens_alone_is_the_model_s_own(
    tokenizer, tmp_path, monkeypatch, architecture, n_tokens, at_once
):
    """transformers' loss over whole, padded and masked sequences, and its gradient; also in chunks of three tokens."""
    monkeypatch.setattr(memory, "LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(memory, "LOGITS_PER_CHUNK", 3 * len(tokenizer))
    torch.manual_seed(0)
    model = small_lm(architecture, vocab_size=len(tokenizer)).eval()
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    examples = encode(tokenizer, DEMONSTRATIONS)[0]
    trainer = ResumableTrainer(model, arguments, examples, Progress(lambda: False, None), {})
    assert trainer.by_tokens
    batch = collate(examples)
    losses, gradients = [], []
    for way in (called_for_losses(trainer), nullcontext()):
        model.zero_grad()
        with way:
            losses.append(trainer.compute_loss(model, dict(batch), num_items_in_batch=n_tokens))
        losses[-1].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    assert torch.allclose(*gradients, atol=1e-6)


def test_a_model_whose_logits_are_more_than_its_output_layer_is_called_as_a_whole(tokenizer):
    model = small_lm(vocab_size=len(tokenizer))
    assert is_output_of_hidden(model)
    whole = model.forward
    model.forward = lambda **inputs: SimpleNamespace(logits=2 * whole(**inputs).logits)
    assert not is_output_of_hidden(model)


def test_what_the_prompt_predicts_is_not_learned(tokenizer):
    """The gradient is that of a loss written out over the response positions; prompt positions add nothing."""
    model = train(tokenizer, max_steps=1).model
    examples, _ = encode(tokenizer, DEMONSTRATIONS[:1])
    batch = collate(examples)
    (theirs,) = torch.autograd.grad(model(**batch).loss, [model.lm_head.weight])
    n_prompt = examples[0]["labels"].count(-100)
    logits = model(batch["input_ids"]).logits[0, n_prompt - 1 : -1]
    ours = torch.nn.functional.cross_entropy(logits, batch["input_ids"][0, n_prompt:])
    (gradient,) = torch.autograd.grad(ours, [model.lm_head.weight])
    assert torch.allclose(theirs, gradient, atol=1e-6)


def test_four_rows_are_learned_by_heart_and_the_folder_is_plain(tokenizer, tmp_path):
    result = train(
        tokenizer, max_steps=150, learning_rate=6e-3, output_dir=tmp_path, eval_demonstrations=DEMONSTRATIONS
    )
    assert result.train_loss < 0.05 and result.held_out_loss < 0.05 and result.steps == 150
    assert not result.model.training

    model, loaded = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for row in DEMONSTRATIONS:
        prompt = loaded(row["prompt"], return_tensors="pt")
        generated = model.generate(**prompt, do_sample=False, max_new_tokens=20)[
            0, prompt["input_ids"].shape[1] :
        ]
        assert loaded.decode(generated) == row["response"] + "</s>"  # it ends by itself


def test_same_seed_same_weights(tokenizer):
    first, second, other = (train(tokenizer, seed=seed).model.lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_the_end_that_the_environments_know_is_learned_and_saved(tokenizer, tmp_path):
    result = train(tokenizer, output_dir=tmp_path, eos_token_id=[0, 1])
    assert result.model.generation_config.eos_token_id == [0, 1]
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [0, 1]
    examples, _ = encode(tokenizer, DEMONSTRATIONS, eos_token_id=[0, 1])
    assert all(example["labels"][-1] == tokenizer.eos_token_id == 1 for example in examples)


def test_overlong_rows_are_left_out_and_said(tokenizer, caplog):
    result = train(tokenizer, max_length=16)
    assert (result.examples, result.overlong) == (3, 1)
    assert "1 of 4 demonstrations are longer than 16 tokens" in caplog.text
    with pytest.raises(PromptError, match="None of the 4 demonstrations"):
        train(tokenizer, max_length=2)


def test_files_are_read_and_bad_rows_named_by_line(tokenizer, tmp_path):
    path = tmp_path / "demos.jsonl.gz"

    def write(*lines):
        path.write_bytes(gzip.compress("\n".join(lines).encode()))

    good = '{"question": "cat", "answer": " meow"}'
    write(good, "", good)
    fields = dict(prompt_field="question", response_field="answer")
    assert train(tokenizer, path, **fields).examples == 2
    bad = {
        '{"question": "cat"}': "line 3, has no field 'answer', only",
        '{"question": "cat", "answer": 7}': "line 3, holds a int in 'answer'",
        '{"question": "cat", "answer": "\\ud800"}': "line 3, has a lone surrogate",
        '{"answer": "cat"}': "line 3,? has no field 'question'",
        "{": "line 3, cannot be read",
    }
    for line, says in bad.items():
        write(good, "", line)
        with pytest.raises(PromptError, match=rf"demos\.jsonl\.gz.* {says}"):
            train(tokenizer, path, **fields)


def test_it_stops_when_asked_and_keeps_what_it_has(tokenizer, tmp_path):
    steps = iter([False, False, True])
    result = train(tokenizer, max_steps=100, should_stop=lambda: next(steps), output_dir=tmp_path)
    assert result.steps == 3 and result.stopped
    assert (tmp_path / "model.safetensors").is_file()


def test_arguments_that_do_not_fit_are_said(tokenizer):
    with pytest.raises(ValueError, match="64 positions"):
        train(tokenizer, max_length=65)
    with pytest.raises(ValueError, match="lr_schedule='square' is not known"):
        train(tokenizer, lr_schedule="square")
    with pytest.raises(ValueError, match="knows 200 tokens, its tokenizer has 258"):
        train(tokenizer, model=tiny(vocab_size=200))
    with pytest.raises(ValueError, match="tokenizer is not given"):
        finetune(tiny(), DEMONSTRATIONS, progress=None)


def test_a_model_of_nans_is_not_saved(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"The loss is .* after 6 steps.*Lower learning_rate"):
        train(tokenizer, learning_rate=1e20, max_steps=6, output_dir=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_progress_is_said_in_short_lines(tokenizer, capsys):
    train(tokenizer, progress=sys.stderr)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("step     2 of 2   loss ") and np.isfinite(
        float(line.split("loss ")[1].split()[0])
    )
