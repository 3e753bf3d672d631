"""The checkpoint: exact round trips, the old file after a failed write, a sentence for what is doctored."""

import errno
import hashlib
import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents import checkpoint
from agents.checkpoint import CheckpointError

MEMBERS = {
    "config.json": {"learning_rate": 1e-4, "stop": ["\n"], "seed": None},
    "policy.safetensors": {
        "weight": torch.arange(6.0).reshape(2, 3),
        "step": torch.tensor(7.0),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
    },
}


class Tied(nn.Module):
    def __init__(self, tie: bool = True):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tie:
            self.head.weight = self.embed.weight


def same(a, b) -> bool:
    """Equal in value, type and dtype, all the way down."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and bool(torch.equal(a, b))
        )
    if isinstance(a, dict):
        return type(b) is dict and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def rewrite(path, change, fix_manifest=False):
    """Rebuild the zip at `path` from its changed {name: bytes}; if asked, with a manifest that fits."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    if fix_manifest:
        manifest = json.loads(contents.pop("manifest.json"))
        manifest["members"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in contents.items()
        }
        contents["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


@pytest.fixture
def saved(tmp_path):
    checkpoint.write(tmp_path / "model.zip", MEMBERS)
    return tmp_path / "model.zip"


def test_what_is_written_is_read(saved):
    assert same(MEMBERS, checkpoint.read(saved))


def test_same_content_gives_the_same_bytes(saved, tmp_path):
    checkpoint.write(tmp_path / "again.zip", MEMBERS)
    assert saved.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_zip_suffix_is_added_and_found_as_stable_baselines3_does(tmp_path):
    checkpoint.write(tmp_path / "model", MEMBERS)
    assert [p.name for p in tmp_path.iterdir()] == ["model.zip"]
    assert checkpoint.read(tmp_path / "model")["config.json"]["seed"] is None


def test_binary_files_serve_as_targets():
    file = io.BytesIO()
    checkpoint.write(file, MEMBERS)
    assert same(MEMBERS, checkpoint.read(file))


def test_shared_and_strided_tensors_are_written(tmp_path):
    base = torch.arange(12.0)
    tensors = {"row": base[2:5], "transposed": base.reshape(3, 4).T, "alias": base, "twin": base}
    checkpoint.write(tmp_path / "m.zip", {"t.safetensors": tensors})
    assert same(tensors, checkpoint.read(tmp_path / "m.zip")["t.safetensors"])


@pytest.mark.parametrize("name", ["../up.json", "a/b.json", "code.pkl", "manifest.json", ".json", ""])
def test_member_names_are_plain(tmp_path, name):
    with pytest.raises(ValueError, match="cannot name a checkpoint member"):
        checkpoint.write(tmp_path / "m.zip", {name: {}})


def test_values_that_are_not_json_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"'config.json' is not made of JSON values.*set"):
        checkpoint.write(tmp_path / "m.zip", {"config.json": {"stop": {1}}})
    assert list(tmp_path.iterdir()) == []


# --- writing fails ---


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("target", ["os.fsync", "os.replace", "zipfile.ZipFile.writestr"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(saved, monkeypatch, target):
    before = saved.read_bytes()
    monkeypatch.setattr(target, no_space)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(saved, {"config.json": "new"})
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["model.zip"]


def test_the_file_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    real = {"fsync": os.fsync, "replace": os.replace}
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), real["fsync"](fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), real["replace"](a, b)))
    checkpoint.write(tmp_path / "m.zip", MEMBERS)
    assert calls == ["fsync", "replace", "fsync"]  # the last one is the folder's: the rename itself


def test_a_link_stays_a_link(saved):
    link = saved.with_name("last.zip")
    link.symlink_to(saved.name)
    checkpoint.write(link, {"config.json": "new"})
    assert link.is_symlink() and checkpoint.read(saved) == {"config.json": "new"}


