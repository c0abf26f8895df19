"""The outer loss of a memory and its derivative through training on the memory.

One trajectory starts from fresh parameters (or the teacher's), trains on minibatches of the memory
and ends in a loss on real rows. What its derivative sees is the mode:

    full      all steps
    random    the last `window` steps before a random end (RaT-BPTT, Feng et al. 2024)
    adaptive  the same, with ends drawn where the derivative was large (after AT-BPTT, 2025)
    implicit  the stationary point that training has reached (implicit function theorem)
    one_step  one gradient step on the whole memory after a random end: gradient matching

The first three are exact for the steps they see. docs/metagrad.md explains the backward pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from diet_jax import compact, optim, touched, train
from diet_jax.models import Model, init_params
from diet_jax.optim import Optimizer
from diet_jax.sharding import ONE_DEVICE, Placement
from diet_jax.train import Batch, Examples, TrainState
from diet_jax.types import Array, Params
from diet_jax.unroll import choose_level, scan_steps

MODES = ("full", "random", "adaptive", "implicit", "one_step")


class Inner(NamedTuple):
    """The inner loop: which model, trained how, and differentiated how (all static).

    steps: T. batch: rows a step. l2: weight of the penalty on the embeddings of a batch.
    mode: one of MODES. window: W <= T, the steps differentiated in the modes random and adaptive.
    budget: bytes that the unrolled steps of a trajectory may hold (`unroll.choose_level`).
    offload: keep states in the host's memory. unroll: differentiated steps that are compiled as
    one turn of a loop. mixed: differentiate gradients in forward mode.
    damping, solves: of the mode implicit, what is added to the curvature, and how many steps of
    conjugate gradients are taken. place: where its table lies, by row.
    """

    model: Model
    optimizer: Optimizer
    lr: float
    steps: int
    batch: int
    window: int
    l2: float = 0.0
    mode: str = "random"
    budget: int = 1 << 30
    offload: bool = False
    unroll: int = 1
    mixed: bool = False
    damping: float = 1e-3
    solves: int = 20
    place: Placement = ONE_DEVICE

    def tx(self, rates: Array | None = None):
        return optim.make(self.optimizer, self.rate(rates))

    def rate(self, rates: Array | None) -> float | Array:
        """The learning rate; with `rates` [2], `Slots.rates` of this proxy, the table's and the
        net's."""
        return self.lr if rates is None else self.lr * jnp.exp(rates)

    @property
    def unrolled(self) -> int:
        """The steps that are differentiated one by one."""
        return {"full": self.steps, "implicit": 0, "one_step": 0}.get(self.mode, self.window)

    @property
    def first_end(self) -> int:
        """The earliest step that a trajectory may end at; the last one is `steps`."""
        return self.steps if self.mode == "implicit" else self.unrolled

    def step(
        self, state: TrainState, batch: Examples, nudge: Params = None, rates: Array | None = None
    ) -> TrainState:
        gradient = train.forward_over_reverse if self.mixed else jax.grad
        state, nudge = self.place.tables((state, nudge))
        after = train.step(self.model, self.tx(rates), state, batch, self.l2, nudge, gradient)
        return self.place.tables(after)

    def walk(
        self, state: TrainState, slots: "Slots", nudge: "Nudge | None" = None
    ) -> tuple[Callable, tuple[TrainState, Array | None]]:
        """(step, carry): step(carry, batch) -> carry, of which the first part is the state.

        A step costs what it looks up where the optimizer lets it, and where that is less than the
        table; then the second part is a mark for each table row (`touched.find_places`), else None.
        """
        n_table, rates = len(state.params["table"]), slots.rates
        looked_up = self.batch * slots.ids[0].size + (nudge.rows.ids.size if nudge else 0)
        if not touched.pays(self.optimizer, looked_up, n_table) or self.place.size("table") > 1:

            def whole(carry, batch):
                state, _ = carry
                return self.step(state, batch, nudge and nudge.gradient(state.params), rates), None

            return whole, (state, None)

        def on_small(small, rest):
            batch, rates, nudge = rest
            return self.step(small, batch, nudge and nudge.gradient(small.params), rates)

        on_rows = touched.by_touched_rows(on_small, touched.which_by_row(self.tx(rates), state))

        def step(carry, batch):
            state, mark = carry
            batches = (batch, nudge.rows) if nudge else (batch,)
            mark, places, (batch, *also) = touched.find_places(mark, *batches)
            more = nudge and nudge._replace(rows=also[0])
            return on_rows(state, (batch, rates, more), places), mark

        return step, (state, jnp.zeros(n_table, jnp.int32))

    def init(self, key: Array, rows: Array, slots: "Slots") -> Params:
        """Fresh parameters for the table rows `rows` (int32 [U])."""
        n_fields, n_dense = slots.ids.shape[-1], slots.dense.shape[1]
        return self.place.tables(init_params(self.model, key, rows, n_fields, n_dense))

    def cut(self, params: Params, n_trained: int) -> tuple[Params, Array]:
        """Parameters with the trained rows of their table alone, and the other rows."""
        table, fixed = compact.cut(params["table"], n_trained, self.place.size("table"))
        rest = self.place.tables({"table": fixed})
        return self.place.tables({**params, "table": table}), rest["table"]

    def whole(self, params: Params, fixed: Array) -> Params:
        """What `cut` has taken apart."""
        table = compact.join(params["table"], fixed, self.place.size("table"))
        return self.place.tables({**params, "table": table})


