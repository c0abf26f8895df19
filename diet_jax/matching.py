"""Outer objectives of rival distillations: how far a memory is from real rows, by other measures.

Each is f(inner, slots, trajectory, outer) -> [], in the place of `metagrad.outer_loss`. None of
them looks at what a model trained on the memory loses; they match gradients, features, parameters,
or the answers of a kernel method instead.
"""

import jax
import jax.numpy as jnp

from diet_jax import train
from diet_jax.metagrad import Inner, Slots, Trajectory, all_trained, outer_loss, warm_up
from diet_jax.models import logits
from diet_jax.models.base import exact_products, look_up, pooled
from diet_jax.train import Examples, TrainState
from diet_jax.types import Array, Params

RIDGE = 1e-3  # of the kernel method, times the mean squared length of a slot's features


def gradient(inner: Inner, slots: Slots, trajectory: Trajectory, outer: Examples) -> Array:
    """Gradient matching: 1 - cosine of the memory's and the real rows' gradients, summed over the
    leaves of the parameters, after `end` steps on the memory.

    Zhao, Mopuri & Bilen, ICLR 2021; for CTR models Wang et al., CGM, 2023.
    """
    state = _arrived(inner, slots, trajectory)

    def slope(examples):
        return jax.grad(lambda p: train.loss(inner.model, p, examples))(state.params)

    real, mine = jax.lax.stop_gradient(slope(outer)), slope(_in_use(slots))

    def apart(a, b):
        norms = jnp.sqrt(jnp.square(a).sum() * jnp.square(b).sum() + 1e-20)
        return 1 - (a * b).sum() / norms

    return sum(jax.tree.leaves(jax.tree.map(apart, mine, real)), jnp.zeros(()))


def distribution(inner: Inner, slots: Slots, trajectory: Trajectory, outer: Examples) -> Array:
    """Distribution matching: the squared distance of the mean features of positives, and of the
    others, under random embeddings (Zhao & Bilen, WACV 2023). The share of each class counts."""
    params = inner.init(trajectory.key, all_trained(inner, trajectory).trained, slots)

    def means(examples):
        emb = pooled(inner.model, look_up(params, examples.ids), examples.ids)
        emb /= inner.model.init_scale
        one = jnp.ones((len(emb), 1))
        x = jnp.concatenate([one, emb.reshape(len(emb), -1), examples.dense], axis=1)
        classes = jnp.stack([examples.target, 1 - examples.target])
        with exact_products():
            return (classes * examples.weight[None]) @ x / len(emb)

    return jnp.square(means(_in_use(slots)) - means(outer)).sum()


def trajectory(inner: Inner, slots: Slots, trajectory: Trajectory, outer: Examples) -> Array:
    """Trajectory matching: where `window` steps on the memory lead, against as many on real rows,
    from where real rows had led before; squared, relative to how far those steps go.

    Cazenavette et al., CVPR 2022. The expert is trained on the outer rows at hand.
    """
    key_init, key_order = jax.random.split(trajectory.key)
    params = inner.init(key_init, all_trained(inner, trajectory).trained, slots)
    everyone = jnp.ones(len(outer.ids), bool)
    expert = train.cyclic_order(key_order, everyone, inner.steps, inner.batch)
    student = train.cyclic_order(key_order, slots.valid, inner.window, inner.batch)
    first = trajectory.end - inner.window

    def real(k: Array, state: TrainState) -> TrainState:
        return inner.step(state, jax.tree.map(lambda a: a[expert[k]], outer))

    begin = jax.lax.fori_loop(0, first, real, train.start(inner.tx(), params))
    begin = jax.lax.stop_gradient(begin)
    target = jax.lax.fori_loop(first, trajectory.end, real, begin).params

    @jax.checkpoint
    def step(state, index):
        return inner.step(state, slots.examples(index)), None

    reached = jax.lax.scan(step, begin, student)[0].params
    return _squares(reached, target) / (_squares(begin.params, target) + 1e-12)


def kernel(inner: Inner, slots: Slots, trajectory: Trajectory, outer: Examples) -> Array:
    """Squared error on real rows of kernel ridge regression on the memory, after `end` steps on it.

    In the manner of FRePo (Zhou, Nezhadarya & Ba, NeurIPS 2022). A row's features are the gradient
    of its logit by all parameters beside the table, so that any architecture has them.
    """
    params = _arrived(inner, slots, trajectory).params

    def features(examples):
        def one(ids, dense):
            def logit(net):
                return logits(inner.model, {**params, "net": net}, ids[None], dense[None])[0]

            leaves = jax.tree.leaves(jax.grad(logit)(params["net"]))
            return jnp.concatenate([jnp.ones(1), *(leaf.ravel() for leaf in leaves)])

        return jax.vmap(one)(examples.ids, examples.dense)

    mine = _in_use(slots)
    x, y = features(mine), mine.target - 0.5
    # Solved by slots, of which there are fewer than parameters; weights are not split into their
    # roots, whose slope at zero is infinite.
    with exact_products():
        products = x @ x.T * mine.weight[None]
        ridge = RIDGE * jnp.trace(products) / len(x)
        answer = mine.weight * jnp.linalg.solve(products + ridge * jnp.eye(len(x)), y)
        error = features(outer) @ (x.T @ answer) - (outer.target - 0.5)
    return jnp.mean(outer.weight * jnp.square(error))


OBJECTIVES = {
    "loss": outer_loss,
    "gradient": gradient,
    "distribution": distribution,
    "trajectory": trajectory,
    "kernel": kernel,
}


def _arrived(inner: Inner, slots: Slots, trajectory: Trajectory) -> TrainState:
    """The state after `end` steps on the memory, with all rows in its table; a constant."""
    return warm_up(inner._replace(mode="one_step"), slots, all_trained(inner, trajectory))[0]


def _in_use(slots: Slots) -> Examples:
    """All slots; those out of use have no weight, and the mean is over those in use."""
    every = slots.examples(jnp.arange(len(slots.valid)))
    scale = len(slots.valid) / jnp.maximum(slots.valid.sum(), 1)
    return every._replace(weight=every.weight * slots.valid * scale)


def _squares(a: Params, b: Params) -> Array:
    return sum(
        jax.tree.leaves(jax.tree.map(lambda x, y: jnp.square(x - y).sum(), a, b)), jnp.zeros(())
    )
