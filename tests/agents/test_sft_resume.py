"""Fine-tuning that was interrupted goes on as if it had not been: the same bits, on a CPU."""

import itertools
import json
import zipfile

import pytest
import torch

from agents.checkpoint import CheckpointError, read, write
from agents.sft import finetune
from agents.sft_trainer import LengthGroups
from tests.agents.helpers import LETTERS, NO_SPECIAL
from text_envs.letters import letter_tokenizer

TOKENIZER = letter_tokenizer(LETTERS)
END = LETTERS.index("l")
WITH_DROPOUT = dict(
    model_type="gpt2", vocab_size=len(LETTERS), n_embd=16, n_layer=2, n_head=2, n_positions=32, **NO_SPECIAL
)
ROWS = [{"prompt": "abcdefgh"[: 1 + i % 7], "response": "hgfedcba"[: 1 + i % 5]} for i in range(22)]


def train(checkpoint=None, rows=ROWS, **changes):
    """Three epochs of six steps; the third ends before its time, so that 16 steps are made."""
    settings = dict(
        model=WITH_DROPOUT, tokenizer=TOKENIZER, eos_token_id=END, batch_size=4, max_steps=16, learning_rate=3e-3,
        warmup_steps=3, lr_schedule="cosine", seed=1, device="cpu", progress=None, checkpoint_every=4,
    )  # fmt: skip
    return finetune(demonstrations=rows, checkpoint=checkpoint, **(settings | changes))


def after(steps, error=None):
    """A `should_stop` that says yes, or raises, at this step."""
    made = iter(range(1, 100))

    def should_stop():
        if next(made) < steps:
            return False
        if error is not None:
            raise error
        return True

    return should_stop


def weights(tuned):
    return {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def uninterrupted():
    torch.set_num_threads(1)
    return train()


@pytest.mark.parametrize("stops", [[1], [5], [6], [12], [13], [3, 4, 4], [15, 1]])
def test_a_stopped_training_goes_on_to_the_same_bits(uninterrupted, tmp_path, stops):
    """In the first epoch, at its end, at the end of the second, behind it, in the last; also more than once."""
    path = tmp_path / "last.zip"
    for stop in stops:
        stopped = train(path, resume=True, should_stop=after(stop))
    assert stopped.stopped and stopped.steps == sum(stops)
    resumed = train(path, resume=True)
    assert resumed.steps == 16 and not resumed.stopped
    assert_same(weights(resumed), weights(uninterrupted))
    assert resumed.train_loss == uninterrupted.train_loss


@pytest.mark.parametrize("death, last", [(3, None), (6, 4), (11, 8)])
def test_a_killed_training_goes_on_from_its_last_checkpoint(uninterrupted, tmp_path, death, last):
    path = tmp_path / "last.zip"
    with pytest.raises(KeyboardInterrupt):
        train(path, should_stop=after(death, error=KeyboardInterrupt))
    assert path.is_file() == (last is not None)
    if last is not None:
        assert read(path)["training.json"]["state"]["global_step"] == last
    assert_same(weights(train(path, resume=True)), weights(uninterrupted))


def test_checkpoints_and_samples_change_nothing_that_is_learned(uninterrupted, tmp_path):
    busy = train(tmp_path / "last.zip", samples=3, sample_temperature=1.0, checkpoint_every=1)
    assert_same(weights(busy), weights(uninterrupted))


def test_resumed_samples_and_losses_tell_of_the_whole_training(tmp_path):
    settings = dict(held_out=0.3, samples=2)
    whole = train(**settings)
    train(tmp_path / "last.zip", should_stop=after(7), **settings)
    resumed = train(tmp_path / "last.zip", resume=True, **settings)
    assert resumed.samples == whole.samples and len(whole.samples) == 2
    assert (resumed.held_out_loss_before, resumed.held_out_loss) == (
        whole.held_out_loss_before,
        whole.held_out_loss,
    )


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "last.zip"
    train(path, should_stop=after(2))
    with pytest.raises(CheckpointError, match="another training: learning_rate, seed differ"):
        train(path, resume=True, learning_rate=1e-3, seed=2)
    with pytest.raises(CheckpointError, match="another training: demonstrations differ"):
        train(path, rows=ROWS[1:], resume=True)
    with pytest.raises(CheckpointError, match="weights are not those of this"):
        train(path, model=WITH_DROPOUT | {"n_layer": 1}, resume=True)


def test_a_damaged_checkpoint_is_refused_and_holds_no_pickle(tmp_path):
    path = tmp_path / "last.zip"
    train(path, should_stop=after(2))
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    assert all(name.endswith((".json", ".safetensors")) for name in names)

    members = read(path)
    del members["training.json"]["seconds"]
    write(tmp_path / "less.zip", members)
    with pytest.raises(CheckpointError, match="no checkpoint of fine-tuning"):
        train(tmp_path / "less.zip", resume=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        train(path, resume=True)


def test_without_a_checkpoint_resume_begins(uninterrupted, tmp_path):
    assert_same(weights(train(tmp_path / "none.zip", resume=True)), weights(uninterrupted))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        groups = LengthGroups([1, 2, 3] * 40, 4, seed)
        groups.epoch = epoch
        return list(groups)

    assert sorted(order(0, 0)) == list(range(120))
    assert len(list(LengthGroups([5, 5, 5], 4, 0))) == 3
    assert order(0, 0) == order(0, 0)
    assert len({json.dumps(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_batches_are_of_like_length_and_in_no_order():
    lengths = [1 + i % 40 for i in range(1003)]
    order = list(LengthGroups(lengths, 10, seed=0))
    batches = [[lengths[i] for i in order[start : start + 10]] for start in range(0, 1003, 10)]
    assert all(max(batch) - min(batch) <= 4 for batch in batches[:-1]) and len(batches[-1]) == 3
    means = [sum(batch) / 10 for batch in batches[:-1]]
    rises = sum(a < b for a, b in itertools.pairwise(means))
    assert 35 <= rises <= 65  # of 99; sorted ones would rise or fall almost always