class Slots(NamedTuple):
    """A memory as the inner loop sees it.

    ids: int32 [N, K], or [N, M, K] with `mix`, positions in the compact table. valid: bool [N].
    dense [N, G], label_logit [N], log_weight [N], mix None or [N, M]: what may be learned.
    rates: None, or what may be learned too: [2], or [proxies, 2] of all, see `types.Memory`.
    """

    ids: Array
    valid: Array
    dense: Array
    label_logit: Array
    log_weight: Array
    mix: Array | None = None
    rates: Array | None = None

    def examples(self, index: Array) -> Examples:
        return Examples(
            self.ids[index],
            self.dense[index],
            jax.nn.sigmoid(self.label_logit[index]),
            jnp.exp(self.log_weight[index]),
            None if self.mix is None else jax.nn.softmax(self.mix[index], axis=-1),
        )


class Nudge(NamedTuple):
    """What is added to the gradient of every step that is differentiated one by one.

    rows: C rows or mixtures. weights: float32 [C]. add(rows, weights, params) -> gradient; a static
    function, as a pytree without leaves (`jax.tree_util.Partial`).
    """

    rows: Examples
    weights: Array
    add: Callable[[Examples, Array, Params], Params]

    def gradient(self, params: Params) -> Params:
        return self.add(self.rows, self.weights, params)


class Trajectory(NamedTuple):
    """One inner run: the table rows of its compact table, its key, its end and its start.

    trained: int32 [Ut], the rows that the memory touches, which training may move and has to carry.
    fixed: int32 [Uf], rows that only outer rows or candidates look up; training leaves them alone.
    end: int32 [], `Inner.first_end` <= end <= steps, the step it ends at.
    start: parameters with a table of both, in the order of `all_trained`, or None for fresh ones.
    fresh: bool [], whether to start from fresh ones all the same; None without `start`.
    """

    trained: Array
    fixed: Array
    key: Array
    end: Array
    start: Params = None
    fresh: Array | None = None


def all_trained(inner: Inner, trajectory: Trajectory) -> Trajectory:
    """The same run, with all rows of its compact table counted as trained."""
    rows = compact.join(trajectory.trained, trajectory.fixed, inner.place.size("table"))
    return trajectory._replace(trained=rows, fixed=rows[:0])


def among_trained(inner: Inner, slots: Slots, trajectory: Trajectory) -> Slots:
    """The slots, whose ids are positions in the table of the trained rows alone."""
    sizes = len(trajectory.trained), len(trajectory.fixed), inner.place.size("table")
    return slots._replace(ids=compact.among_trained(slots.ids, *sizes))


def warm_up(inner: Inner, slots: Slots, trajectory: Trajectory) -> tuple[TrainState, Array, Array]:
    """The state where differentiation begins, the batches [W, b] left, and the fixed rows [Uf, D].

    slots: with ids among the trained rows. The fixed rows are as they are at the trajectory's end.
    """
    key_init, key_order = jax.random.split(trajectory.key)
    params = inner.init(key_init, all_trained(inner, trajectory).trained, slots)
    fresh = trajectory.fresh
    if fresh is not None:
        params = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), params, trajectory.start)
    params, fixed = inner.cut(params, len(trajectory.trained))
    order = train.cyclic_order(key_order, slots.valid, inner.steps, inner.batch)
    first = trajectory.end - inner.unrolled
    frozen = jax.lax.stop_gradient(slots)

    state = inner.place.tables(train.start(inner.tx(frozen.rates), params))
    step, carry = inner.walk(state, frozen)
    state, _ = jax.lax.fori_loop(0, first, lambda k, c: step(c, frozen.examples(order[k])), carry)
    window = jax.lax.dynamic_slice_in_dim(order, first, inner.unrolled)
    fixed = fixed * optim.untouched(inner.optimizer, inner.rate(slots.rates), trajectory.end)
    return jax.lax.stop_gradient(state), window, fixed


