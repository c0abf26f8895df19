"""A user's own log, so that bringing one takes column names and nothing else."""

from pathlib import Path

from diet_jax.data import readers
from diet_jax.data.clean import used
from diet_jax.data.source import Dense, Field, History, Roles, Source, with_tasks
from diet_jax.types import Config, InputError


def read(data: Config) -> Source:
    """The table, or the folder of tables, at `data.path`, with roles as the block `data` says.

    Raises InputError for names that cannot be, or a path that is no table.
    """
    if not data.path:
        raise InputError(
            "data.path is empty; set --config.data.path to a Parquet, Arrow, CSV or JSONL file, "
            "or to a folder of them"
        )
    name = data.name or Path(data.path).absolute().name.split(".")[0]
    roles = roles_of(data)
    columns = tuple(dict.fromkeys(filter(None, used(roles))))
    lists = {name: data.separator for name in data.multi}
    return Source(name, readers.table_parts(data.path, columns, lists), roles)


def roles_of(data: Config) -> Roles:
    """Raises InputError for a name that is no text, and if a property is given of a column that is
    no feature of that kind."""
    for key in ("categorical", "multi", "dense", "derived", "more_labels"):
        for name in data[key]:
            if not isinstance(name, str):
                raise InputError(f"data.{key} has {name!r}; give the names of columns as text")
    categorical = {*data.categorical, *data.multi}
    for key, given, known in (
        ("hashed", data.hashed, categorical),
        ("scale", data.scale, {*data.dense, "default"}),
        ("missing", data.missing, data.dense),
    ):
        if unknown := sorted(set(given) - set(known)):
            raise InputError(
                f"data.{key} names {unknown[0]!r}, which is no such feature; name one of "
                f"{', '.join(sorted(known)) or 'data.dense'}"
            )
    for name, width in data.multi.items():
        if not isinstance(width, int) or width < 2:
            raise InputError(f"data.multi of {name!r} is {width!r}; set it to 2 or more values")
    default = data.scale.get("default", "standard")
    fields = [
        Field(name, data.multi.get(name, 1), data.separator, data.hashed.get(name, 0))
        for name in (*data.categorical, *(n for n in data.multi if n not in data.categorical))
    ]
    derived = [Field(name.replace(":", "_"), derived=name) for name in data.derived]
    dense = [
        Dense(name, data.scale.get(name, default), data.missing.get(name)) for name in data.dense
    ]
    history = History(data.history, data.history_length) if data.history else None
    roles = Roles(
        data.label,
        data.time,
        data.user,
        (*fields, *derived),
        tuple(dense),
        data.threshold,
        data.weight,
        history,
    )
    return with_tasks(roles, tuple(data.more_labels))
