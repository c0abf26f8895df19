"""What a person should know of a prepared log's columns before a model is trained on them."""

from typing import NamedTuple

import numpy as np
import polars as pl

from diet_jax.data.columns import MISSING
from diet_jax.data.features import unscale
from diet_jax.types import Stream

SAMPLE = 1 << 20  # rows looked at, at most


class Field(NamedTuple):
    """A categorical field: its name and distinct values, and of the last stage the shares of rows
    in which it has none (`missing`), one that no stage before has made known (`new`; NaN of a log
    of one stage), and its most frequent one, `common` (`share`)."""

    name: str
    values: int
    missing: float
    new: float
    common: str
    share: float


class Dense(NamedTuple):
    """A dense feature: its name, and `QUANTILES` of the last stage, in the units of the log. It is
    kept between `least` and `most`, if its scale is such."""

    name: str
    quantiles: list[float]
    least: float = -np.inf
    most: float = np.inf


QUANTILES = 0.0, 0.05, 0.5, 0.95, 1.0


def profile(stream: Stream) -> tuple[list[Field], list[Dense]]:
    """Every column of the log over its last stage; of that `SAMPLE` rows at most, evenly spread."""
    last, schema = stream.stages[-1], stream.schema
    n = len(last.user)
    at = np.unique(np.linspace(0, n - 1, min(SAMPLE, n)).astype(int))
    ids, dense = last.rows.ids[at], unscale(last.rows.dense[at], stream.scales)
    known = stream.stages[-2].vocab_size if len(stream.stages) > 1 else None
    texts = pl.Series(stream.values)
    lacking = (texts == MISSING).arg_true().to_numpy()
    n_values = np.bincount(stream.row_field, minlength=len(schema.fields)) - 1  # not the unknown
    fields = []
    for f, name in enumerate(schema.fields):
        mine = ids[:, np.array(schema.pool) == f]
        unknown = schema.vocab[schema.pool.index(f)]  # its row: of a history, the item's
        none = ((mine < 0) | np.isin(mine, lacking)).all(1).mean()
        new = np.nan
        if known is not None:
            new = ((mine >= known) | (mine == unknown)).any(1).mean()
        row, count = np.unique(mine[mine >= 0], return_counts=True)
        common, share = MISSING, none
        if len(row):
            best = int(row[np.argmax(count)])
            common, share = texts[best], (mine == best).any(1).mean()
        values = int(n_values[unknown])
        fields.append(Field(name, values, float(none), float(new), common, float(share)))
    features = []
    for g, (name, scale) in enumerate(zip(schema.dense, stream.scales, strict=True)):
        x = np.where(np.abs(dense[:, g]) < 1e-6 * np.abs(dense[:, g]).max(), 0, dense[:, g])
        ends = unscale(np.array([[-1.0], [1.0]]), (scale,))[:, 0].tolist() if scale.knots else []
        features.append(Dense(name, np.quantile(x, QUANTILES).tolist(), *ends))
    return fields, features
