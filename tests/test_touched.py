"""Training by touched rows ends with the bits of training on the whole table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from diet_jax import touched, train
from diet_jax.models import init_params, make_model
from diet_jax.optim import Optimizer, make
from diet_jax.types import InputError

POOL = (0, 1, 1, 2)  # so that a column may be without a value


def problem():
    rng = np.random.default_rng(0)
    data = toy.examples(rng, 12)
    more = np.where(rng.random(12) < 0.5, -1, data.ids[:, 1][::-1])
    ids = np.concatenate([data.ids[:, :2], more[:, None], data.ids[:, 2:]], axis=1)
    order = rng.integers(0, 12, (5, 6))  # with repeats: rows that several places of a batch touch
    return jax.tree.map(jnp.asarray, data._replace(ids=ids.astype(np.int32))), jnp.asarray(order)


@pytest.mark.parametrize("name", ["lazy_adam", "rowwise_adagrad", "sgd"])
def test_it_is_training_on_the_whole_table(name):
    # As wide as the table is long: the leaves of the net are not to be taken for rows.
    model = make_model("DeepFM", dim=2, hidden=(toy.VOCAB,), init_scale=0.3, pool=POOL)
    optimizer, lr, l2 = Optimizer(name), 0.05, 0.1
    data, order = problem()

    @jax.jit
    def both(n_steps):
        params = init_params(model, jax.random.key(0), jnp.arange(toy.VOCAB), 0, 1)
        state = train.start(make(optimizer, lr), params)
        dense = train.fit(model, make(optimizer, lr), state, data, order, n_steps, l2)
        return state, dense, touched.fit(model, optimizer, lr, state, data, order, n_steps, l2)

    start, dense, found = both(5)
    for a, b in zip(jax.tree.leaves(dense), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-8)
    table, first = found.params["table"], start.params["table"]
    never = np.setdiff1d(np.arange(toy.VOCAB), data.ids[order])
    assert len(never) and np.array_equal(table[never], first[never])
    assert np.all(np.any(table != first, axis=1) | np.isin(np.arange(toy.VOCAB), never))


@pytest.mark.parametrize("optimizer", [Optimizer("adam"), Optimizer("sgd", momentum=0.9)])
def test_an_optimizer_that_moves_other_rows_is_refused(optimizer):
    with pytest.raises(InputError, match=f"{optimizer.name} moves rows .* lazy_adam"):
        touched.fit(make_model("LR", 1, ()), optimizer, 0.1, *[None] * 4)
