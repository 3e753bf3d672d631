"""Files that are read with the line of every row, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the block ends well, and leaves no trace when it does not.

    Raises:
        FileNotFoundError, PermissionError: its folder does not exist, or cannot be written to.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {target.parent}. Create it.")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(
            f"{path} cannot be written: the folder {target.parent} is another's. Name another path."
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON, atomically.

    Raises:
        ValueError, TypeError: NaN, an infinity, or what JSON cannot hold. The old file is then untouched.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def read_rows(
    path: str | os.PathLike[str],
    suffixes: tuple[str, ...] = (".jsonl",),
    error: type[Exception] = ValueError,
    problems: list[str] | None = None,
) -> tuple[list[Any], list[int]]:
    """The rows of a `.jsonl` or `.txt` file, gzipped or not, and the line on which each stands. Blank lines are skipped.

    Args:
        problems: where given, a line that cannot be read is described here and left out, instead of raised.

    Raises:
        error: a missing file, another suffix, or a line that is not JSON or not UTF-8, with its number.
    """
    path = Path(path)
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in suffixes or not path.is_file():
        what = "does not exist" if kind in suffixes else f"has none of the suffixes {', '.join(suffixes)}"
        raise error(f"{path} {what}. Give the path of a {' or '.join(f'{s}[.gz]' for s in suffixes)} file.")
    rows, lines, number = [], [], 0

    def report(reason: Exception, number: int) -> None:
        message = f"{path}, line {number}, cannot be read: {reason}. Repair or remove it."
        if problems is None:
            raise error(message) from reason
        problems.append(message)

    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                    if line.strip():
                        rows.append(json.loads(line) if kind == ".jsonl" else line)
                        lines.append(number)
                except (ValueError, RecursionError) as reason:  # not JSON, not UTF-8, nested too deep
                    report(reason, number)
    except (EOFError, OSError, zlib.error) as reason:  # a gzip file cut short or damaged
        report(reason, number + 1)
    return rows, lines


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can sync a folder (Windows cannot)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