def outer_loss(
    inner: Inner,
    slots: Slots,
    trajectory: Trajectory,
    outer: Batch,
    nudge: Nudge | None = None,
) -> Array:
    """Loss on `outer` of the model that one trajectory trains on the memory: [].

    Its derivative by the slots is the meta-gradient of the mode.
    """
    slots = among_trained(inner, slots, trajectory)
    state, order, fixed = warm_up(inner, slots, trajectory)
    if not inner.unrolled:
        return implicit_loss(inner, slots, state.params, fixed, outer)[0]
    batches = slots.examples(order)
    step, carry = inner.walk(state, slots, nudge)
    shared = len(trajectory.trained), inner.place.size("table")
    lowest = 1 if carry[1] is None else 0
    level = choose_level(step, carry, batches, inner.unrolled, inner.budget, shared, lowest)
    state, _ = scan_steps(step, carry, batches, inner.unrolled, level, inner.offload, inner.unroll)
    return train.loss(inner.model, inner.whole(state.params, fixed), outer)


def implicit_loss(
    inner: Inner, slots: Slots, params: Params, fixed: Array, outer: Batch
) -> tuple[Array, Params]:
    """Loss on `outer` at the point that training has reached, and the adjoint v there.

    With J what training on the whole memory descends, the loss's derivative by the slots is
    -v . (d/dslots) grad J, with (H + damping) v = grad L at a stationary point (implicit), where H
    is J's curvature, and v = lr grad L for a plain gradient step (one_step).
    """

    n = len(slots.valid)

    def reached(params, slots):
        every = slots.examples(jnp.arange(n))
        # A slot out of use has no weight, and no ids that a penalty could count.
        valid = slots.valid.reshape(-1, *[1] * (every.ids.ndim - 1))
        ids = jnp.where(valid, every.ids, -1)
        every = every._replace(ids=ids, weight=every.weight * slots.valid)
        mean = train.objective(inner.model, params, every, inner.l2)
        return mean * n / jnp.maximum(slots.valid.sum(), 1)

    def judged(params):
        return train.loss(inner.model, inner.whole(params, fixed), outer)

    value, slope = jax.value_and_grad(judged)(params)
    if inner.mode == "one_step":
        adjoint = jax.tree.map(lambda g: inner.lr * g, slope)
    else:

        def curve(v):
            gradient = jax.grad(lambda p: reached(p, jax.lax.stop_gradient(slots)))
            along = jax.jvp(gradient, (params,), (v,))[1]
            return jax.tree.map(lambda h, x: h + inner.damping * x, along, v)

        adjoint = cg(curve, slope, maxiter=inner.solves, tol=1e-6)[0]
    adjoint = jax.lax.stop_gradient(adjoint)
    slopes = jax.tree.map(jnp.vdot, adjoint, jax.grad(reached)(params, slots))
    change = -sum(jax.tree.leaves(slopes))
    return jax.lax.stop_gradient(value - change) + change, adjoint


def overshoot(inner: Inner, slots: Slots, trajectory: Trajectory) -> Array:
    """How smooth inner training is: for each step, curvature along it against slope: float32 [T].

    For a step d from theta, on its own batch: d . H d / |g . d|. Below 1 a step lands where the
    objective still falls; at 2 a quadratic would be no lower than before. Meta-gradients rank rows
    only while training is smooth, so values near or above 2 call for a lower inner.lr.
    """
    key_init, key_order = jax.random.split(trajectory.key)
    slots = among_trained(inner, slots, trajectory)
    params = inner.init(key_init, trajectory.trained, slots)
    order = train.cyclic_order(key_order, slots.valid, inner.steps, inner.batch)

    def body(state, index):
        batch = slots.examples(index)
        after = inner.step(state, batch, rates=slots.rates)
        move = jax.tree.map(jnp.subtract, after.params, state.params)

        def slope(params):
            return jax.jvp(
                lambda p: train.objective(inner.model, p, batch, inner.l2), (params,), (move,)
            )[1]

        first, second = jax.jvp(slope, (state.params,), (move,))
        return after, second / jnp.maximum(jnp.abs(first), 1e-30)

    return jax.lax.scan(body, train.start(inner.tx(slots.rates), params), order)[1]
