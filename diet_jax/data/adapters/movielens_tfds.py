"""Reads the MovieLens that tensorflow-datasets prepared, without TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from diet_jax.data import columns
from diet_jax.data.adapters.movielens_files import describe_movies, describe_users, title_year
from diet_jax.data.source import Block, Part
from diet_jax.types import InputError

_BLOCK = 1 << 16  # records


def read(name: str, data_dir: str) -> Part:
    """The ratings movielens/`name`-ratings in array_record files below `data_dir` ('': tfds' own).

    Columns as `movielens_files.read` gives them, with numbers as rating and timestamp; rows in the
    order of the prepared files, which is shuffled: rows of one second come in another order than
    from GroupLens' files. Raises InputError that says how to prepare the data if it is not there.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants, read_only_builder, registered

    dataset = f"movielens/{name}-ratings"
    cure = (
        f"run 'tfds build {dataset} --file_format=array_record' where TensorFlow is installed, "
        "or set --config.data.path to a local copy"
    )
    try:
        # Read from the prepared files alone: the builder's code needs TensorFlow.
        builder: Any = read_only_builder.builder_from_files(dataset, data_dir=data_dir or None)
        source = builder.as_data_source(
            split="train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
    except registered.DatasetNotFoundError as error:
        folder = data_dir or constants.DATA_DIR
        raise InputError(f"{dataset} is not prepared in {folder}; {cure}") from error
    except (NotImplementedError, FileNotFoundError, KeyError, ValueError) as error:
        why = columns.one_line(error, 100)
        raise InputError(
            f"{dataset} is prepared, but not as array_record ({why}); {cure}"
        ) from error
    genres = builder.info.features["movie_genres"].feature.names
    where = str(builder.data_dir)

    def blocks() -> Iterator[Block]:
        for start in range(0, max(len(source), 1), _BLOCK):
            numbers = range(start, min(start + _BLOCK, len(source)))
            frame = _to_frame(source.__getitems__(numbers), genres)
            yield Block(frame, pl.Series(numbers, dtype=pl.Int64) + 1)

    return Part(where, tuple(sorted(map(str, Path(where).iterdir()))), blocks)


def _to_frame(records: list[bytes], genre_names: list[str]) -> pl.DataFrame:
    from tensorflow_datasets.proto import tf_example_pb2

    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]

    # Straight to the protocol buffers: decoding each record by its features is much slower.
    rows = [parse(record).features.feature for record in records]

    def text(key):
        return [row[key].bytes_list.value[0].decode() for row in rows]

    def floats(key):
        return [row[key].float_list.value[0] for row in rows]

    def ints(key):
        return [row[key].int64_list.value[0] for row in rows]

    genres = ["|".join(genre_names[g] for g in r["movie_genres"].int64_list.value) for r in rows]
    frame = pl.DataFrame(
        {
            "user": text("user_id"),
            "item": text("movie_id"),
            "rating": floats("user_rating"),
            "timestamp": ints("timestamp"),
            "title": text("movie_title"),
            "genres": genres,
        }
    )
    frame = describe_movies(frame.with_columns(year=title_year()))
    if not rows or "user_gender" not in rows[0]:
        return frame
    age = "raw_user_age" if "raw_user_age" in rows[0] else "bucketized_user_age"
    users = {
        "age": floats(age),
        "gender": ["M" if male else "F" for male in ints("user_gender")],
        "occupation": text("user_occupation_text"),
        "zip": text("user_zip_code"),
    }
    return describe_users(frame.with_columns(**{k: pl.Series(v) for k, v in users.items()}))