# --- doctored files ---


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return open, (self.witness, "w")


DOCTORED = {
    "changed member": (
        lambda c: c.update({"config.json": c["config.json"].replace(b"null", b"1234")}),
        "sha256",
    ),
    "longer member": (lambda c: c.update({"config.json": b"{}"}), "size"),
    "extra member": (lambda c: c.update({"extra.json": b"{}"}), "'extra.json'"),
    "missing member": (lambda c: c.pop("config.json"), "'config.json'"),
    "climbing name": (lambda c: c.update({"../../evil.json": b"{}"}), "evil.json"),
    "no manifest": (lambda c: c.pop("manifest.json"), "no manifest.json"),
    "manifest not JSON": (lambda c: c.update({"manifest.json": b"{"}), "not valid JSON"),
    "manifest too deep": (lambda c: c.update({"manifest.json": b"[" * 200_000}), "not valid JSON"),
    "manifest of another kind": (lambda c: c.update({"manifest.json": b'{"format": "zoo"}'}), "does not say"),
    "manifest huge": (lambda c: c.update({"manifest.json": b" " * (1 << 21)}), "larger than a megabyte"),
}


@pytest.mark.parametrize("change, says", DOCTORED.values(), ids=DOCTORED)
def test_doctored_files_are_refused_with_a_sentence(saved, change, says):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoint.read(saved)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["policy.safetensors", "config.json", "code.pkl"])
def test_a_pickle_with_a_fitting_manifest_is_refused_and_not_run(saved, tmp_path, name):
    witness = tmp_path / "executed"
    rewrite(saved, lambda c: c.update({name: pickle.dumps(Bomb(witness))}), fix_manifest=True)
    with pytest.raises(CheckpointError):
        checkpoint.read(saved)
    assert not witness.exists()


def test_compressed_members_are_refused_before_they_are_unpacked(saved):
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.json", b"0" * 10_000_000)
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.read(saved)


def test_newer_version_asks_for_an_upgrade(saved):
    newer = b'{"format": "text-envs checkpoint", "version": 2, "members": {}}'
    rewrite(saved, lambda c: c.update({"manifest.json": newer}))
    with pytest.raises(CheckpointError, match="Upgrade text-envs"):
        checkpoint.read(saved)


def test_a_stable_baselines3_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "sb3.zip", "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(CheckpointError, match="Stable-Baselines3"):
        checkpoint.read(tmp_path / "sb3.zip")


def test_a_folder_is_no_checkpoint(saved):
    with pytest.raises(CheckpointError, match=r"is a folder, and a checkpoint is one zip. Give the file"):
        checkpoint.read(saved.parent)
    (saved.parent / "model").mkdir()
    assert same(MEMBERS, checkpoint.read(saved.parent / "model"))  # model.zip stands beside it


def test_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.read(tmp_path / "none.zip")


WHOLE = io.BytesIO()
checkpoint.write(WHOLE, MEMBERS)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE.getvalue()) - 1))
def test_truncated_anywhere_is_refused(length):
    with pytest.raises(CheckpointError):
        checkpoint.read(io.BytesIO(WHOLE.getvalue()[:length]))


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(WHOLE.getvalue()) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(position, flip):
    data = bytearray(WHOLE.getvalue())
    data[position] ^= flip
    try:
        read = checkpoint.read(io.BytesIO(bytes(data)))
    except CheckpointError:
        return
    assert same(MEMBERS, read)  # a byte of the zip's own bookkeeping that nobody reads


# --- modules and optimisers ---


def test_tied_weights_are_kept_once_and_restored_tied(tmp_path):
    module, other = Tied(), Tied()
    packed = checkpoint.pack_module(module)
    assert list(packed) == ["embed.weight"]
    checkpoint.write(tmp_path / "m.zip", {"m.safetensors": packed})
    checkpoint.unpack_module(other, checkpoint.read(tmp_path / "m.zip")["m.safetensors"])
    assert torch.equal(other.embed.weight, module.embed.weight)
    assert other.head.weight is other.embed.weight


