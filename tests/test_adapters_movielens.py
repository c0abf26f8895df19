"""Every layout of MovieLens, written here in its published format, gives the same fields."""

import importlib.resources
import importlib.resources.abc
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from diet_jax.data import readers
from diet_jax.data.adapters import movielens
from diet_jax.types import InputError

# Friday 1997-12-05 23:00 UTC; the file is not in time order and has a tie.
T = 881362800
RATINGS = [
    ("1", "10", "5", T + 3600),
    ("2", "20", "3", T),
    ("1", "20", "4", T),
    ("2", "99", "1", T + 9),
]
# Flags in the order unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama...
ITEM_10 = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
ITEM_20 = "0|0|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0"


def write_latest(folder, ratings=RATINGS):
    rows = [f"{u},{m},{r}.0,{t}" for u, m, r, t in ratings]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows, ""]))
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n"
        "10,Toy Story (1995),Animation|Children|Comedy\n"
        '20,"Misérables, Les (1958–1962)",(no genres listed)\n',
        encoding="utf-8",
    )


def write_100k(folder, ratings=RATINGS):
    rows = ["\t".join(map(str, row)) for row in ratings]
    (folder / "u.data").write_text("\n".join([*rows, ""]))
    (folder / "u.item").write_bytes(
        f"10|Toy Story (1995)|01-Jan-1995||http://a|{ITEM_10}\n"
        f'20|Misérables, "Les" (V)|01-Jan-1958||http://b|{ITEM_20}\n'.encode("latin-1")
    )
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|T8H1N\n")


def write_recbole(folder):
    rows = ["\t".join(map(str, row)) for row in RATINGS]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "ml-100k.inter").write_text("\n".join([head, *rows, ""]))
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        '10\t"Toy" Story\t1995\tAnimation Children\'s Comedy\n20\tMisérables\t1958\tDrama\n',
        encoding="utf-8",
    )
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\tT8H1N\n"
    )


def write_1m(folder, ratings=RATINGS):
    rows = ["::".join(map(str, row)) for row in ratings]
    (folder / "ratings.dat").write_text("\n".join([*rows, ""]))
    (folder / "movies.dat").write_bytes(
        "10::Toy Story (1995)::Animation|Children's|Comedy\n"
        "20::Misérables, Les (1958)::Drama\n".encode("latin-1")
    )
    (folder / "users.dat").write_text("1::M::24::17::85711\n2::F::53::0::T8H1N\n")


def blocks(source):
    (part,) = source.parts
    return list(part.blocks())


def fields(source):
    """The fields that are columns, in the order of the file, and its ratings and times."""
    frame = pl.concat([block.frame for block in blocks(source)])
    names = [field.name for field in source.roles.fields if not field.derived]
    assert set(frame.select(names).dtypes) == {pl.String}
    numbers = frame.select(pl.col("rating", "timestamp").cast(pl.Float64))
    return frame.select(names).to_dict(as_series=False), numbers.rows()


def derived(source):
    return {field.name: field.derived for field in source.roles.fields if field.derived}


DEMOGRAPHIC = {
    "user": ["1", "2", "1", "2"],
    "item": ["10", "20", "20", "99"],
    "age": ["4", "10", "4", "10"],
    "gender": ["M", "F", "M", "F"],
    "occupation": ["technician", "other", "technician", "other"],
    "zip": ["85", "T8", "85", "T8"],
    "year": ["1995", "1958", "1958", None],
    "genre": ["Animation", "Drama", "Drama", None],
    "genre2": ["Children", None, None, None],
}
OCCUPATIONS_1M = ["technician/engineer", "other/not specified"] * 2
NUMBERS = [(float(rating), float(time)) for *_, rating, time in RATINGS]


