"""Every format gives the same rows in blocks, with each bad row's number and reason."""

import gzip
import os
import zipfile

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_jax.data import readers, text
from diet_jax.types import InputError


@pytest.fixture
def write(tmp_path):
    def write(content, name="a log.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def rows(part):
    """All cells by row number, and the rejects as (row, reason)."""
    blocks = list(part.blocks())
    found = {n: r for b in blocks for n, r in zip(b.rows, b.frame.rows(), strict=True)}
    return found, [(reject.row, reject.reason) for b in blocks for reject in b.rejects]


def line(part):
    with pytest.raises(InputError) as caught:
        list(part.blocks())
    text = str(caught.value)
    assert "\n" not in text and text.startswith(part.where)
    return text


def test_csv(write):
    path = write('a,b\n1,"x, ""y"""\n,\n3,é\n')
    found, rejects = rows(readers.delimited(path))
    assert found == {1: ("1", 'x, "y"'), 2: (None, None), 3: ("3", "é")} and not rejects


def test_bom_line_ends_and_blank_lines(write):
    for content in (
        b"\xef\xbb\xbf\na,b\n1,2\n\n3,4",
        b"a,b\r\n1,2\r\n\r\n3,4\r\n",
        b"a,b\r1,2\r\r3,4\r\r",
    ):
        part = readers.delimited(write(content))
        assert rows(part) == ({1: ("1", "2"), 3: ("3", "4")}, [])
        assert next(part.blocks()).frame.columns == ["a", "b"]


def test_bad_rows_are_numbered_and_named(write):
    path = write(b'a,b\n1,2\n3\n4,5,6\n7,\xff\n"8\n9,"x\ny"\n10,5" x\n11,"x"y\n12,"x\n13,"y"\n14,2')
    found, rejects = rows(readers.delimited(path))
    assert found == {
        1: ("1", "2"),
        6: ("9", "x\ny"),
        7: ("10", '5" x'),
        8: ("11", "xy"),
        10: ("13", "y"),
        11: ("14", "2"),
    }
    ragged, stray = "another number of columns", "a quote in the wrong place"
    assert rejects == [(2, ragged), (3, ragged), (4, "not UTF-8"), (5, stray), (9, stray)]
    [reject, *_] = next(readers.delimited(path).blocks()).rejects
    assert reject.where == str(path) and reject.value == "3" and reject.column == ""


def test_an_unclosed_quote_costs_one_row(write, monkeypatch):
    body = "".join(f"{row},x\n" for row in range(50_000))
    path = write('a,b\n0,"x\n' + body)
    for chunk in (1 << 14, 1 << 24):
        monkeypatch.setattr(text, "_CHUNK", chunk)
        found, rejects = rows(readers.delimited(path))
        assert len(found) == 50_000 and found[50_001] == ("49999", "x")
        assert rejects == [(1, "an unclosed quote, or too long a cell")]


def test_blocks_do_not_depend_on_where_chunks_end(write, monkeypatch):
    path = write("a,b\n" + "".join(f'{row},"x\n,{row}"\n' for row in range(300)))
    whole = rows(readers.delimited(path))
    for name, size in {"_CHUNK": 101, "_PIECE": 50, "BLOCK": 7}.items():
        monkeypatch.setattr(text, name, size)
    assert rows(readers.delimited(path)) == whole and len(whole[0]) == 300
    assert max(len(block.rows) for block in readers.delimited(path).blocks()) <= 7


def test_layouts_of_published_logs(write):
    path = write("1::L\xe9on::3\n2::4\n".encode("latin1"))
    part = readers.delimited(path, "::", ("user", "title", "stars"), encoding="latin1")
    assert rows(part) == ({1: ("1", "Léon", "3")}, [(2, "another number of columns")])
    part = readers.delimited(write('1\t"x\n\t\n'), "\t", ("a", "b"), quote="")
    assert rows(part) == ({1: ("1", '"x'), 2: (None, None)}, [])


def test_archives(write, tmp_path):
    good = b"a,b\n1,2\n"
    packed = gzip.compress(good)
    assert rows(readers.delimited(write(packed, "x.csv.gz")))[0] == {1: ("1", "2")}
    with zipfile.ZipFile(tmp_path / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log/x.csv", good)
        archive.writestr("log/x.csv.gz", packed)
    for member in ("log/x.csv", "log/x.csv.gz"):
        part = readers.delimited(tmp_path / "logs.zip", member=member)
        assert part.where.endswith(f"logs.zip/{member}") and rows(part)[0] == {1: ("1", "2")}
        assert part.files == (str(tmp_path / "logs.zip"),)
    assert "log/y.csv" in line(readers.delimited(tmp_path / "logs.zip", member="log/y.csv"))
    whole = (tmp_path / "logs.zip").read_bytes()
    assert "cannot be read" in line(readers.delimited(write(whole[:-40], "cut.zip"), member="x"))
    assert "cannot be read" in line(readers.delimited(write(packed[:-3], "cut.csv.gz")))
    assert "cannot be read" in line(readers.delimited(write(good, "plain.csv.gz")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n \r\n", "is empty"),
        ("a,a\n1,2\n", "'a' twice"),
        ("a,,c\n1,2,3\n", "no name for column 2"),
        ("a;b\n1;2\n", "separated by ';', not by ','"),
        ('a,"b\n1,2\n', "unclosed quote"),
        (b"a,\xff\n1,2\n", "header"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"\0" * 40_000_000, "a line of more than"),
    ],
)
def test_bad_text_files(write, content, words):
    assert words in line(readers.delimited(write(content)))


def test_a_header_alone_tells_the_columns(write):
    [block] = readers.delimited(write("a,b")).blocks()
    assert block.frame.schema == {"a": pl.String, "b": pl.String} and len(block.rows) == 0


@pytest.mark.parametrize("read", [readers.delimited, readers.jsonl, readers.parquet, readers.arrow])
def test_no_such_file(read, tmp_path, write):
    assert "does not exist" in line(read(tmp_path / "none"))
    assert "is a folder" in line(read(tmp_path))
    assert "is empty" in line(read(write(b"")))
    path = write("secret")
    path.chmod(0)
    if not os.access(path, os.R_OK):
        assert "permission" in line(read(path))


def test_jsonl(write):
    path = write('{"a":1,"l":["x"],"n":{"k":1}}\n{"a":2,"t":"é"}\n')
    [block] = readers.jsonl(path).blocks()
    assert block.frame.to_dict(as_series=False) == {
        "a": [1, 2],
        "l": [["x"], None],
        "t": [None, "é"],
    }
    assert block.frame.schema["a"] == pl.Int64 and block.rows.to_list() == [1, 2]
    [block] = readers.jsonl(path, ("t", "n", "z")).blocks()
    assert block.frame.rows() == [(None, None, None), ("é", None, None)]


def test_jsonl_rejects_lines(write):
    path = write(b'{"a":1}\n\n[1]\n{"a":\n{"a":"\xff"}\n{"a":2}\n')
    found, rejects = rows(readers.jsonl(path))
    assert found == {1: (1,), 6: (2,)}
    assert rejects == [(3, "not an object"), (4, "not JSON"), (5, "not UTF-8")]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", '"x"'], ["1", "x"]),
        (["1", "true"], ["1", "true"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["1", "[1]"], ["1", "[1]"]),
        (["1", "2.5"], [1.0, 2.5]),
        (["null", "null"], [None, None]),
        (["[1]", '["x"]'], [["1"], ["x"]]),
        (["9" * 30, "1"], [10**30 - 1, 1]),
        (["9" * 60, "1"], ["9" * 60, "1"]),
    ],
)
def test_jsonl_of_mixed_types_loses_no_value(write, values, expected):
    path = write("".join(f'{{"a":{value}}}\n' for value in values))
    assert [row[0] for row in rows(readers.jsonl(path))[0].values()] == expected


def test_jsonl_keeps_the_columns_of_earlier_blocks(write, monkeypatch):
    monkeypatch.setattr(text, "_CHUNK", 8)
    blocks = list(readers.jsonl(write('{"a":1}\n{"b":2}\n{}\n')).blocks())
    assert [block.frame.columns for block in blocks] == [["a"], ["a", "b"], ["a", "b"]]
    assert [block.frame.rows() for block in blocks] == [[(1,)], [(None, 2)], [(None, None)]]


@pytest.fixture(scope="module")
def frame():
    text = pl.col("id").cast(pl.String)
    return pl.select(id=pl.int_range(140_000)).with_columns(
        text="é" + text,
        kind=("é" + text.str.head(1)).cast(pl.Categorical),
        tags=pl.concat_list(text, text),
        time=pl.col("id").cast(pl.Datetime("us")),
    )


def write_stream(table, path):
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


def write_one_batch(table, path):
    table = table.combine_chunks()
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("save", "read"),
    [
        (lambda table, path: pq.write_table(table, path), readers.parquet),
        (lambda table, path: pl.DataFrame(table).write_parquet(path), readers.parquet),
        (lambda table, path: pl.DataFrame(table).write_ipc(path), readers.arrow),
        (lambda table, path: pl.DataFrame(table).write_ipc_stream(path), readers.arrow),
        (write_stream, readers.arrow),
        (write_one_batch, readers.arrow),
    ],
)
def test_binary_files_come_in_blocks(tmp_path, frame, save, read):
    path = tmp_path / "a log"
    # As pandas, DuckDB and Spark write text: not the views that Polars keeps.
    save(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path)
    blocks = list(read(path).blocks())
    assert len(blocks) > 1 and max(len(block.rows) for block in blocks) <= 1 << 17
    whole = pl.concat([block.frame for block in blocks])
    assert whole.equals(frame.cast({"kind": pl.String})) and whole.schema["kind"] == pl.String
    assert pl.concat([block.rows for block in blocks]).equals(pl.Series(range(1, len(frame) + 1)))
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read" in line(read(path))


