"""Reads the MovieLens that tensorflow-datasets prepared, without TensorFlow."""

from typing import Any

import polars as pl

from diet_jax.data import columns, movielens_files
from diet_jax.types import InputError


def read(name: str, data_dir: str) -> tuple[pl.DataFrame, str]:
    """Reads movielens/`name`-ratings from array_record files below `data_dir` ('': the default).

    Returns what `movielens_files.read` does, rows in the order of the prepared files, which is
    shuffled: rows of one second come in another order than from GroupLens' files.
    Raises InputError that says how to prepare the data if it is not there.
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
    return _to_frame(source, genres), str(builder.data_dir)


def _to_frame(source, genre_names: list[str]) -> pl.DataFrame:
    from tensorflow_datasets.proto import tf_example_pb2

    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]

    # Straight to the protocol buffers: decoding each record by its features is much slower.
    records = source.__getitems__(range(len(source)))
    rows = [parse(record).features.feature for record in records]

    def text(key):
        return [row[key].bytes_list.value[0].decode() for row in rows]

    def floats(key):
        return [row[key].float_list.value[0] for row in rows]

    def ints(key):
        return [row[key].int64_list.value[0] for row in rows]

    age = "raw_user_age" if rows and "raw_user_age" in rows[0] else "bucketized_user_age"
    genres = ["|".join(genre_names[g] for g in r["movie_genres"].int64_list.value) for r in rows]
    frame = pl.DataFrame(
        {
            "user": text("user_id"),
            "item": text("movie_id"),
            "rating": floats("user_rating"),
            "timestamp": ints("timestamp"),
            "title": text("movie_title"),
            "genres": genres,
            "age": floats(age),
            "gender": ["M" if male else "F" for male in ints("user_gender")],
            "occupation": text("user_occupation_text"),
            "zip": text("user_zip_code"),
        }
    )
    return frame.with_columns(year=pl.col("title").str.extract(movielens_files.TITLE_YEAR))
