"""Every format gives the same rows in blocks, with each bad row's number and reason."""

import gzip
import os
import zipfile
from functools import partial

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
    read = partial(read, columns=("a",))
    assert "does not exist" in line(read(tmp_path / "none"))
    assert "is a folder" in line(read(tmp_path))
    assert "is empty" in line(read(write(b"")))
    path = write("secret")
    path.chmod(0)
    if not os.access(path, os.R_OK):
        assert "permission" in line(read(path))


def test_jsonl(write):
    path = write('{"a":1,"l":["x"],"n":{"k":1}}\n{"a":2,"t":"é"}\n')
    [block] = readers.jsonl(path, ("a", "l", "t"), {"l": ""}).blocks()
    assert block.frame.to_dict(as_series=False) == {
        "a": [1, 2],
        "l": [["x"], None],
        "t": [None, "é"],
    }
    assert block.frame.schema["a"] == pl.Int64 and block.rows.to_list() == [1, 2]
    [block] = readers.jsonl(path, ("t", "z", "l"), {"l": ""}).blocks()
    assert block.frame.rows() == [(None, None, ["x"]), ("é", None, None)]
    assert list(block.lacking) == ["z"] and "'z'; it has: a, l, n, t;" in block.lacking["z"]


def test_jsonl_rejects_lines(write):
    path = write(b'{"a":1}\n\n[1]\n{"a":\n{"a":"\xff"}\n{"a":2}\n')
    found, rejects = rows(readers.jsonl(path, ("a",)))
    assert found == {1: (1,), 6: (2,)}
    assert rejects == [(3, "not an object"), (4, "not JSON"), (5, "not UTF-8")]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", '"x"'], ["1", "x"]),
        (["1", "true"], ["1", "true"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["1", "2.5"], [1.0, 2.5]),
        (["null", "null"], [None, None]),
        (["[1]", '["x"]'], [["1"], ["x"]]),
        (["[1]", "true"], [["1"], ["true"]]),
        (["9" * 30, "1"], [10**30 - 1, 1]),
        (["9" * 60, "1"], ["9" * 60, "1"]),
        (["NaN", '"x"'], [None, "x"]),
        (["NaN", "1"], [None, "1"]),
        (['[NaN, "x"]', "null"], [[None, "x"], None]),
    ],
)
def test_jsonl_of_mixed_types_loses_no_value(write, values, expected):
    path = write("".join(f'{{"a":{value}}}\n' for value in values))
    part = readers.jsonl(path, ("a",), {"a": ""} if "[" in values[0] else {})
    assert [row[0] for row in rows(part)[0].values()] == expected


@pytest.mark.parametrize(
    "line", ['{"a":1,"b":2,"a":3}', '{"a":1e-7}', '{"a":1e300}', '{"a":-0.0}', '{"a":1e17}']
)
def test_a_line_of_jsonl_does_not_depend_on_the_others(write, line):
    """A bad one among them, or one of text."""
    lines = f'{line}\n{{"a":"x"}}\n'
    whole, _ = rows(readers.jsonl(write(lines), ("a",)))
    assert rows(readers.jsonl(write(lines + "[1]\n"), ("a",)))[0] == whole


OBJECT, LIST = '{"id": 1}', '["x", "y"]'


@pytest.mark.parametrize("chunk", [8, 1 << 24])
@pytest.mark.parametrize("other", ["7", '"x"', "true", "null", OBJECT, "[]"])
def test_jsonl_rejects_what_is_nested_in_a_column(write, monkeypatch, other, chunk):
    """Whatever else the block holds."""
    monkeypatch.setattr(text, "_CHUNK", chunk)
    path = write(f'{{"a":{OBJECT},"n":1}}\n{{"a":{LIST},"n":2}}\n{{"a":{other},"n":3}}\n')
    found, rejects = rows(readers.jsonl(path, ("a", "n")))
    bad = 3 if other in (OBJECT, "[]") else 2
    assert rejects == [(row + 1, "is nested") for row in range(bad)] and len(found) == 3 - bad
    found, rejects = rows(readers.jsonl(path, ("a", "n"), {"a": "|"}))
    assert 2 in found and (1, "is nested") in rejects and (other == OBJECT) == (3 not in found)
    [reject, *_] = next(readers.jsonl(path, ("a",)).blocks()).rejects
    assert (reject.column, reject.value) == ("a", OBJECT)


