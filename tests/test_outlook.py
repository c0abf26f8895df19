"""The outer loss asks what the next stage will ask: values mostly unseen there are hidden."""

import numpy as np
import polars as pl
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diet_jax.data.vocabulary import as_known
from diet_jax.job import prepare
from diet_jax.outlook import churn, hide
from diet_jax.run import begin

# Field 0 is column 0; field 1 is columns 1 and 2. Their unknown rows are 0 and 1.
POOL, VOCAB = (0, 1, 1), (0, 1, 1)


def test_churn_counts_values_of_the_tail_that_were_unseen():
    early = [[2, 4, -1]] * 8
    late = [[3, 4, 5], [2, 6, -1]]
    np.testing.assert_allclose(churn(np.array(early + late), POOL, 2, 0.2), [1 / 2, 2 / 3])
    # What the stages before knew is not new.
    np.testing.assert_allclose(churn(np.array(early + late), POOL, 6, 0.2), [0, 1 / 3])
    assert churn(np.array([[-1, 2, -1]]), POOL, 2, 0.5).tolist() == [0, 1]  # no value: no churn


@given(hnp.arrays(np.int32, (6, 3), elements=st.integers(-1, 9)), st.booleans(), st.booleans())
def test_what_is_hidden_looks_as_a_value_looks_that_the_table_does_not_have(ids, first, second):
    hidden = hide(ids, np.array([first, second]), POOL, VOCAB)
    known = np.arange(101) < 10
    known[-1] = True
    unseen = as_known(np.where(ids >= 0, 99, -1), known, VOCAB)
    np.testing.assert_array_equal(hidden[:, 0], (unseen if first else ids)[:, 0])
    np.testing.assert_array_equal(hidden[:, 1:], (unseen if second else ids)[:, 1:])
    assert hidden.dtype == ids.dtype


@pytest.mark.parametrize("above", [0.5, 1.0])
def test_a_log_of_ever_new_users_has_its_users_hidden_from_the_outer_loss(tmp_path, above):
    columns = toy.log()
    columns["user"] = np.arange(len(columns["user"])) // 2
    path = tmp_path / "log.parquet"
    pl.DataFrame(columns).write_parquet(path)
    job = prepare(toy.config(str(path), **{"outer.hide_above": above}))
    for number in (1, 2):
        turn = begin(job, job.first, number)
        hidden, fresh = turn.hidden, turn.look.stage
        assert hidden.tolist() == [above < 1, False, False]
        ids = fresh.rows.ids
        np.testing.assert_array_equal(fresh.ahead_ids[:, 1:], ids[:, 1:])
        np.testing.assert_array_equal(fresh.ahead_ids[:, 0], 0 if above < 1 else ids[:, 0])
        same = np.array_equal(fresh.ahead_logit, fresh.teacher_logit)
        assert same == (above == 1)