@pytest.mark.parametrize(
    ("write", "name", "occupation"),
    [
        (write_100k, "100k", DEMOGRAPHIC["occupation"]),
        (write_recbole, "100k", DEMOGRAPHIC["occupation"]),
        (write_1m, "1m", OCCUPATIONS_1M),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_layouts_with_demography(tmp_path, write, name, occupation, packed):
    source = movielens.read(name, str(place(tmp_path, write, packed)), 4.0, "")
    assert fields(source) == (DEMOGRAPHIC | {"occupation": occupation}, NUMBERS)
    assert [field.name for field in source.roles.fields] == [*DEMOGRAPHIC, "hour"]
    assert derived(source) == {"hour": "hour"}
    assert (source.roles.label, source.roles.threshold) == ("rating", 4.0)
    assert (source.name, source.roles.user) == (f"MovieLens {name}", "user")
    assert len(source.parts[0].files) == (1 if packed else 3)


@pytest.mark.parametrize("name", ["latest-small", "20m", "25m", "32m", "latest"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_layout_without_demography(tmp_path, name, packed):
    source = movielens.read(name, str(place(tmp_path, write_latest, packed)), 4.0, "")
    assert fields(source) == (
        {
            "user": ["1", "2", "1", "2"],
            "item": ["10", "20", "20", "99"],
            "year": ["1995", "1958", "1958", None],
            "genre": ["Animation", "(no genres listed)", "(no genres listed)", None],
            "genre2": ["Children", None, None, None],
            "genres": ["Animation|Children|Comedy", *["(no genres listed)"] * 2, None],
        },
        NUMBERS,
    )
    assert [field.name for field in source.roles.fields][6:] == list(derived(source))
    assert derived(source) == {
        "hour": "hour",
        "weekday": "weekday",
        "user_count": "count:user",
        "item_count": "count:item",
    }


def test_ratings_come_in_blocks(tmp_path, monkeypatch):
    whole = readers.delimited

    def halved(*args, **more):
        part = whole(*args, **more)

        def two():
            for block in part.blocks():
                yield block._replace(frame=block.frame[:2], rows=block.rows[:2])
                yield block._replace(frame=block.frame[2:], rows=block.rows[2:])

        return part._replace(blocks=two)

    expected = fields(movielens.read("1m", str(place(tmp_path, write_1m, False)), 4.0, ""))
    monkeypatch.setattr(readers, "delimited", halved)
    source = movielens.read("1m", str(tmp_path / "ml"), 4.0, "")
    assert [block.rows.to_list() for block in blocks(source)] == [[1, 2], [3, 4]]
    assert fields(source) == expected


def place(folder, write, packed):
    """Writes a layout to a folder, or to a zip with one folder inside as GroupLens packs it."""
    inside = folder / "ml"
    inside.mkdir()
    write(inside)
    if not packed:
        return inside
    with zipfile.ZipFile(folder / "ml.zip", "w") as target:
        for file in inside.iterdir():
            target.write(file, f"ml/{file.name}")
    return folder / "ml.zip"


def test_the_bundled_copy():
    source = movielens.read("latest-small", "", 4.0, "")
    assert sum(len(block.rows) for block in blocks(source)) == 100_836
    assert not any(block.rejects for block in blocks(source))


def spoil(file, old, new):
    def change(folder):
        text = (folder / file).read_text(encoding="latin-1")
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1), encoding="latin-1")

    return change


BAD = {
    write_latest: [
        (spoil("ratings.csv", "userId", "uid"), "ratings.csv: no column 'userId'"),
        (lambda f: (f / "movies.csv").unlink(), "has no movies.csv"),
        (lambda f: (f / "ratings.csv").write_text(""), "ratings.csv: is empty"),
        (lambda f: write_100k(f) or (f / "ratings.csv").unlink(), "but data.name is"),
    ],
    write_100k: [
        (spoil("u.item", "|0\n", "\n"), "u.item, row 1: another number of columns"),
        (lambda f: (f / "u.item").write_text("10|a\n"), "u.item, row 1"),
        (lambda f: (f / "u.user").write_text("1|2|3|4|5|6\n"), "u.user, row 1"),
        (lambda f: (f / "u.user").unlink(), "has no u.user"),
    ],
    write_recbole: [
        (spoil("ml-100k.item", "class:", "kind:"), "ml-100k.item: no column 'genre'"),
        (spoil("ml-100k.inter", "timestamp", "when"), "ml-100k.inter: no column 'timestamp'"),
        (lambda f: (f / "ml-100k.user").unlink(), "has no ml-100k.user"),
    ],
    write_1m: [
        (lambda f: [file.unlink() for file in f.iterdir()], "holds none of ratings.csv"),
    ],
}
NAMES = {write_latest: "latest-small", write_1m: "1m"}


@pytest.mark.parametrize(
    ("write", "change", "words"), [(write, *case) for write in BAD for case in BAD[write]]
)
def test_bad_copies_are_one_line(tmp_path, write, change, words):
    write(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError) as caught:
        blocks(movielens.read(NAMES.get(write, "100k"), str(tmp_path), 4.0, ""))
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert words in message


def test_bad_ratings_are_left_to_be_rejected(tmp_path):
    write_100k(tmp_path)
    spoil("u.data", "1\t20", "7\t1\t20")(tmp_path)
    spoil("u.data", "\t3\t", "\tx\t")(tmp_path)
    (block,) = blocks(movielens.read("100k", str(tmp_path), 4.0, ""))
    assert block.rows.to_list() == [1, 2, 4]
    assert block.frame["rating"].to_list() == ["5", "x", "1"]
    assert [reject.row for reject in block.rejects] == [3]


def test_names_and_paths_that_are_none(tmp_path):
    (tmp_path / "ml.zip").write_text("PK?")
    for name, path, words in (
        ("10m", "", "set it to one of latest-small, 100k, 1m, 20m, 25m"),
        ("100k", str(tmp_path / "ml.zip"), "is no zip file"),
        ("20m", str(tmp_path / "none"), "does not exist; set --config.data.path"),
        ("32m", "", "data.path is empty; set it to the zip of MovieLens 32m"),
    ):
        with pytest.raises(InputError, match=words):
            movielens.read(name, path, 4.0, "")


# What tensorflow-datasets prepared, read without TensorFlow. Its builder wants every movie known.

KNOWN = [row for row in RATINGS if row[1] != "99"]


def prepare(folder, name, monkeypatch):
    """Lets tfds' own builder write array_record files from a local copy, with no download."""
    from tensorflow_datasets.core.download import DownloadManager
    from tensorflow_datasets.structured import movielens as tfds_movielens
    from tensorflow_datasets.structured import movielens_parsing

    # Its parser opens files through TensorFlow: the built-in open does the same here.
    gfile = SimpleNamespace(gfile=SimpleNamespace(GFile=open))
    monkeypatch.setattr(movielens_parsing, "tf", SimpleNamespace(io=gfile))
    monkeypatch.setattr(DownloadManager, "download_and_extract", lambda self, url: str(folder))
    # tfds' writing side imports this backport, which it does not declare for this Python.
    monkeypatch.setitem(sys.modules, "importlib_resources", importlib.resources)
    out = folder / "prepared"
    builder = tfds_movielens.Movielens(
        config=f"{name}-ratings", data_dir=out, file_format="array_record"
    )
    builder.download_and_prepare()
    return str(out)


@pytest.mark.parametrize(
    ("name", "write", "inside"),
    [("100k", write_100k, "ml-100k"), ("1m", write_1m, "ml-1m"), ("25m", write_latest, "ml-25m")],
)
def test_prepared_files_give_what_the_local_copy_gives(tmp_path, monkeypatch, name, write, inside):
    local = tmp_path / inside
    local.mkdir()
    write(local, KNOWN)
    if name == "100k":  # tfds keeps no date of release
        spoil("u.item", '"Les" (V)', "Les (1958)")(local)
    prepared = movielens.read(name, "", 4.0, prepare(tmp_path, name, monkeypatch))
    expected = movielens.read(name, str(local), 4.0, "")
    assert prepared.roles == expected.roles
    (got, got_numbers), (want, want_numbers) = fields(prepared), fields(expected)
    # Prepared files are shuffled.
    assert sorted(zip(*got.values(), got_numbers, strict=True), key=str) == sorted(
        zip(*want.values(), want_numbers, strict=True), key=str
    )
    (block,) = blocks(prepared)
    assert block.rows.to_list() == [1, 2, 3]
    assert any("array_record" in file for file in prepared.parts[0].files)


def test_prepared_files_of_another_format_are_named(tmp_path, monkeypatch):
    (tmp_path / "ml-100k").mkdir()
    write_100k(tmp_path / "ml-100k", KNOWN)
    out = prepare(tmp_path, "100k", monkeypatch)
    (info,) = Path(out).glob("movielens/100k-ratings/*/dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError) as caught:
        movielens.read("100k", "", 4.0, out)
    message = str(caught.value)
    assert "not as array_record" in message
    assert "--file_format=array_record" in message
    assert "\n" not in message


def test_not_prepared_says_how_without_noise(tmp_path):
    code = (
        "import sys\n"
        "from diet_jax.data.adapters import movielens\n"
        "from diet_jax.types import InputError\n"
        "try:\n"
        "    movielens.read('20m', '', 4.0, sys.argv[1])\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "none")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    for word in ("movielens/20m-ratings", "tfds build", "array_record", "--config.data.path"):
        assert word in done.stdout
