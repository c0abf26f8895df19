"""The distilled memory as files that any tool reads: one Parquet table, its recipe and its card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit, softmax

import diet_jax
from diet_jax.data.features import unscale
from diet_jax.files import replace_file, replace_text
from diet_jax.memory import mixed
from diet_jax.types import Memory, Stream

_OWN_COLUMNS = ("label", "weight", "born_stage", "source_row", "slot", "share")


def export_memory(
    folder: str | Path,
    memory: Memory,
    stream: Stream,
    recipe: dict[str, Any],
    source: dict[str, Any],
) -> Path:
    """Writes memory.parquet, recipe.json and README.md into a folder, each whole or not at all.

    Args:
        folder: created when missing.
        memory: NumPy arrays; only valid slots are written, in slot order. `born` is 1-based. A slot
            that mixes rows is written row by row, with the slot's number and the row's share.
        stream: the log that it was distilled from; names the columns, decodes ids and dense values.
        recipe: how to train on it (optimizer, steps, batch, ...), JSON values.
        source: where it comes from, JSON values. "licence" (text or Markdown) becomes the card's
            notice; everything else is listed as provenance.

    Returns:
        The path of memory.parquet, which is written last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table, meaning = _table(memory, stream)
    metadata = {
        "diet_jax.version": diet_jax.__version__,
        "diet_jax.log": stream.name,
        "diet_jax.recipe": json.dumps(recipe, sort_keys=True),
        "diet_jax.source": json.dumps(source, sort_keys=True),
    }
    table = table.replace_schema_metadata(metadata)
    replace_text(folder / "recipe.json", json.dumps(recipe, indent=2, sort_keys=True) + "\n")
    replace_text(folder / "README.md", _card(table, meaning, stream, source))
    return replace_file(
        folder / "memory.parquet", lambda path: pq.write_table(table, path, compression="zstd")
    )


def load_memory_table(path: str | Path) -> pa.Table:
    """The table of a memory.parquet, or of its folder; recipe and source in `schema.metadata`."""
    path = Path(path)
    return pq.read_table(path / "memory.parquet" if path.is_dir() else path)


