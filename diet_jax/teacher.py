"""The teacher: a model carried along the stream, or several, whose labels memories start from."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diet_jax import fed, train
from diet_jax.compact import in_blocks, pad_to
from diet_jax.models import Model, init_params, logits
from diet_jax.models.base import pooled
from diet_jax.optim import Optimizer, make
from diet_jax.sharding import ONE_DEVICE, Placement
from diet_jax.train import Examples
from diet_jax.trials import PREDICT_BLOCK
from diet_jax.types import Array, Params, Rows


class Teacher(NamedTuple):
    """init(key) -> params of `model`. advance(params, rows, n_epochs, rng) -> params.

    predict(params, ids int32 [n, K], dense [n, G]) -> logits float32 [n].
    embed(params, ids, dense) -> float32 [n, X], what the model's tower is given: the embedding of
    every field and the dense features, side by side.
    """

    model: Model
    init: Callable[[Array], Params]
    advance: Callable[[Params, Rows, float, np.random.Generator], Params]
    predict: Callable[[Params, np.ndarray, np.ndarray], np.ndarray]
    embed: Callable[[Params, np.ndarray, np.ndarray], np.ndarray]


def make_teacher(
    model: Model,
    lr: float,
    batch: int,
    n_table: int,
    n_fields: int,
    n_dense: int,
    n_stage: int,
    place: Placement = ONE_DEVICE,
    chunk: int = 0,
) -> Teacher:
    """A teacher with a table of `n_table` rows, for stages of up to `n_stage` rows.

    It is trained on through the stages by Adam, a fresh optimizer state at each. On the devices the
    rows of a batch and of the table are spread as `place` says; what comes back is NumPy arrays.
    chunk: steps of a chunk, in which the rows of a stage are fed; 0: they lie on the devices.
    """
    tx = make(Optimizer("adam", eps_root=1e-12), lr)
    n_blocks = -(-min(n_stage, chunk * batch or n_stage) // PREDICT_BLOCK)
    size = n_blocks * PREDICT_BLOCK

    def lay(state, batch):
        return place.tables(state), place.rows(batch)

    @jax.jit
    def fit(params, data, order, n_steps):
        state = train.start(tx, place.tables(params))
        return train.fit(model, tx, state, data, order, n_steps, lay=lay).params

    begin = jax.jit(lambda params: train.start(tx, place.tables(params)))

    @partial(jax.jit, donate_argnums=0)
    def go_on(state, data, n_steps):
        order = jnp.arange(len(data.target))
        return train.fit(model, tx, state, data, order, n_steps, lay=lay)

    def answer(params, ids, dense):
        params = place.tables(params)
        block = lambda x: logits(model, params, *place.rows(x))  # noqa: E731
        return jax.lax.map(block, (ids, dense)).reshape(-1)

    answer = jax.jit(answer, out_shardings=place.whole)

    def with_table(params, change):
        return {**params, "table": change(params["table"])}

    def put(params, *others):
        wide = with_table(params, lambda t: pad_to(np.asarray(t), place.even(n_table)))
        return place.replicate((wide, *others))

    def advance(params, rows, n_epochs, rng):
        n = len(rows.label)
        n_steps = max(1, int(n_epochs * n) // batch)
        if chunk:
            orders, state = fed.passes(rng, n, n_steps, batch, chunk), begin(*put(params))
            for data, some in fed.chunks(rows, orders, n_steps, place, (None, "data")):
                state = jax.block_until_ready(go_on(state, data, some))
            trained = state.params
        else:
            data = Examples(*(pad_to(a, size) for a in rows))
            # A power of two, so that few shapes are compiled; only n_steps of them are run.
            order = pad_to(fed.epochs(rng, n, n_steps, batch), 1 << (n_steps - 1).bit_length())
            trained = fit(*put(params, data, order, np.int32(n_steps)))
        return with_table(place.fetch(trained), lambda t: t[:n_table])

    def predict(params, ids, dense):
        (params,), found = put(params), []
        for at in range(0, len(ids), size):
            rows = (a[at : at + size] for a in (ids, dense))
            blocks = (in_blocks(a, n_blocks, PREDICT_BLOCK) for a in rows)
            found.append(np.asarray(answer(params, *place.replicate(tuple(blocks)))))
        return np.concatenate(found)[: len(ids)]

    pool = jax.jit(partial(pooled, model))

    def embed(params, ids, dense):
        blocks = (ids[at : at + PREDICT_BLOCK] for at in range(0, len(ids), PREDICT_BLOCK))
        padded = (pad_to(block, PREDICT_BLOCK) for block in blocks)
        found = [np.asarray(pool(params["table"][np.maximum(b, 0)], b)) for b in padded]
        emb = np.concatenate(found)[: len(ids)]
        return np.concatenate([emb.reshape(len(emb), -1), dense], axis=1)

    def init(key):
        return init_params(model, key, jnp.arange(n_table), n_fields, n_dense)

    return Teacher(model, init, advance, predict, embed)


def together(teachers: tuple[Teacher, ...]) -> Teacher:
    """One that answers with the mean of their logits.

    Each is trained by itself, the first as if it were alone, whose `model` and `embed` are those of
    all. The parameters are the first one's and, as `more`, those of the others.
    """
    first, *others = teachers
    if not others:
        return first

    def init(key):
        keys = (jax.random.fold_in(key, k) for k in range(len(others)))
        more = tuple(t.init(k) for t, k in zip(others, keys, strict=True))
        return {**first.init(key), "more": more}

    def each(params):
        return zip(teachers, (alone(params), *params["more"]), strict=True)

    def advance(params, rows, n_epochs, rng):
        trained, *more = (t.advance(p, rows, n_epochs, rng) for t, p in each(params))
        return {**trained, "more": tuple(more)}

    def predict(params, ids, dense):
        return np.mean([t.predict(p, ids, dense) for t, p in each(params)], axis=0)

    def embed(params, ids, dense):
        return first.embed(alone(params), ids, dense)

    return Teacher(first.model, init, advance, predict, embed)


def alone(params: Params) -> Params:
    """Those of the first of several teachers, which fit `Teacher.model`."""
    return {k: p for k, p in params.items() if k != "more"} if "more" in params else params
