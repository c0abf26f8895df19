"""What leaves is what was learned: values, raw units, soft labels, weights and provenance."""

import json
import os
import re

import numpy as np
import pyarrow as pa
import pytest

from diet_jax.data.features import Scale
from diet_jax.export import export_memory, load_memory_table
from diet_jax.types import Memory, Schema, Stream

RECIPE = {"optimizer": "adam", "lr": 0.02, "steps": 60, "batch": 128, "eps_root": 1e-8}
SOURCE = {"log": "a small log", "stages": 3, "licence": "For research use only."}


def stream(fields=("user", "item"), dense=("age",)):
    values = ("<unknown>", "<unknown>", "ann", "bob", "Amélie (2001)", "Heat")
    return Stream(
        schema=Schema(fields, dense, (0, 1), (0, 1)),
        rows=None,
        stages=(),
        values=values,
        row_field=np.array([0, 1, 0, 0, 1, 1], np.int32),
        scales=(Scale(False, 30.0, 10.0, ()),) * len(dense),
        name="test log",
        licence="For research use only.",
    )


def memory(dense=1):
    return Memory(
        ids=np.array([[2, 4], [0, 5], [3, 1], [0, 0]], np.int32),
        dense=np.array([[0.0], [1.5], [-2.0], [9.0]], np.float32)[:, :dense],
        label_logit=np.array([0.0, 2.0, 200.0, -3.0], np.float32),
        log_weight=np.array([0.0, np.log(2), -1.0, 5.0], np.float32),
        born=np.array([1, 1, 3, 0], np.int32),
        source=np.array([7, 0, 2**40, -1], np.int64),
        valid=np.array([True, True, True, False]),
    )


def test_a_memory_comes_back(tmp_path):
    path = export_memory(tmp_path / "export", memory(), stream(), RECIPE, SOURCE)
    table = load_memory_table(path)
    assert table.equals(load_memory_table(tmp_path / "export"))
    assert [(f.name, f.type) for f in table.schema] == [
        ("user", pa.string()),
        ("user_id", pa.int32()),
        ("item", pa.string()),
        ("item_id", pa.int32()),
        ("age", pa.float32()),
        ("label", pa.float32()),
        ("weight", pa.float32()),
        ("born_stage", pa.int32()),
        ("source_row", pa.int64()),
    ]
    columns = table.to_pydict()
    assert columns["user"] == ["ann", "<unknown>", "bob"]
    assert columns["item"] == ["Amélie (2001)", "Heat", "<unknown>"]
    assert columns["item_id"] == [4, 5, 1]
    assert columns["age"] == [30.0, 45.0, 10.0]
    assert columns["label"][:2] == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    assert columns["weight"] == pytest.approx([1.0, 2.0, np.exp(-1)])
    assert columns["born_stage"] == [1, 1, 3]
    assert columns["source_row"] == [7, 0, 2**40]


def test_several_values_of_a_field_and_a_logarithm(tmp_path):
    """A history of items is a field of its own whose values are the items'."""
    several = stream(("user", "item", "history"), ("age", "price"))._replace(
        schema=Schema(("user", "item", "history"), ("age", "price"), (0, 1, 2, 2), (0, 1, 1, 1)),
        values=("<unknown>",) * 3 + ("ann", "Heat", "Alien"),
        row_field=np.array([0, 1, 2, 0, 1, 1], np.int32),
        scales=(Scale(False, 30.0, 10.0, ()), Scale(True, 1.0, 2.0, ())),
    )
    one = memory()._replace(
        ids=np.array([[3, 4, -1, -1], [3, 5, -1, 4], [0, 1, 4, 1], [0] * 4], np.int32),
        dense=np.array([[0, -0.5], [0, 0], [0, -1.0], [0, 0]], np.float32),
    )
    table = load_memory_table(export_memory(tmp_path, one, several, RECIPE, SOURCE))
    assert table["history"].to_pylist() == [[], ["Heat"], ["Heat", "<unknown>"]]
    assert table["history_id"].to_pylist() == [[], [4], [4, 1]]
    assert table["item"].to_pylist() == ["Heat", "Alien", "<unknown>"]
    np.testing.assert_allclose(table["price"].to_numpy(), [0, np.e - 1, 1 - np.e], atol=1e-6)
    assert table["age"].to_pylist() == [30.0] * 3


def test_a_history_of_one_place_may_be_empty(tmp_path):
    log = stream(("user", "history"))._replace(
        schema=Schema(("user", "history"), ("age",), (0, 1), (0, 0)),
        values=("<unknown>", "<unknown>", "ann"),
        row_field=np.array([0, 1, 0], np.int32),
    )
    one = memory()._replace(ids=np.array([[2, -1], [0, 2], [2, 0], [0, 0]], np.int32))
    table = load_memory_table(export_memory(tmp_path, one, log, RECIPE, SOURCE))
    assert table["history"].to_pylist() == [[], ["ann"], ["<unknown>"]]


def mixture():
    """`memory`, each of whose slots mixes two rows."""
    one = memory()
    return one._replace(
        ids=np.stack([one.ids, one.ids[::-1]], 1),
        source=np.stack([one.source, one.source[::-1]], 1),
        mix=np.log(np.array([[1, 3], [2, 2], [4, 0.001], [1, 1]], np.float32)),
    )


