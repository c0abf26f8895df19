"""Knows the file layouts in which MovieLens is handed around, and nothing else about it."""

import zipfile
from pathlib import Path

import polars as pl

from diet_jax.data import columns
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
# The last "(1995)" of a title; series read "(2006-2007)".
TITLE_YEAR = r".*\((\d{4})[^()]*\)"


class _Files:
    """The files of a folder or a zip by their bare names; `where` says which file was read last."""

    def __init__(self, path: Path):
        self.path = path
        self.names: dict[str, str] = {}
        if path.is_dir():
            self.names = {file.name: str(file) for file in path.iterdir() if file.is_file()}
        elif path.is_file():
            try:
                with zipfile.ZipFile(path) as packed:
                    inside = [name for name in packed.namelist() if "__MACOSX" not in name]
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(
                    f"{path}: is no zip file; set --config.data.path to a MovieLens zip or folder"
                ) from error
            self.names = {name.rsplit("/", 1)[-1]: name for name in inside}
        else:
            raise InputError(
                f"{path}: does not exist; set --config.data.path to a MovieLens zip or folder"
            )

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def frame(self, name: str, separator: str, header: tuple[str, ...] = (), latin=False):
        """One delimited file, all columns String; header: the names of columns that have none."""
        if name not in self.names:
            raise InputError(f"{self.path}: has no {name}; get a complete copy of MovieLens")
        content = self._bytes(name)
        if latin:
            content = content.decode("latin-1").encode()
        if len(separator) > 1:  # Polars knows separators of one byte only.
            content, separator = content.replace(separator.encode(), b"\t"), "\t"
        return columns.read_csv(content, self.where(name), separator, header)

    def _bytes(self, name: str) -> bytes:
        if self.path.is_dir():
            return columns.read_bytes(Path(self.names[name]))
        try:
            with zipfile.ZipFile(self.path) as packed:
                return packed.read(self.names[name])
        except (zipfile.BadZipFile, OSError, RuntimeError) as error:
            why = columns.one_line(error)
            raise InputError(f"{self.where(name)}: cannot be unpacked ({why})") from error


def read(name: str, path: Path) -> tuple[pl.DataFrame, str]:
    """Reads MovieLens `name` from a zip or a folder, in whichever layout it finds.

    Returns rows in file order with String columns user, item, rating, timestamp, year and genres
    ('A|B'), for 100k and 1m also age, gender, occupation and zip (null where a movie or user is not
    described), and the ratings file, for messages. Raises InputError if it does not find one.
    """
    files = _Files(path)
    if "ratings.csv" in files.names:
        found, reader = ("latest-small",), _latest
    elif "u.data" in files.names:
        found, reader = ("100k",), _grouplens_100k
    elif "ratings.dat" in files.names:
        found, reader = ("1m",), _grouplens_1m
    elif any(file.endswith(".inter") for file in files.names):
        found, reader = ("100k", "1m"), _recbole
    else:
        raise InputError(
            f"{path}: holds none of ratings.csv, u.data, ratings.dat, *.inter; "
            "set --config.data.path to a MovieLens zip or folder"
        )
    if name not in found:
        raise InputError(
            f"{path}: holds MovieLens {' or '.join(found)}, but data.name is {name!r}; "
            "change --config.data.name or --config.data.path"
        )
    return reader(files)


def _latest(files: _Files) -> tuple[pl.DataFrame, str]:
    where = files.where("ratings.csv")
    ratings = _pick(
        files.frame("ratings.csv", ","),
        {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "timestamp"},
        where,
    )
    movies = _pick(
        files.frame("movies.csv", ","),
        {"movieId": "item", "title": "title", "genres": "genres"},
        files.where("movies.csv"),
    )
    return _with_movies(ratings, movies.with_columns(year=_title_year())), where


def _grouplens_100k(files: _Files) -> tuple[pl.DataFrame, str]:
    ratings = files.frame("u.data", "\t", ("user", "item", "rating", "timestamp"))
    head = ("item", "title", "released", "video", "url", *_GENRES_100K)
    flags = [
        pl.when(pl.col(genre).str.strip_chars() == "1").then(pl.lit(genre))
        for genre in _GENRES_100K
    ]
    movies = files.frame("u.item", "|", head, latin=True).with_columns(
        year=pl.coalesce(_title_year(), pl.col("released").str.extract(r"(\d{4})$")),
        genres=pl.concat_str(flags, separator="|", ignore_nulls=True),
    )
    users = files.frame("u.user", "|", ("user", "age", "gender", "occupation", "zip"), latin=True)
    return _with_users(_with_movies(ratings, movies), users), files.where("u.data")


def _grouplens_1m(files: _Files) -> tuple[pl.DataFrame, str]:
    ratings = files.frame("ratings.dat", "::", ("user", "item", "rating", "timestamp"))
    movies = files.frame("movies.dat", "::", ("item", "title", "genres"), latin=True)
    users = files.frame("users.dat", "::", ("user", "gender", "age", "occupation", "zip"), True)
    names = {str(code): text for code, text in enumerate(OCCUPATIONS_1M)}
    users = users.with_columns(pl.col("occupation").replace(names))
    movies = movies.with_columns(year=_title_year())
    return _with_users(_with_movies(ratings, movies), users), files.where("ratings.dat")


def _recbole(files: _Files) -> tuple[pl.DataFrame, str]:
    """Atomic files: tab separated, with headers like 'user_id:token'; genres apart by spaces."""
    stem = sorted(file for file in files.names if file.endswith(".inter"))[0][: -len(".inter")]
    frames = {}
    for kind in ("inter", "item", "user"):
        frame = files.frame(f"{stem}.{kind}", "\t")
        frames[kind] = frame.rename({column: column.split(":")[0] for column in frame.columns})
    genre = "class" if "class" in frames["item"].columns else "genre"
    keys = {"user_id": "user", "item_id": "item", "rating": "rating", "timestamp": "timestamp"}
    where = files.where(f"{stem}.inter")
    ratings = _pick(frames["inter"], keys, where)
    keys = {"item_id": "item", "release_year": "year", genre: "genres"}
    movies = _pick(frames["item"], keys, files.where(f"{stem}.item"))
    keys = {"user_id": "user", "age": "age", "gender": "gender", "occupation": "occupation"}
    users = _pick(frames["user"], keys | {"zip_code": "zip"}, files.where(f"{stem}.user"))
    movies = movies.with_columns(pl.col("genres").str.replace_all(" ", "|", literal=True))
    return _with_users(_with_movies(ratings, movies), users), where


def _pick(frame: pl.DataFrame, names: dict[str, str], where: str) -> pl.DataFrame:
    columns.require_columns(frame, tuple(names), where, "get a complete copy of MovieLens")
    return frame.select(pl.col(old).alias(new) for old, new in names.items())


def _title_year() -> pl.Expr:
    return pl.col("title").str.extract(TITLE_YEAR)


def _with_movies(ratings: pl.DataFrame, movies: pl.DataFrame) -> pl.DataFrame:
    known = movies.select("item", "year", "genres").unique("item", keep="first")
    return ratings.join(known, on="item", how="left", maintain_order="left")


def _with_users(ratings: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    known = users.select("user", "age", "gender", "occupation", "zip").unique("user", keep="first")
    return ratings.join(known, on="user", how="left", maintain_order="left")