def test_jsonl_puts_single_values_among_lists_into_lists(write):
    column, lists = ("a",), {"a": "|"}
    path = write('{"a":["x","y"]}\n{"a":"z| x"}\n{"a":7}\n{"a":null}\n')
    assert rows(readers.jsonl(path, column, lists))[0] == {
        1: (["x", "y"],),
        2: (["z", "x"],),
        3: (["7"],),
        4: (None,),
    }
    found, _ = rows(readers.jsonl(write('{"a":7}\n{"a":8}\n'), column, lists))
    assert found == {1: ([7],), 2: ([8],)}
    found, _ = rows(readers.jsonl(write('{"a":"x|y"}\n'), column, lists))
    assert found == {1: ("x|y",)}  # to be split as text of any file is


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
    [block] = readers.parquet(path, ("z", "id")).blocks()
    assert block.frame.columns == frame.columns and len(block.rows) == 0
    frame.clear().write_parquet(path)
    [block] = readers.parquet(path).blocks()
    assert block.frame.schema["kind"] == pl.String and block.rows.dtype == pl.Int64


def odd_table():
    """With columns that Polars has no type for, or of one name; `a` is fine."""
    odd = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32()))
    code = pa.array(["x", "y"]).dictionary_encode()
    return pa.table([odd, code, [1, 2], [3, 4], code], ["m", "z", "a", "z", "coded"])


@pytest.mark.parametrize(
    ("save", "read"),
    [
        (lambda table, path: pq.write_table(table, path), readers.parquet),
        (write_one_batch, readers.arrow),
        (write_stream, readers.arrow),
        (
            lambda table, path: path.write_text("m,z,a,z,coded,\n\xff,,1,3, x,\n,,2,4,y ,\n"),
            readers.delimited,
        ),
    ],
)
def test_columns_that_are_not_kept_do_not_matter(tmp_path, save, read):
    path = tmp_path / "a log"
    save(odd_table(), path)
    [block] = read(path, columns=("coded", "a")).blocks()
    assert block.frame.columns == ["coded", "a"]
    assert block.frame.cast(pl.String).rows() == [("x", "1"), ("y", "2")]
    assert "z" in line(read(path, columns=("a", "z")))
    [block] = read(path, columns=("none", "a")).blocks()
    assert {"m", "z", "a", "coded"} <= set(block.frame.columns) and len(block.rows) == 0


@pytest.mark.parametrize("kind", [pa.decimal256(50, 2), pa.list_(pa.decimal256(50, 2))])
def test_numbers_that_are_too_wide_are_refused(tmp_path, capfd, kind):
    pq.write_table(pa.table({"a": pa.nulls(3, kind), "b": [1, 2, 3]}), tmp_path / "x.parquet")
    assert "column 'a': holds " in line(readers.parquet(tmp_path / "x.parquet"))
    assert capfd.readouterr().err == ""
    assert len(rows(readers.parquet(tmp_path / "x.parquet", ("b",)))[0]) == 3


def test_blanks_around_cells_are_no_part_of_them(write):
    for content in (
        "a,b\n 0,x y\n0 , \n",
        'a,b\n" 0","x y "\n0,\n',
        'a,b\n 0,"x y"\n0,\n"c" d,1\n',  # line by line
    ):
        found, _ = rows(readers.delimited(write(content)))
        assert (found[1], found[2]) == (("0", "x y"), ("0", None))


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
    write(gzip.compress(b'{"a":1}\n'), "d.ndjson.gz")
    for name in ("readme.txt", "LICENSE", "notes.md", "_SUCCESS", "_committed_17"):
        write("words", name)
    parts = readers.table_parts(tmp_path, ("a",))
    assert [os.path.basename(part.where) for part in parts] == [
        "a.csv.gz",
        "b.TSV",
        "c.jsonl",
        "d.ndjson.gz",
    ]
    assert [rows(part)[0][1] for part in parts] == [("1",), ("1",), (1,), (1,)]
    [part] = readers.table_parts(str(tmp_path / "c.jsonl"), ("a",))
    assert rows(part)[0] == {1: (1,)}
    [part] = readers.table_parts(write("a\n1\n", ".hidden.csv"))
    assert rows(part)[0] == {1: ("1",)}
    for path, words in ((tmp_path / "none.csv", "not exist"), (tmp_path / "readme.txt", ".csv")):
        with pytest.raises(InputError, match=words):
            readers.table_parts(path)


