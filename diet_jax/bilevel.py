"""The outer update of the memory and the influence of rows, each as one jit over the mesh."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diet_jax.influence import influence
from diet_jax.matching import OBJECTIVES
from diet_jax.metagrad import Inner, Slots, Trajectory, overshoot
from diet_jax.sharding import Placement
from diet_jax.train import Batch, Examples
from diet_jax.types import Array, Params


class Plan(NamedTuple):
    """How a stage is distilled (static; of the config's blocks `outer`, `growth`, `addressing`,
    `inner` and `memory`)."""

    learn: tuple[str, ...]  # leaves of Slots that are learned
    lr: float  # outer Adam
    trajectories: int  # R inner runs averaged in each outer step
    batch: int  # real rows of the outer loss, per trajectory
    anchor_batch: int  # rows of the previous memory in the outer loss, per trajectory
    anchor: float  # strength of the term that keeps the past, per share of the slots it holds
    label_share: float  # outer target = label_share * label + (1 - label_share) * teacher
    max_logit: float  # labels start at the teacher's logit, clipped to +- this
    rounds: int  # growth rounds of a stage
    final_share: float  # share of the outer steps that follow the last growth round
    chunk: int  # outer steps per device call
    write_share: float  # old slots that a stage may rewrite
    pool: int  # candidate rows scored in a round
    block: int  # candidate rows scored at once
    spread_field: int  # field whose values share a cap within a round
    spread_cap: int  # rows of one such value in a round
    columns: tuple[int, ...]  # the field of each id column
    swap_share: float = 0.0  # slots that may take a value of another row in a round, see swaps
    address_by: str = "influence"  # which old slots those are, see memory.ADDRESSING
    objective: str = "loss"  # of the outer steps, see matching.OBJECTIVES
    clip: float = 0.0  # a gradient is cut to this times the running mean of its norm; 0: never
    schedule: str = "constant"  # of the outer rate over a stage, see SCHEDULES
    start: str = "fresh"  # where trajectories start: fresh, teacher, or mixed, half of each
    threshold: float = 0.0  # least influence of an old slot to rewrite, in times the mean one
    own: int = 0  # rows of its mixture that a slot brings along; 0: all
    mix_by: str = "label"  # what the rows of a slot have in common, see alike.MIX_BY
    rotate: bool = False  # an outer step trains one proxy, each in its turn, instead of all


class StageData(NamedTuple):
    """A stage on the device: what outer batches are drawn from.

    Its rows count the table rows that the stage looks up from 0, so that they stay as they are
    while the memory and the compact table grow; `where` leads from there to the compact table.
    """

    trained: Array  # int32 [Ut], table rows of the compact table, as in Trajectory
    fixed: Array  # int32 [Uf]
    where: Array  # int32 [Ut + Uf], of which the stage uses the first ones
    rows: Examples  # C of them; target: the outer target
    n: Array  # int32 [], rows in use
    start: Params = None  # the teacher's parameters in compact rows, if trajectories start there

    def examples(self, index: Array) -> Examples:
        """Its rows of these numbers, with ids in compact rows; -1, no value, stays."""
        rows = jax.tree.map(lambda a: a[index], self.rows)
        return rows._replace(ids=jnp.where(rows.ids < 0, rows.ids, self.where[rows.ids]))


class Anchor(NamedTuple):
    """The memory as the stage found it, used as soft-labelled rows that keep the past."""

    slots: Slots
    n: Array  # int32 [], slots in use (they come first)
    share: Array  # float32 [], the anchor's share of the outer loss


# By the share of a stage's outer steps that are done, what the outer rate is multiplied by. Every
# step is noisy, the more so for one of many slots; steps that shrink to nothing average that out.
SCHEDULES = {
    "constant": jnp.ones_like,
    "cosine": lambda done: (1 + jnp.cos(jnp.pi * done)) / 2,
}
BINS = 8  # of ends of trajectories, whose gradients the mode adaptive remembers
KEEP = 0.95  # of a running mean, at each step
UNIFORM = 0.2  # share of ends that the mode adaptive draws from all alike


class OuterState(NamedTuple):
    """What outer steps carry.

    norm: float32 [], the running mean of the gradient's norm, 0 before the first step.
    ends: float32 [BINS], the same by the end of the trajectories. skipped: int32 [], steps that
    were not taken, as their loss or gradient was not finite.
    """

    learned: dict[str, Array]
    opt: optax.OptState
    norm: Array
    ends: Array
    skipped: Array


def start_outer(plan: Plan, learned: dict[str, Array]) -> OuterState:
    zero = np.zeros((), np.float32)
    opt = outer_optimizer(plan).init(learned)
    return OuterState(learned, opt, zero, np.zeros(BINS, np.float32), np.zeros((), np.int32))


def outer_examples(key: Array, plan: Plan, stage: StageData, anchor: Anchor) -> Batch:
    """Rows of the outer loss of one trajectory, weighted so that their mean is that loss.

    `batch` rows of the stage with weight 1 - share (times their own), `anchor_batch` old slots
    with weight share: as one batch, or as two where slots are mixtures, as rows are not.
    """
    key_stage, key_anchor = jax.random.split(key)
    i = jax.random.randint(key_stage, (plan.batch,), 0, stage.n)
    j = jax.random.randint(key_anchor, (plan.anchor_batch,), 0, jnp.maximum(anchor.n, 1))
    old = anchor.slots.examples(j)
    total = plan.batch + plan.anchor_batch
    rows = stage.examples(i)
    fresh = (1 - anchor.share) * total / plan.batch * rows.weight
    kept = jnp.full(plan.anchor_batch, anchor.share * total / plan.anchor_batch)
    rows = rows._replace(weight=fresh)
    old = old._replace(weight=kept)
    if old.mix is not None:
        return rows, old
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), rows, old)


def draw_end(key: Array, inner: Inner, ends: Array) -> tuple[Array, Array]:
    """The step that trajectories end at, and its bin: int32 [] each.

    Every end is as likely, but in the mode adaptive: there a bin is as likely as its gradients were
    large (one not seen yet counts as the largest), with a share of uniform draws.
    """
    n = inner.steps - inner.first_end + 1
    end = jax.random.randint(key, (), 0, n)
    if inner.mode == "adaptive":
        border = -(-jnp.arange(BINS + 1) * n // BINS)  # as end * BINS // n counts them
        width = jnp.diff(border)
        size = jnp.where(ends > 0, ends, jnp.maximum(ends.max(), 1e-30)) * (width > 0)
        chance = (1 - UNIFORM) * size / size.sum() + UNIFORM * width / n
        chosen = jax.random.choice(jax.random.fold_in(key, 0), BINS, p=chance)
        end = jax.random.randint(key, (), border[chosen], border[chosen + 1])
    return inner.first_end + end, end * BINS // n


def draw(key: Array, inner: Inner, plan: Plan, stage: StageData, anchor: Anchor, ends: Array):
    """R trajectories that end at the same random step, its bin, and the outer rows of each."""
    n = plan.trajectories
    key_end, key_runs, key_outer = jax.random.split(key, 3)
    end, where = draw_end(key_end, inner, ends)
    fresh = None
    if plan.start != "fresh":
        chance = {"teacher": 0.0, "mixed": 0.5}[plan.start]
        fresh = jax.random.bernoulli(jax.random.fold_in(key_end, 1), chance, (n,))
    runs = Trajectory(
        stage.trained, stage.fixed, jax.random.split(key_runs, n), end, stage.start, fresh
    )
    outer = jax.vmap(lambda k: outer_examples(k, plan, stage, anchor))(
        jax.random.split(key_outer, n)
    )
    return runs, where, outer


AXES = Trajectory(trained=None, fixed=None, key=0, end=None, start=None, fresh=0)


def outer_optimizer(plan: Plan) -> optax.GradientTransformation:
    return optax.adam(plan.lr)


def over_proxies(
    proxies: tuple[Inner, ...],
    f: Callable,
    slots: Slots,
    run: Trajectory,
    turn: Array | None = None,
):
    """The mean of f(proxy, slots, run) over the proxies, each with a key of its own for the run; or
    that of the one whose turn (int32 [], any number) it is, at the price of one."""
    each = [
        partial(f, proxy, of_proxy(slots, k), run._replace(key=jax.random.fold_in(run.key, k)))
        for k, proxy in enumerate(proxies)
    ]
    if turn is not None:
        return jax.lax.switch(turn % len(each), each)
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *(value() for value in each))


def of_proxy(slots: Slots, k: int) -> Slots:
    return slots if slots.rates is None else slots._replace(rates=slots.rates[k])


def laid(proxies: tuple[Inner, ...], place: Placement) -> tuple[Inner, ...]:
    """The proxies, with their tables where `place` says."""
    return tuple(proxy._replace(place=place) for proxy in proxies)


def make_outer_steps(proxies: tuple[Inner, ...], plan: Plan, place: Placement) -> Callable:
    """The outer update: `plan.chunk` steps in one jit over the mesh, trajectories spread over it.

    The outer loss is the mean over the proxies, which share steps, batch, mode and window, or with
    `plan.rotate` that of one proxy after another.
    f(state, slots, writable bool [N], key, first step, steps of the stage, stage, anchor)
    -> (state, loss [chunk]).
    """
    tx, objective = outer_optimizer(plan), OBJECTIVES[plan.objective]
    schedule = SCHEDULES[plan.schedule]

    proxies = laid(proxies, place)

    def one_step(state, slots, writable, key, k, total, stage, anchor):
        """Step k: Adam on the writable slots; the others come out bit for bit as they went in."""
        key = jax.random.fold_in(key, k)
        runs, where, outer = draw(key, proxies[0], plan, stage, anchor, state.ends)
        runs = runs._replace(**place.runs({"key": runs.key, "fresh": runs.fresh}))
        outer = place.runs(outer)
        turn = k if plan.rotate else None

        def mean_loss(learned):
            now = slots._replace(**learned)

            def one(run, rows):
                loss = lambda p, s, r: objective(p, s, r, rows)  # noqa: E731
                return over_proxies(proxies, loss, now, run, turn)

            return jax.vmap(one, (AXES, 0), spmd_axis_name="trajectory")(runs, outer).mean()

        value, grads = jax.value_and_grad(mean_loss)(state.learned)
        norm = optax.tree.norm(grads)
        good = jnp.isfinite(value) & jnp.isfinite(norm)
        if plan.clip:
            most = jnp.where(state.norm > 0, plan.clip * state.norm, jnp.inf)
            grads = jax.tree.map(lambda g: g * jnp.minimum(1, most / norm), grads)
        updates, opt = tx.update(grads, state.opt, state.learned)
        pace = schedule(k / total)
        updates = jax.tree.map(lambda u: pace * u, updates)
        new: Any = optax.apply_updates(state.learned, updates)

        def write(name):
            after, before = new[name], state.learned[name]
            if name == "rates":  # of no slot
                return after
            return jnp.where(writable.reshape(-1, *[1] * (after.ndim - 1)), after, before)

        def mean(before):
            return jnp.where(before > 0, KEEP * before + (1 - KEEP) * norm, norm)

        after = OuterState(
            {name: write(name) for name in new},
            opt,
            mean(state.norm),
            state.ends.at[where].set(mean(state.ends[where])),
            state.skipped,
        )
        skip = state._replace(skipped=state.skipped + 1)
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), after, skip), value

    def chunk(state, slots, writable, key, first, total, stage, anchor):
        def body(state, k):
            return one_step(state, slots, writable, key, k, total, stage, anchor)

        return jax.lax.scan(body, state, first + jnp.arange(plan.chunk))

    return jax.jit(chunk, donate_argnums=0, out_shardings=place.whole)


def make_influence(proxies: tuple[Inner, ...], plan: Plan, place: Placement) -> Callable:
    """f(slots, key, stage, anchor, candidates) -> (slot influence [N], candidate influence [C]).

    The mean over trajectories and proxies: the influence on the outer loss that they share.
    """
    proxies = laid(proxies, place)

    def scores(slots, key, stage, anchor, candidates):
        runs, _, outer = draw(key, proxies[0], plan, stage, anchor, jnp.zeros(BINS))
        runs = runs._replace(**place.runs({"key": runs.key, "fresh": runs.fresh}))
        outer = place.runs(outer)

        def one(run, rows):
            return over_proxies(
                proxies,
                lambda p, s, r: influence(p, s, r, rows, candidates, plan.block),
                slots,
                run,
            )

        found = jax.vmap(one, (AXES, 0), spmd_axis_name="trajectory")(runs, outer)
        return jax.tree.map(lambda a: a.mean(0), found)

    return jax.jit(scores, out_shardings=place.whole)


def make_overshoot(proxies: tuple[Inner, ...], place: Placement) -> Callable:
    """f(slots, key, stage) -> float32 [proxies, T], see `metagrad.overshoot`, of one trajectory."""
    proxies = laid(proxies, place)

    def f(slots, key, stage):
        run = Trajectory(stage.trained, stage.fixed, key, np.int32(proxies[0].steps))
        each = enumerate(proxies)
        return jnp.stack([overshoot(proxy, of_proxy(slots, k), run) for k, proxy in each])

    return jax.jit(f, out_shardings=place.whole)
