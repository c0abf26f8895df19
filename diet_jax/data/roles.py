"""Refuses roles that no log can be read with, whatever source they come from."""

import math

from diet_jax.data.source import TASK, Field, Roles
from diet_jax.types import InputError

DERIVED = ("hour", "weekday", "day")
MOST = 1 << 16  # values of a field in one row
SCALES = ("none", "standard", "log", "quantile")


def check(roles: Roles) -> None:
    """Raises InputError, in the words of the config, for the first role that cannot be."""
    for key in ("label", "time", "user"):
        if not getattr(roles, key):
            raise InputError(f"data.{key} is empty; name the column with --config.data.{key}")
    if not roles.fields:
        raise InputError("data.categorical is empty; name at least one categorical column")
    names = [feature.name for feature in (*roles.fields, *roles.dense)]
    if roles.history:
        names.append("history")
    for label in roles.labels:
        key = "data.label" if label == roles.label else "data.more_labels"
        if not label or roles.labels.count(label) > 1:
            raise InputError(f"data.more_labels: {label!r} is no further label; name other columns")
        if label in names:
            raise InputError(f"{key} {label!r} is also a feature; take it out of the features")
    if roles.more_labels and names.count(TASK) > 1:
        raise InputError(
            f"a feature is called {TASK!r}, as the field that data.more_labels makes; rename it"
        )
    for column in names:
        if names.count(column) > 1:
            raise InputError(f"column {column!r} is named twice as a feature; name it once")
        if not column:
            raise InputError("a feature has an empty name; name a column")
    plain = [f.name for f in roles.fields if f.width == 1 and not f.derived]
    for field in roles.fields:
        check_field(field, plain)
    for feature in roles.dense:
        name, missing = feature.name, feature.missing
        if feature.scale not in SCALES:
            known = ", ".join(SCALES)
            raise InputError(f"data.scale of {name!r} is {feature.scale!r}; set it to {known}")
        if missing is not None and not (isinstance(missing, int | float) and abs(missing) < 3e38):
            raise InputError(f"data.missing of {name!r} is {missing!r}; give a finite number")
    if not (isinstance(roles.threshold, int | float) and math.isfinite(roles.threshold)):
        raise InputError(
            f"data.threshold is {roles.threshold!r}; give a number, < 0 for labels 0/1"
        )
    if roles.history and roles.history.field not in plain:
        raise InputError(
            f"data.history is {roles.history.field!r}; set it to one of {', '.join(plain)}"
        )
    if roles.history and not 1 <= roles.history.length <= MOST:
        length = roles.history.length
        raise InputError(f"data.history_length is {length}; set it to 1 .. {MOST}")


def check_field(field: Field, plain: list[str]) -> None:
    """plain: the fields with one value of the source's own, of which rows can be counted."""
    name, (kind, _, of) = field.name, field.derived.partition(":")
    if not 1 <= field.width <= MOST:
        raise InputError(f"field {name!r} has the width {field.width}; give it 1 .. {MOST}")
    if not (isinstance(field.hashed, int) and 0 <= field.hashed < 2**31):
        raise InputError(f"data.hashed of {name!r} is {field.hashed!r}; set it to 0 or more rows")
    if field.derived == TASK and field.width > 1:
        return  # of `with_tasks`
    if field.derived and (field.width > 1 or field.hashed):
        raise InputError(f"field {name!r} is derived; give it no width and no hashed rows")
    if kind == "count" and of not in plain:
        raise InputError(f"data.derived {field.derived!r}: count one of {', '.join(plain)}")
    if kind != "count" and field.derived not in ("", *DERIVED):
        known = ", ".join(DERIVED)
        raise InputError(f"data.derived {field.derived!r}: set it to {known} or count:COLUMN")