def test_a_mixture_is_written_row_by_row(tmp_path):
    table = load_memory_table(export_memory(tmp_path, mixture(), stream(), RECIPE, SOURCE))
    columns = table.to_pydict()
    assert columns["slot"] == [0, 0, 1, 1, 2, 2]
    assert columns["share"] == pytest.approx([0.25, 0.75, 0.5, 0.5, 1, 0], abs=1e-3)
    assert columns["user"] == ["ann", "<unknown>", "<unknown>", "bob", "bob", "<unknown>"]
    assert columns["item_id"] == [4, 0, 5, 1, 1, 5]
    assert columns["source_row"] == [7, -1, 0, 2**40, 2**40, 0]
    for name in ("label", "weight", "age", "born_stage"):  # of the slot: the same in all its rows
        assert columns[name][::2] == columns[name][1::2], name
    card = (tmp_path / "README.md").read_text()
    assert "Every 2 rows in a row" in card and "| `share` |" in card


def test_a_row_of_several_labels_names_its_task(tmp_path):
    two = stream(("user", "task"), ())._replace(
        schema=Schema(("user", "task"), (), (0, 1, 1), (0, 1, 1), {"click": 1, "buy": 2}),
        values=("<unknown>", "<unknown>", "ann", "click", "buy"),
        row_field=np.array([0, 1, 0, 1, 1], np.int32),
        scales=(),
    )
    ids = np.array([[2, 3, -1], [2, -1, 4], [0, -1, 1], [0, 0, 0]], np.int32)
    table = load_memory_table(
        export_memory(tmp_path, memory(0)._replace(ids=ids), two, RECIPE, SOURCE)
    )
    assert table["task"].to_pylist() == ["click", "buy", "<unknown>"]
    assert table["task_id"].to_pylist() == [3, 4, 1]


def test_labels_stay_inside_the_open_interval(tmp_path):
    extreme = memory()._replace(label_logit=np.array([500, -500, -90, 0], np.float32))
    table = load_memory_table(export_memory(tmp_path, extreme, stream(), RECIPE, SOURCE))
    label = table["label"].to_numpy()
    assert (label > 0).all() and (label < 1).all()
    assert np.isfinite(np.log(label / (1 - label))).all()


def test_provenance_travels_with_the_table(tmp_path):
    table = load_memory_table(export_memory(tmp_path, memory(), stream(), RECIPE, SOURCE))
    metadata = table.schema.metadata
    assert json.loads(metadata[b"diet_jax.recipe"]) == RECIPE
    assert json.loads(metadata[b"diet_jax.source"]) == SOURCE
    assert metadata[b"diet_jax.log"] == b"test log"
    assert json.loads((tmp_path / "recipe.json").read_text()) == RECIPE


def test_the_card_tells_columns_terms_and_source(tmp_path):
    export_memory(tmp_path, memory(), stream(), RECIPE, SOURCE)
    card = (tmp_path / "README.md").read_text()
    for column in ("user", "user_id", "age", "label", "weight", "born_stage", "source_row"):
        assert f"| `{column}` |" in card
    assert "For research use only." in card and "- stages: 3" in card
    assert "3 weighted examples" in card and "test log" in card
    assert "{" not in card.split("```")[0]


@pytest.mark.parametrize("make", [memory, mixture])
def test_the_code_on_the_card_trains_a_model(tmp_path, monkeypatch, make):
    export_memory(tmp_path, make(), stream(), RECIPE, SOURCE)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(code, scope)
    theta = scope["theta"]
    assert theta.shape == (6,)
    assert theta[3] > 0 and theta[1] > 0  # the row with the label near 1
    assert abs(theta[2]) < 0.1 * theta[1]  # the slot with the label 1/2


def test_names_that_collide_are_told_apart(tmp_path):
    clash = stream(fields=("label", "label_"), dense=("weight",))
    path = export_memory(tmp_path, memory(), clash, RECIPE, SOURCE)
    names = load_memory_table(path).column_names
    assert len(set(names)) == len(names) == 9
    assert names[-4:] == ["label", "weight", "born_stage", "source_row"]
    assert names[:3] == ["label_", "label__id", "label__"]


def test_an_empty_memory_and_no_dense_features(tmp_path):
    none = memory(dense=0)._replace(valid=np.zeros(4, bool))
    table = load_memory_table(export_memory(tmp_path, none, stream(dense=()), RECIPE, {}))
    assert table.num_rows == 0 and "age" not in table.column_names


def test_stages_count_from_one(tmp_path):
    with pytest.raises(ValueError, match="born"):
        wrong = memory()._replace(born=np.zeros(4, np.int32))
        export_memory(tmp_path / "x", wrong, stream(), RECIPE, SOURCE)


def test_an_export_cut_short_leaves_the_old_one(tmp_path, monkeypatch):
    path = export_memory(tmp_path, memory(), stream(), RECIPE, SOURCE)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert path.name in before

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export_memory(tmp_path, memory(), stream(), {"optimizer": "sgd"}, SOURCE)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
