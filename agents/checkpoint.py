"""The checkpoint: one zip of JSON and safetensors members, checked before use. No pickle is written or read.

    manifest.json        format, version, library versions, and the sha256 and size of every other member
    *.json               plain JSON values
    *.safetensors        named tensors

Members are stored uncompressed: the tensors would not shrink, and a file that unpacks to more than its own
size cannot exist. A checkpoint is written beside its target, flushed to the disk and renamed onto it, so that
at any moment the target is the old file or the new one, whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from agents.packing import (
    CheckpointError,
    pack_module,
    pack_optimizer,
    pack_tree,
    unpack_module,
    unpack_optimizer,
    unpack_tree,
)
from reward_models.files import replacing

__all__ = [
    "CheckpointError",
    "pack_module",
    "pack_optimizer",
    "pack_tree",
    "read",
    "unpack_module",
    "unpack_optimizer",
    "unpack_tree",
    "write",
]

FORMAT = "text-envs checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
_LIBRARIES = ("text-envs", "torch", "transformers", "stable-baselines3", "gymnasium", "numpy")
_MEMBER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(json|safetensors)")
_MAX_MANIFEST_BYTES = 1 << 20

PathOrFile = str | os.PathLike[str] | IO[bytes]


def write(path: PathOrFile, members: Mapping[str, Any]) -> None:
    """Write `members` as one checkpoint, atomically where `path` is a path.

    Args:
        path: the target; ".zip" is added where it has no suffix, as Stable-Baselines3 does. Or a binary file.
        members: by name, a JSON value (names ending in ".json") or a dict of tensors (".safetensors").

    Raises:
        ValueError: a name that is not `letters.json` or `letters.safetensors`, or a value that is not JSON.
        OSError: the disk is full, say. The file that stood at `path` is then untouched.
    """
    for name in members:
        if name == MANIFEST or not _MEMBER_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name a checkpoint member: use letters, and end in .json or .safetensors."
            )
    if not isinstance(path, (str, os.PathLike)):
        return _write_zip(path, members)
    with replacing(_with_suffix(path)) as file:
        _write_zip(file, members)


def read(path: PathOrFile) -> dict[str, Any]:
    """Read and verify a checkpoint: the dict that `write` was given, tensors on the CPU.

    Raises:
        CheckpointError: the file is damaged, doctored, of another kind or of a newer version.
        FileNotFoundError: there is no such file.
    """
    if not isinstance(path, (str, os.PathLike)):
        return _read_zip(path, getattr(path, "name", "the given file"))
    target = Path(path)
    if not target.is_file() and _with_suffix(target).exists():
        target = _with_suffix(target)
    if target.is_dir():
        raise CheckpointError(
            f"{target} is a folder, and a checkpoint is one zip. Give the file; a folder that save_pretrained wrote is for "
            'policy_kwargs=dict(model="folder").'
        )
    with open(target, "rb") as file:
        return _read_zip(file, str(target))


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix else path.with_name(path.name + ".zip")


def _write_zip(file: IO[bytes], members: Mapping[str, Any]) -> None:
    listing = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, value in members.items():
            data = _tensors_to_bytes(value) if name.endswith(".safetensors") else _json_to_bytes(name, value)
            archive.writestr(zipfile.ZipInfo(name), data)  # ZipInfo's fixed date: same content, same bytes
            listing[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "libraries": _library_versions(),
            "members": listing,
        }
        archive.writestr(zipfile.ZipInfo(MANIFEST), _json_to_bytes(MANIFEST, manifest))


def _read_zip(file: IO[bytes], where: str) -> dict[str, Any]:
    try:
        size = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            listing = _checked_listing(archive, size, where)
            return {name: _read_member(archive, name, entry, where) for name, entry in listing.items()}
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError, RuntimeError, struct.error, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk failed, not the file's content
        raise CheckpointError(
            f"{where} is damaged or not a zip ({error}): it may have been cut off while it was copied. "
            "Take an older checkpoint, or copy it again."
        ) from error


def _checked_listing(archive: zipfile.ZipFile, size: int, where: str) -> dict[str, dict[str, Any]]:
    """The manifest's members, once the archive holds these alone, stored plainly, in at most `size` bytes."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if MANIFEST not in names:
        raise CheckpointError(
            f"{where} is not a checkpoint of this library: it has no {MANIFEST}. Zips that Stable-Baselines3 "
            "wrote hold pickled code and are never read; give one that this library's save() wrote."
        )
    stored = sum(info.file_size for info in infos)
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
        raise _doctored(where, "it has compressed or encrypted members, which this library never writes")
    if stored > size:
        raise _doctored(where, f"it claims {stored} bytes of content, more than the file has")
    if archive.getinfo(MANIFEST).file_size > _MAX_MANIFEST_BYTES:
        raise _doctored(where, f"its {MANIFEST} is larger than a megabyte")
    manifest = _json_from_bytes(archive.read(MANIFEST), MANIFEST, where)
    listing = _check_manifest(manifest, where)
    if sorted(names) != sorted([*listing, MANIFEST]):
        strangers = sorted(set(names) ^ {*listing, MANIFEST}) or ["a name that stands twice"]
        raise _doctored(
            where, f"its members are not those of its {MANIFEST}: {', '.join(map(repr, strangers[:5]))}"
        )
    return listing


def _check_manifest(manifest: Any, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"{where} is not a checkpoint of this library: its {MANIFEST} does not say {FORMAT!r}. "
            "Give a zip that this library's save() wrote."
        )
    version, listing = manifest.get("version"), manifest.get("members")
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(
            f"{where} has checkpoint format {version}, and this version of text-envs reads up to {VERSION}. "
            "Upgrade text-envs to load it."
        )
    if not isinstance(listing, dict) or not all(isinstance(entry, dict) for entry in listing.values()):
        raise _doctored(where, f"its {MANIFEST} lists no members")
    for name in listing:
        if name == MANIFEST or not _MEMBER_NAME.fullmatch(name):
            raise _doctored(
                where, f"it has a member called {name!r}, and only plain .json and .safetensors are allowed"
            )
    return listing


def _read_member(archive: zipfile.ZipFile, name: str, entry: dict[str, Any], where: str) -> Any:
    if archive.getinfo(name).file_size != entry.get("size"):
        raise _doctored(where, f"{name} has another size than {MANIFEST} says")
    data = archive.read(name)
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise _doctored(where, f"{name} has another sha256 than {MANIFEST} says")
    if name.endswith(".json"):
        return _json_from_bytes(data, name, where)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _doctored(where, f"{name} is not in safetensors format ({error})") from error


def _doctored(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where} was changed or damaged after it was written: {what}. Nothing of it was loaded; "
        "take another checkpoint or a fresh copy."
    )


def _json_to_bytes(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value, indent=1).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Checkpoint member {name!r} is not made of JSON values: {error}. Convert it first."
        ) from error


def _json_from_bytes(data: bytes, name: str, where: str) -> Any:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise _doctored(where, f"{name} is not valid JSON ({error})") from error


def _tensors_to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Safetensors wants each tensor contiguous, on the CPU and alone in its memory; others are copied."""
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        plain[name] = tensor
    return safetensors.torch.save(plain)


def _library_versions() -> dict[str, str]:
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return versions
