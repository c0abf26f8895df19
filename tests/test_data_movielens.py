"""Every layout of MovieLens, written here in its published format, gives the same fields."""

import zipfile

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_jax.data import movielens
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


def write_latest(folder):
    rows = [f"{u},{m},{r}.0,{t}" for u, m, r, t in RATINGS]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows, ""]))
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n"
        "10,Toy Story (1995),Animation|Children|Comedy\n"
        '20,"Misérables, Les (1958–1962)",(no genres listed)\n',
        encoding="utf-8",
    )


def write_100k(folder):
    rows = ["\t".join(map(str, row)) for row in RATINGS]
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
        "10\tToy Story\t1995\tAnimation Children's Comedy\n20\tMisérables\t1958\tDrama\n"
    )
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\tT8H1N\n"
    )


def write_1m(folder):
    rows = ["::".join(map(str, row)) for row in RATINGS]
    (folder / "ratings.dat").write_text("\n".join([*rows, ""]))
    (folder / "movies.dat").write_bytes(
        "10::Toy Story (1995)::Animation|Children's|Comedy\n"
        "20::Misérables, Les (1958)::Drama\n".encode("latin-1")
    )
    (folder / "users.dat").write_text("1::M::24::17::85711\n2::F::53::0::T8H1N\n")


DEMOGRAPHIC = {
    "user": ["2", "1", "2", "1"],
    "item": ["20", "20", "99", "10"],
    "age": ["10", "4", "10", "4"],
    "gender": ["F", "M", "F", "M"],
    "occupation": ["other", "technician", "other", "technician"],
    "zip": ["T8", "85", "T8", "85"],
    "year": ["1958", "1958", "<missing>", "1995"],
    "genre": ["Drama", "Drama", "<missing>", "Animation"],
    "genre2": ["<missing>", "<missing>", "<missing>", "Children"],
    "hour": ["23", "23", "23", "0"],
}
OCCUPATIONS_1M = ["other/not specified", "technician/engineer"] * 2


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
    path = place(tmp_path, write, packed)
    log = movielens.read(name, str(path), 4.0, "")
    assert log.fields.to_dict(as_series=False) == DEMOGRAPHIC | {"occupation": occupation}
    assert log.label.tolist() == [0, 1, 0, 1]
    assert log.time.tolist() == [T, T, T + 9, T + 3600]
    assert log.dense.shape == (4, 0)


@pytest.mark.parametrize("packed", [False, True])
def test_latest_small_layout(tmp_path, packed):
    log = movielens.read("latest-small", str(place(tmp_path, write_latest, packed)), 4.0, "")
    assert log.fields.to_dict(as_series=False) == {
        "user": ["2", "1", "2", "1"],
        "item": ["20", "20", "99", "10"],
        "year": ["1958", "1958", "<missing>", "1995"],
        "genre": ["(no genres listed)", "(no genres listed)", "<missing>", "Animation"],
        "genre2": ["<missing>", "<missing>", "<missing>", "Children"],
        "genres": ["(no genres listed)"] * 2 + ["<missing>", "Animation|Children|Comedy"],
        "hour": ["23", "23", "23", "0"],
        "weekday": ["Fri", "Fri", "Fri", "Sat"],
        "user_count": ["0", "0", "1", "1"],
        "item_count": ["0", "1", "0", "0"],
    }
    assert log.label.tolist() == [0, 1, 0, 1]


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


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_counts_so_far_come_from_the_past_only(pairs):
    raw = pl.DataFrame(
        {"user": [str(u) for u, _ in pairs], "item": [str(i) for _, i in pairs]},
    ).with_columns(year=pl.lit("1995"), genres=pl.lit("Drama"))
    fields = movielens._fields(
        raw.with_columns(age=None, zip=None), np.arange(len(pairs)), movielens._PLAIN
    )
    for key, column in ((0, "user_count"), (1, "item_count")):
        expected = []
        for row, pair in enumerate(pairs):
            seen = sum(earlier[key] == pair[key] for earlier in pairs[:row])
            expected.append(str((1 + seen).bit_length() - 1))
        assert fields[column].to_list() == expected


def spoil(file, old, new):
    def change(folder):
        text = (folder / file).read_text(encoding="latin-1")
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1), encoding="latin-1")

    return change


FRESH = "cannot be read as delimited UTF-8 text: "
BAD = {
    write_latest: [
        (spoil("ratings.csv", "3.0", "x"), "ratings.csv, row 2, column 'rating'"),
        (spoil("ratings.csv", f"{T}\n", "\n"), "ratings.csv, row 2, column 'timestamp'"),
        (spoil("ratings.csv", "userId", "uid"), "ratings.csv: no column 'userId'"),
        (lambda f: (f / "movies.csv").unlink(), "has no movies.csv"),
        (lambda f: (f / "ratings.csv").write_text(""), "ratings.csv: the file is empty"),
        (lambda f: write_100k(f) or (f / "ratings.csv").unlink(), "but data.name is"),
    ],
    write_100k: [
        (spoil("u.data", "\t3\t", "\t\t"), "u.data, row 2, column 'rating'"),
        (spoil("u.data", f"4\t{T}", "4\tnan"), "u.data, row 3, column 'timestamp'"),
        (spoil("u.data", "1\t20", "7\t1\t20"), f"u.data: {FRESH}row 3 has 5 columns, not 4"),
        (spoil("u.item", "|0\n", "\n"), f"u.item: {FRESH}row 1 has 23 columns, not 24"),
        (lambda f: (f / "u.item").write_text("10|a\n"), f"u.item: {FRESH}row 1 has 2 columns"),
        (
            lambda f: (f / "u.user").write_text("1|2|3|4|5|6\n"),
            f"u.user: {FRESH}row 1 has 6 columns",
        ),
        (lambda f: (f / "u.user").unlink(), "has no u.user"),
    ],
    write_recbole: [
        (spoil("ml-100k.item", "class:", "kind:"), "ml-100k.item: no column 'genre'"),
        (spoil("ml-100k.inter", "timestamp", "when"), "ml-100k.inter: no column 'timestamp'"),
    ],
    write_1m: [
        (spoil("ratings.dat", "::3::", "::three::"), "ratings.dat, row 2, column 'rating'"),
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
        movielens.read(NAMES.get(write, "100k"), str(tmp_path), 4.0, "")
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert words in message


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "ml.zip").write_text("PK?")
    with pytest.raises(InputError, match="is no zip file"):
        movielens.read("100k", str(tmp_path / "ml.zip"), 4.0, "")