def _table(memory: Memory, stream: Stream) -> tuple[pa.Table, dict[str, str]]:
    """The rows of the valid slots as columns, and what each column means."""
    n_mixed = mixed(memory)
    used = np.repeat(np.flatnonzero(memory.valid), n_mixed)  # the slot of every row
    ids = np.asarray(memory.ids, np.int32)[memory.valid]
    ids = ids.reshape(-1, ids.shape[-1])
    born = np.asarray(memory.born, np.int32)[used]
    if (born < 1).any():
        raise ValueError("memory.born counts stages from 1")
    taken: set[str] = set(_OWN_COLUMNS)
    columns, meaning = {}, {}

    def add(name: str, values: Any, text: str) -> str:
        columns[name], meaning[name] = values, text
        return name

    text = {int(row): stream.values[int(row)] for row in np.unique(ids[ids >= 0])}
    for f, field in enumerate(stream.schema.fields):
        columns_of_field = [k for k, pool in enumerate(stream.schema.pool) if pool == f]
        mine = ids[:, columns_of_field]
        if columns_of_field == list(stream.schema.tasks.values()):
            mine = mine.max(1, keepdims=True)  # the one value that a row has in its task's column
        is_history = any(stream.schema.vocab[k] != f for k in columns_of_field)  # it may be empty
        if mine.shape[1] == 1 and not is_history:
            rows, kind, kinds = mine[:, 0].tolist(), "value", pa.string()
            values = [text[row] for row in rows]
        else:
            rows, kind, kinds = [r[r >= 0].tolist() for r in mine], "values", pa.list_(pa.string())
            values = [[text[row] for row in some] for some in rows]
        name = _free_name(field, taken)
        add(name, pa.array(values, kinds), f"{kind} of the categorical field")
        row_type = pa.list_(pa.int32()) if kind == "values" else pa.int32()
        add(
            _free_name(f"{name}_id", taken),
            pa.array(rows, row_type),
            f"{'rows' if kind == 'values' else 'row'} of `{name}` in the one table of all fields",
        )
    dense = unscale(np.asarray(memory.dense)[used], stream.scales)
    for g, feature in enumerate(stream.schema.dense):
        name = _free_name(feature, taken)
        add(name, pa.array(dense[:, g]), "dense feature, in the units of the log")
    label = _soft_label(np.asarray(memory.label_logit, np.float64)[used])
    weight = np.exp(np.asarray(memory.log_weight, np.float64)[used]).astype(np.float32)
    source = np.asarray(memory.source, np.int64)[memory.valid].ravel()
    add("label", pa.array(label), "soft label, strictly between 0 and 1")
    add("weight", pa.array(weight), "sample weight, positive")
    add("born_stage", pa.array(born), "stage that wrote the row, from 1")
    add("source_row", pa.array(source), "row of the time-ordered log it started from, from 0")
    if memory.mix is not None:
        slot = np.repeat(np.arange(len(used) // n_mixed), n_mixed)
        share = softmax(memory.mix[memory.valid], axis=1).ravel()
        add("slot", pa.array(slot), f"the slot that mixes this row with others, {n_mixed} in all")
        add("share", pa.array(share), "the row's share of the slot's embeddings; they add up to 1")
    return pa.table(columns), meaning


def _soft_label(logit: np.ndarray) -> np.ndarray:
    """Sigmoid as float32, kept off 0 and 1, so that it always has a finite logit."""
    low, high = np.finfo(np.float32).tiny, np.nextafter(np.float32(1), np.float32(0))
    return np.clip(expit(logit).astype(np.float32), low, high)


def _free_name(name: str, taken: set[str]) -> str:
    """`name`, with underscores appended until no other column has it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _card(table: pa.Table, meaning: dict[str, str], stream: Stream, source: dict[str, Any]) -> str:
    """The dataset card, in Markdown."""
    columns = "\n".join(
        f"| `{name}` | {table.schema.field(name).type} | {text} |" for name, text in meaning.items()
    )
    provenance = [
        f"- {key}: {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in source.items()
        if key != "licence"
    ]
    ids = [name for name, text in meaning.items() if text.startswith("row of `")]
    n_mixed = int((table["slot"].to_numpy() == 0).sum()) if "slot" in meaning else 1
    return _CARD.format(
        name=stream.name,
        mixtures=_MIXTURES.format(n=n_mixed) if n_mixed > 1 else "",
        fit=(_FIT_MIXED if n_mixed > 1 else _FIT).replace("{n}", str(n_mixed)),
        rows=f"{table.num_rows // n_mixed:,}",
        real=f"mixtures of {n_mixed} real rows" if n_mixed > 1 else "real rows",
        stages=table["born_stage"].to_numpy().max(initial=0),
        columns=columns,
        ids=json.dumps(ids),
        vocabulary=len(stream.values),
        provenance="\n".join(["", *provenance, ""]) if provenance else "",
        licence=source.get("licence", "The terms of the log apply to what is derived from it."),
        version=diet_jax.__version__,
    )


_MIXTURES = """
## Mixtures

Every {n} rows in a row, those with the same `slot`, are one training row with one label and weight:
in each field its embedding is the mean of theirs, weighted by `share`. A dense column has the same
value in all of them: that of the slot, which began as their mean.
"""

_FIT = """\
for rows in rng.integers(len(y), size=(200, 128)):
    error = w[rows] * (1 / (1 + np.exp(-theta[x[rows]].sum(1))) - y[rows])
    np.add.at(theta, x[rows], -0.1 / len(rows) * error[:, None])"""

_FIT_MIXED = """\
x, y, w = x.reshape(-1, {n}, x.shape[1]), y[::{n}], w[::{n}]
share = table["share"].to_numpy().reshape(-1, {n}, 1)
for rows in rng.integers(len(y), size=(200, 128)):
    z = (share[rows] * theta[x[rows]]).sum((1, 2))
    error = w[rows] * (1 / (1 + np.exp(-z)) - y[rows])
    np.add.at(theta, x[rows], -0.1 / len(rows) * error[:, None, None] * share[rows])"""

_CARD = """\
# Distilled memory of {name}

{rows} weighted examples with soft labels that stand in for the whole log when a recommender is
trained: {real} of the log, whose labels and weights were learned so that a model trained on
them from scratch predicts the log's next stage as well as it can. They were written over {stages}
stage(s).
{provenance}
## Columns of memory.parquet

| column | type | meaning |
|---|---|---|
{columns}

The value `<unknown>` stands for every value that a field had no table row for; its table row is the
field's number, from 0.
{mixtures}
## Training on it

Minimise the mean of `weight * cross_entropy(model(row), label)` from a fresh start, with the
optimizer, steps and batch size in `recipe.json`: the rows were made for that recipe. `eps_root`
stands inside Adam's square root; PyTorch's `eps` stands outside and makes smaller steps. Dense
columns are in the units of the log: `dense` in `recipe.json` says how models saw them. A logistic
regression by plain SGD, for instance, of the columns with one value alone:

```python
import numpy as np, pyarrow.parquet as pq
table, rng = pq.read_table("memory.parquet"), np.random.default_rng(0)
x = np.stack([table[name].to_numpy() for name in {ids}], 1)
y, w = table["label"].to_numpy(), table["weight"].to_numpy()
theta = np.zeros({vocabulary})
{fit}
```

A row of the log then scores `theta[ids].sum()`, with its table rows `ids`. They are found through
the pairs (value, id) of this table; a value that is not in it is `<unknown>`.

## Licence

{licence}

Made by diet_jax {version}.
"""
