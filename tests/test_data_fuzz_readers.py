"""Whatever is wrong with a file: one line that names it, or every row read or rejected once."""

import gzip
import io
import os
import re

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diet_jax.data import readers, text
from diet_jax.types import InputError

EXAMPLES = int(os.environ.get("DIET_JAX_FUZZ", "60"))  # a format
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

CELLS = st.sampled_from(
    [
        "1",
        "-7",
        "2.5",
        "9" * 25,
        "1e400",
        "nan",
        "",
        "é",
        "x y",
        '"q"',
        '"a,b"',
        '"a\nb"',
        '""',
        "'",
    ]
)
CSV_SNIPPETS = [
    b'"',
    b",",
    b"\n",
    b"\r\n",
    b"\r",
    b";",
    b"\t",
    b"\xff",
    b"\0",
    b'"\n',
    b'""',
    b"\n\n",
]
CSV_SNIPPETS += [b"\xef\xbb\xbf", b"1,2,3\n", b"1\n", b'x"y', b"\x1f", b"\xe2\x80\xa8", b" "]
VALUES = st.sampled_from(
    [b"1", b"-7", b"2.5", b"9" * 25, b"1e400", b"null", b"true", b'"x"', b'"\\ud800"', b"[1]"]
    + [b'["a",2]', b"[]", b'{"k":1}', b"[[1]]", b"9007199254740993", b"NaN", b'"\xc3\xa9"', b"1.0"]
)
JSON_SNIPPETS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r\n", b"\r", b"\xff", b"\0"]
JSON_SNIPPETS += [
    b"\n\n",
    b"\xef\xbb\xbf",
    b"{}",
    b"{}\n",
    b"1\n",
    b"null\n",
    b" ",
    b"\\",
    b"-",
    b"0",
]


def mutated(snippets):
    """Edits of a file's content: each cuts the end off, or replaces a few bytes by others."""
    place = st.floats(0, 1, exclude_max=True)
    cut = st.tuples(st.just("cut"), place, st.just(0), st.just(b""))
    edit = st.tuples(
        st.just("edit"), place, st.integers(0, 4), st.sampled_from(snippets) | st.binary(max_size=3)
    )
    return st.lists(cut | edit, max_size=4)


def apply(edits, content):
    for what, place, removed, added in edits:
        at = int(place * len(content))
        content = content[:at] + (b"" if what == "cut" else added + content[at + removed :])
    return content