@pytest.mark.parametrize(
    "module, says",
    [
        (Tied(tie=False), "missing: head.weight"),
        (nn.Embedding(5, 3), "unknown: embed.weight"),
    ],
)
def test_weights_of_another_module_are_refused(module, says):
    with pytest.raises(CheckpointError, match=says):
        checkpoint.unpack_module(module, checkpoint.pack_module(Tied()))


def test_untied_weights_do_not_fit_a_tied_module():
    target = Tied()
    before = target.embed.weight.clone()
    with pytest.raises(CheckpointError, match="is tied to another"):
        checkpoint.unpack_module(target, checkpoint.pack_module(Tied(tie=False)))
    assert torch.equal(target.embed.weight, before)


def test_another_shape_is_refused_and_nothing_is_loaded():
    source, target = nn.Linear(3, 5), nn.Linear(3, 5)
    packed = {**checkpoint.pack_module(source), "bias": torch.zeros(1)}
    before = target.weight.clone()
    with pytest.raises(CheckpointError, match=r"bias has shape \(1,\) in the checkpoint and \(5,\)"):
        checkpoint.unpack_module(target, packed)
    assert torch.equal(target.weight, before)


def trained(steps: int, amsgrad: bool = False):
    torch.manual_seed(0)
    module = Tied()
    groups = [{"params": [module.embed.weight], "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.99), amsgrad=amsgrad)
    for _ in range(steps):
        module.head(module.embed(torch.arange(5))).square().sum().backward()
        optimizer.step()
    return module, optimizer


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adamw_state_round_trips_exactly(tmp_path, steps, amsgrad):
    _, optimizer = trained(steps, amsgrad)
    value, tensors = checkpoint.pack_optimizer(optimizer)
    checkpoint.write(tmp_path / "o.zip", {"o.json": value, "o.safetensors": tensors})
    read = checkpoint.read(tmp_path / "o.zip")
    _, other = trained(0, amsgrad)
    checkpoint.unpack_optimizer(other, read["o.json"], read["o.safetensors"])
    assert same(optimizer.state_dict(), other.state_dict())


def test_optimizer_state_of_other_parameters_is_refused():
    value, tensors = checkpoint.pack_optimizer(trained(1)[1])
    other = torch.optim.AdamW(nn.Linear(3, 5, bias=False).parameters())
    checkpoint.unpack_optimizer(other, value, tensors)  # one [5, 3] parameter, as there
    for stranger in (nn.Linear(3, 5), nn.Linear(5, 3, bias=False)):
        with pytest.raises(CheckpointError, match="other parameters"):
            checkpoint.unpack_optimizer(torch.optim.AdamW(stranger.parameters()), value, tensors)
    with pytest.raises(CheckpointError):
        checkpoint.unpack_optimizer(other, value, {})


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
leaves = plain | st.builds(lambda x: torch.tensor(x), st.floats(0, 1) | st.integers(-9, 9))
keys = st.integers(0, 9) | st.text(st.characters(codec="utf-8"), max_size=3)
trees = st.recursive(
    leaves,
    lambda t: st.lists(t, max_size=3) | st.tuples(t, t) | st.dictionaries(keys, t, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(trees)
def test_any_nested_state_round_trips(tree):
    file = io.BytesIO()
    value, tensors = checkpoint.pack_tree(tree)
    checkpoint.write(file, {"s.json": value, "s.safetensors": tensors})
    read = checkpoint.read(file)
    assert same(tree, checkpoint.unpack_tree(read["s.json"], read["s.safetensors"]))


def test_state_that_a_checkpoint_cannot_hold_is_named():
    with pytest.raises(ValueError, match="schedule is a function"):
        checkpoint.pack_tree({"schedule": test_state_that_a_checkpoint_cannot_hold_is_named})
