"""Whole files or none: a reader, or a crash, never meets half of one."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Lets `write` fill a new file beside `path`, then puts it in the place of `path` in one step.

    Whatever `write` raises is passed on, and `path` is then as it was before.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    return path


def replace_text(path: Path, text: str) -> Path:
    """Like `replace_file`, for UTF-8 text."""
    return replace_file(path, lambda draft: draft.write_text(text, encoding="utf-8"))