def test_parquet_columns(tmp_path, frame):
    path = tmp_path / "x.parquet"
    frame.head(3).write_parquet(path)
    [block] = readers.parquet(path, ("text", "id")).blocks()
    assert block.frame.columns == ["text", "id"]
    assert "no column 'z'; it has: id, text" in line(readers.parquet(path, ("z",)))
    frame.clear().write_parquet(path)
    [block] = readers.parquet(path).blocks()
    assert block.frame.schema["kind"] == pl.String and block.rows.dtype == pl.Int64


def test_a_stream_cut_between_batches_is_found(tmp_path):
    path = tmp_path / "x.arrow"
    table = pa.table({"a": [1, 2]})
    with pa.OSFile(str(path), "wb") as sink:
        writer = pa.ipc.new_stream(sink, table.schema)
        writer.write_table(table)
    assert "end mark" in line(readers.arrow(path))


def test_table_parts(tmp_path, write):
    write("a\tb\n1\t2\n", "b.TSV")
    write('{"a":1}\n', "c.jsonl")
    write(gzip.compress(b"a,b\n1,2\n"), "a.csv.gz")
    write("hidden", ".d.csv")
    write("words", "readme.txt")
    parts = readers.table_parts(tmp_path)
    assert [os.path.basename(part.where) for part in parts] == ["a.csv.gz", "b.TSV", "c.jsonl"]
    assert [rows(part)[0][1] for part in parts] == [("1", "2"), ("1", "2"), (1,)]
    [part] = readers.table_parts(str(tmp_path / "c.jsonl"))
    assert rows(part)[0] == {1: (1,)}
    for path, words in ((tmp_path / "none.csv", "not exist"), (tmp_path / "readme.txt", ".csv")):
        with pytest.raises(InputError, match=words):
            readers.table_parts(path)
