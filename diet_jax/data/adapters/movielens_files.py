"""Knows the file layouts in which MovieLens is handed around, and nothing else about it."""

import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import polars as pl

from diet_jax.data import readers
from diet_jax.data.adapters import files
from diet_jax.data.source import Part, map_frames
from diet_jax.types import InputError

# users.dat of MovieLens 1M holds numbers; its README gives them these names.
OCCUPATIONS_1M = (
    "other/not specified,academic/educator,artist,clerical/admin,college/grad student,"
    "customer service,doctor/health care,executive/managerial,farmer,homemaker,K-12 student,"
    "lawyer,programmer,retired,sales/marketing,scientist,self-employed,technician/engineer,"
    "tradesman/craftsman,unemployed,writer"
).split(",")
_GENRES_100K = (
    "unknown,Action,Adventure,Animation,Children's,Comedy,Crime,Documentary,Drama,Fantasy,"
    "Film-Noir,Horror,Musical,Mystery,Romance,Sci-Fi,Thriller,War,Western"
).split(",")
_GENRE_NAMES = {"Children's": "Children", "unknown": "Unknown", "": None}
_Change = Callable[[pl.DataFrame], pl.DataFrame]
_RATING = ("user", "item", "rating", "timestamp")
_MOVIE = ("item", "year", "genre", "genre2", "genres")
_USER = ("user", "age", "gender", "occupation", "zip")
_CURE = "set --config.data.path to a MovieLens zip or folder"
_GET = "get a complete copy of MovieLens"


def read(name: str, path: str) -> Part:
    """The ratings of MovieLens `name` from a zip or a folder, in whichever layout it finds.

    Columns: user, item, rating, timestamp as text; what `describe_movies` makes, and for 100k and
    1m also what `describe_users` makes, null where a movie or user is not described.
    Raises InputError if it does not find the layout, or the files that describe movies and users.
    """
    members = _members(Path(path))
    if "ratings.csv" in members:
        found, reader = ("latest-small", "20m", "25m", "32m", "latest"), _latest
    elif "u.data" in members:
        found, reader = ("100k",), _grouplens_100k
    elif "ratings.dat" in members:
        found, reader = ("1m",), _grouplens_1m
    elif any(file.endswith(".inter") for file in members):
        found, reader = ("100k", "1m"), _recbole
    else:
        raise InputError(
            f"{path}: holds none of ratings.csv, u.data, ratings.dat, *.inter; {_CURE}"
        )
    if name not in found:
        raise InputError(
            f"{path}: holds MovieLens {' or '.join(found)}, but data.name is {name!r}; "
            "change --config.data.name or --config.data.path"
        )
    return reader(partial(_part, path, members), members)


def title_year() -> pl.Expr:
    """The last "(1995)" of a title; series read "(2006-2007)"."""
    return pl.col("title").str.extract(r".*\((\d{4})[^()]*\)")


def describe_movies(frame: pl.DataFrame) -> pl.DataFrame:
    """With year ('1995' or null), genres ('A|B'), and genre and genre2, the first two of them.

    frame: has the String columns year and genres.
    """
    genre = pl.col("genres").str.split("|").list.eval(pl.element().replace(_GENRE_NAMES))
    return frame.with_columns(
        year=pl.col("year").str.extract(r"^(\d{4})$"),
        genre=genre.list.get(0, null_on_oob=True),
        genre2=genre.list.get(1, null_on_oob=True),
        genres=genre.list.join("|"),
    )


def describe_users(frame: pl.DataFrame) -> pl.DataFrame:
    """With age in brackets of five years, as text, and the first two characters of zip."""
    age = pl.col("age").cast(pl.Float64, strict=False).floor().cast(pl.Int32, strict=False) // 5
    return frame.with_columns(age.cast(pl.String), pl.col("zip").str.head(2))


def _members(path: Path) -> dict[str, str]:
    """The files of a folder ("" as member) or of a zip by their bare names."""
    try:
        if path.is_dir():
            return {file.name: "" for file in path.iterdir() if file.is_file()}
        with zipfile.ZipFile(path) as packed:
            inside = [name for name in packed.namelist() if "__MACOSX" not in name]
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist; {_CURE}") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: is no zip file; {_CURE}") from error
    return {name.rsplit("/", 1)[-1]: name for name in inside}