# Files so small meet the ends of chunks, pieces and blocks only if those are smaller.
SMALL = {"_CHUNK": 37, "_PIECE": 11, "BLOCK": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("a folder with spaces")


def read(part):
    """All blocks of a part, or None if it ends with one line that names the file."""
    try:
        blocks = list(part.blocks())
    except InputError as error:
        assert str(error).startswith(part.where) and "\n" not in str(error)
        return None
    assert blocks
    for block in blocks:
        assert len(block.rows) == block.frame.height and block.rows.dtype == pl.Int64
        for reject in block.rejects:
            assert reject.where == part.where and reject.reason and "\n" not in reject.value
    return blocks


def read_alike(part):
    """As `read`; in small pieces it must give the same rows and rejects."""
    blocks = read(part)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SMALL.items():
            patch.setattr(text, name, size)
        small = read(part)
    assert (blocks is None) == (small is None)
    if blocks and small:
        assert numbers(small) == numbers(blocks)
        assert [one for b in small for one in b.rejects] == [r for b in blocks for r in b.rejects]
    return blocks, small


def numbers(blocks):
    """The numbers of the rows and of the rejects, each ascending."""
    rows = [row for block in blocks for row in block.rows]
    rejects = [reject.row for block in blocks for reject in block.rejects]
    assert rows == sorted(set(rows)) and rejects == sorted(set(rejects))
    assert not set(rows) & set(rejects)
    return rows, rejects


def text_lines(content):
    """The lines of a text, without those blank ones at its end."""
    text = re.sub(b"\r\n?", b"\n", content.removeprefix(b"\xef\xbb\xbf"))
    return text.rstrip(b"\n").split(b"\n")


def is_no_text(content):
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return is_utf16 or not content.removeprefix(b"\xef\xbb\xbf").strip()


@st.composite
def csv_files(draw):
    rows = draw(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = "".join(",".join(row) + end for row in rows).encode()
    return text, draw(mutated(CSV_SNIPPETS))


def frame_of(blocks):
    return pl.concat([block.frame for block in blocks])


def check_csv(blocks, lines):
    """Every line is a part of one row, rejected or blank."""
    rows, rejects = numbers(blocks)
    within = sum(cell.count("\n") for row in frame_of(blocks).rows() for cell in row if cell)
    blank = max([0, *rows, *rejects]) - len(rows) - len(rejects)
    assert len(rows) + len(rejects) + within + blank == len(lines)
    assert blank <= sum(line == b"" for line in lines)


@fuzz
@given(csv_files())
def test_csv(folder, file):
    content = apply(file[1], file[0])
    path = folder / "log.csv"
    path.write_bytes(content)
    blocks, small = read_alike(readers.delimited(path, header=("a", "b", "c")))
    if is_no_text(content):
        return
    assert blocks is not None
    check_csv(blocks, text_lines(content))
    assert frame_of(small).equals(frame_of(blocks))


@fuzz
@given(
    csv_files(), st.sampled_from([b"a,b,c\n", b"a;b;c\n", b"a,,c\n", b"a,a,c\n", b'"a\n', b"a\n"])
)
def test_csv_with_a_header(folder, file, header):
    content = apply(file[1], header + file[0])
    path = folder / "log.csv"
    path.write_bytes(content)
    blocks, _ = read_alike(readers.delimited(path))
    if blocks is not None:
        check_csv(blocks, b"\n".join(text_lines(content)).lstrip(b"\n").split(b"\n")[1:])


@fuzz
@given(csv_files(), mutated([b"\0", b"\xff", b"\x1f\x8b"]))
def test_csv_gz(folder, file, edits):
    packed = gzip.compress(b"a,b,c\n" + file[0], 1, mtime=0)
    path = folder / "log.csv.gz"
    path.write_bytes(packed)
    before = read(readers.delimited(path))
    path.write_bytes(apply(edits, packed))
    after = read(readers.delimited(path))
    # The checksum finds all damage but of the few bytes that it does not cover.
    assert before is not None and (after is None or numbers(after) == numbers(before))


@st.composite
def jsonl_files(draw):
    rows = draw(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=12))
    text = b"".join(b'{"a":%s,"b":%s}\n' % row for row in rows)
    return apply(draw(mutated(JSON_SNIPPETS)), text)


@fuzz
@given(
    jsonl_files(),
    st.sampled_from([("a",), ("a", "b"), ("b", "z")]),
    st.sampled_from([(), ("a", "b")]),
)
def test_jsonl(folder, content, columns, lists):
    path = folder / "log.jsonl"
    path.write_bytes(content)
    lists = {name: "|" for name in lists if name in columns}
    blocks, _ = read_alike(readers.jsonl(path, columns, lists))
    if is_no_text(content):
        return
    assert blocks is not None
    rows, rejects = numbers(blocks)
    filled = [at for at, line in enumerate(text_lines(content), 1) if line.strip()]
    assert sorted(rows + rejects) == filled
    assert all(block.frame.columns == list(columns) for block in blocks)


def sample():
    n = 12
    return pa.table(
        {
            "whole": pa.array([*range(n - 1), None]),
            "real": np.linspace(0, 1, n),
            "text": [f"é{row**5}" for row in range(n)],
            "lists": [["a"] * (row % 3) for row in range(n)],
            "coded": pa.array(["x", "yy"] * (n // 2)).dictionary_encode(),
            "flag": [True, None] * (n // 2),
            "time": pa.array(range(n), pa.timestamp("us")),
        }
    )


def packed_parquet(codec):
    out = io.BytesIO()
    pq.write_table(sample(), out, row_group_size=5, compression=codec or "none")
    return out.getvalue()


def packed_arrow(codec, new=pa.ipc.new_file):
    out = io.BytesIO()
    with new(out, sample().schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(sample(), 5)
    return out.getvalue()


def packed_stream(codec):
    return packed_arrow(codec, pa.ipc.new_stream)


@pytest.mark.parametrize("write", [packed_parquet, packed_arrow, packed_stream])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_binary(folder, write, codec):
    """Damage without a checksum may change values, but ends no process and hides no cut."""
    whole = write(codec)
    path = folder / "log"
    reader = readers.parquet if write is packed_parquet else readers.arrow

    @settings(fuzz, max_examples=max(EXAMPLES // 2, 1))
    @given(mutated([b"\0", b"\xff", b"\x01", b"\x7f"]))
    def check(edits):
        content = apply(edits, whole)
        path.write_bytes(content)
        blocks = read(reader(path))
        if blocks is None:
            assert content != whole
        else:
            rows, rejects = numbers(blocks)
            assert rows == list(range(1, len(rows) + 1)) and not rejects
            assert content == whole or not whole.startswith(content)

    check()
