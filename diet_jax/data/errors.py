"""Turns what the libraries raise about a file into our one line."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pyarrow as pa

from diet_jax.data.columns import one_line
from diet_jax.types import InputError

_TROUBLES = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # of zipfile: a password, and (NotImplementedError) other compressions
    MemoryError,  # a damaged length asks for more than there is
    KeyError,  # of zipfile: no such member
    zlib.error,
    zipfile.BadZipFile,
    pa.ArrowException,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
_CURES = {
    FileNotFoundError: "does not exist; check the path",
    IsADirectoryError: "is a folder; give a file",
    PermissionError: "no permission to read it; change its mode",
}


@contextmanager
def told(where: str, cure: str = "") -> Iterator[None]:
    """Turns what the libraries raise into InputError. cure: what to do about all of it, "" for what
    helps with a log."""
    try:
        yield
    except InputError:
        raise
    except _TROUBLES as error:
        usual = "check that it is complete and of the format that its name says"
        default = f"cannot be read ({one_line(error)}); {cure or usual}"
        said = default if cure else _CURES.get(type(error), default)
        raise InputError(f"{where}: {said}") from error