def _part(path: str, members: dict[str, str], name: str, *layout, **options) -> Part:
    """One delimited file of the copy, all its columns String."""
    if name not in members:
        raise InputError(f"{path}: has no {name}; {_GET}")
    if member := members[name]:
        return readers.delimited(path, *layout, **options, member=member)
    return readers.delimited(Path(path, name), *layout, **options)


def _latest(part, _) -> Part:
    ratings = {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "timestamp"}
    movies = {"movieId": "item", "title": "title", "genres": "genres"}
    log = _picked(part("ratings.csv"), ratings)
    return _with_movies(log, _picked(part("movies.csv"), movies), title_year())


def _grouplens_100k(part, _) -> Part:
    head = ("item", "title", "released", "video", "url", *_GENRES_100K)
    user = ("user", "age", "gender", "occupation", "zip")
    flags = [
        pl.when(pl.col(genre).str.strip_chars() == "1").then(pl.lit(genre))
        for genre in _GENRES_100K
    ]
    year = pl.coalesce(title_year(), pl.col("released").str.extract(r"(\d{4})$"))
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True)
    log = part("u.data", "\t", _RATING, quote="")
    movies = part("u.item", "|", head, quote="", encoding="latin1")
    users = part("u.user", "|", user, quote="", encoding="latin1")
    return _with_users(_with_movies(log, movies, year, genres), users)


def _grouplens_1m(part, _) -> Part:
    user = ("user", "gender", "age", "occupation", "zip")
    names = {str(code): text for code, text in enumerate(OCCUPATIONS_1M)}
    log = part("ratings.dat", "::", _RATING)
    movies = part("movies.dat", "::", ("item", "title", "genres"), encoding="latin1")
    users = part("users.dat", "::", user, encoding="latin1")
    occupation = pl.col("occupation").replace(names)
    return _with_users(_with_movies(log, movies, title_year()), users, occupation)


def _recbole(part, members) -> Part:
    """Atomic files: tab separated, with headers like 'user_id:token'; genres apart by spaces."""
    stem = sorted(file for file in members if file.endswith(".inter"))[0][: -len(".inter")]
    ratings = {"user_id": "user", "item_id": "item", "rating": "rating", "timestamp": "timestamp"}
    movies = {"item_id": "item", "release_year": "year", "genre": "genres"}
    users = {"user_id": "user", "age": "age", "gender": "gender", "occupation": "occupation"}
    keys = {"inter": ratings, "item": movies, "user": users | {"zip_code": "zip"}}
    log, movies, users = (
        _picked(map_frames(part(f"{stem}.{kind}", "\t", quote=""), _untyped), keys[kind])
        for kind in keys
    )
    genres = pl.col("genres").str.replace_all(" ", "|", literal=True)
    return _with_users(_with_movies(log, movies, pl.col("year"), genres), users)


def _untyped(frame: pl.DataFrame) -> pl.DataFrame:
    names = {column.split(":")[0]: column for column in reversed(frame.columns)}
    if "class" in names:
        names["genre"] = names["class"]
    return pl.DataFrame({name: frame[column] for name, column in names.items()})


def _picked(part: Part, names: dict[str, str]) -> Part:
    renamed = [pl.col(old).alias(new) for old, new in names.items()]
    return files.picked(part, tuple(names), _GET, renamed)


def _with_movies(log: Part, movies: Part, year: pl.Expr, genres: pl.Expr | None = None) -> Part:
    made = {"year": year} | ({} if genres is None else {"genres": genres})
    return _joined(log, movies, _MOVIE, lambda table: describe_movies(table.with_columns(**made)))


def _with_users(log: Part, users: Part, *made: pl.Expr) -> Part:
    return _joined(log, users, _USER, lambda table: describe_users(table.with_columns(*made)))


def _joined(log: Part, side: Part, columns: tuple[str, ...], describe: _Change) -> Part:
    """The log with `columns` of a described side table, whose first one is the key."""

    @cache
    def table() -> pl.DataFrame:
        return describe(files.whole(side, _GET)).select(columns).unique(columns[0], keep="first")

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.join(table(), on=columns[0], how="left", maintain_order="left")

    return map_frames(log, change)._replace(files=tuple(dict.fromkeys(log.files + side.files)))