@pytest.mark.parametrize(
    "name",
    [
        *("b.csv.zst", "b.txt", "part-0001", "day=2/b.txt", "_delta_log/b.csv"),
        *("_part2.csv.zst", "license_plates.csv.bz2", "README/b", "in/_temporary/b.csv"),
    ],
)
def test_a_folder_leaves_nothing_out_in_silence(tmp_path, write, name):
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    write("a\n1\n", "a.csv")
    write("a\n1\n", name)
    for path in (tmp_path, tmp_path / "*", tmp_path / "**" / "*"):
        with pytest.raises(
            InputError, match=f"{name.split('/')[0]}.*: would be left out; (move )?it"
        ):
            readers.table_parts(path)


def contents(path, columns=()):
    """The rows of all parts in order, by the names of their columns."""
    parts = readers.table_parts(path, columns)
    return [row for part in parts for b in part.blocks() for row in b.frame.rows(named=True)]


def test_folders_in_a_folder_belong_to_the_log(tmp_path):
    for name, value in (("b/c/1.csv", 1), ("a.parquet/2.csv", 2), ("b/0.csv", 3), (".x/4.csv", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(f"a\n{value}\n")
    (tmp_path / "empty").mkdir()
    assert [row["a"] for row in contents(tmp_path)] == ["2", "3", "1"]
    assert [row["a"] for row in contents(tmp_path / "b*" / "*.csv")] == ["3"]
    assert [row["a"] for row in contents(tmp_path / "**" / "[12].csv")] == ["2", "1"]
    assert contents(tmp_path / "**") == contents(tmp_path)
    with pytest.raises(InputError, match=r"d\*: matches no file; check the pattern"):
        readers.table_parts(tmp_path / "d*")
    assert [row["a"] for row in contents(tmp_path / "*" / "**")] == ["2", "3", "1"]
    (tmp_path / "b" / "again").symlink_to(tmp_path, target_is_directory=True)
    for path in (tmp_path, tmp_path / "**" / "*.csv"):
        with pytest.raises(InputError, match="b/again: is a link to a folder that it lies in"):
            readers.table_parts(path)


def test_no_file_is_read_twice(tmp_path):
    (tmp_path / "d2").mkdir()
    (tmp_path / "d2" / "x.csv").write_text("a\n1\n")
    (tmp_path / "latest").symlink_to("d2", target_is_directory=True)
    with pytest.raises(InputError, match="latest/x.csv: is the same as .*d2/x.csv; remove"):
        readers.table_parts(tmp_path)
    assert len(contents(tmp_path / "latest")) == len(contents(tmp_path / "d*")) == 1


def test_names_of_folders_are_columns(tmp_path, monkeypatch):
    """As Hive and Spark write them; only those that are asked for, below the path that is given."""
    root = tmp_path / "dt=2000-01-01" / "log"
    frame = pl.DataFrame({"a": [1, 2], "site": ["own", "own"]})
    for day, site in (("1", "x%2Fy%3Dz"), ("2", "__HIVE_DEFAULT_PARTITION__")):
        folder = root / f"dt=2024-01-0{day}" / f"site={site}"
        folder.mkdir(parents=True)
        frame.write_parquet(folder / "part-0.parquet")
        frame.head(0).write_parquet(folder / "part-1.parquet")
    found = contents(root, ("a", "dt", "site"))
    assert [(r["a"], r["dt"], r["site"]) for r in found] == [
        *((a, "2024-01-01", "x/y=z") for a in (1, 2)),
        *((a, "2024-01-02", None) for a in (1, 2)),
    ]
    assert contents(root, ("a",))[0] == {"a": 1}
    monkeypatch.chdir(root)
    later = contents("dt=2024-01-0[2-9]", ("a", "dt"))
    assert later == [{"a": a, "dt": "2024-01-02"} for a in (1, 2)]
    [first, _] = readers.table_parts("dt=2024-01-01/site=x%2Fy%3Dz", ("a", "dt"))
    (block,) = first.blocks()
    assert "dt" not in block.frame.columns  # it says no more than which folder this is
