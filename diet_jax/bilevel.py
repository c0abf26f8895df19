"""The outer update of the memory and the influence of rows, each as one jit over the mesh."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diet_jax.influence import influence
from diet_jax.metagrad import Inner, Slots, Trajectory, outer_loss
from diet_jax.sharding import Placement
from diet_jax.train import Examples
from diet_jax.types import Array


class Plan(NamedTuple):
    """How a stage is distilled (static; the config's blocks `outer`, `growth`, `addressing`)."""

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


class StageData(NamedTuple):
    """A stage on the device, ids in compact rows: what outer batches are drawn from."""

    trained: Array  # int32 [Ut], table rows of the compact table, as in Trajectory
    fixed: Array  # int32 [Uf]
    ids: Array  # int32 [C, K]
    dense: Array  # [C, G]
    target: Array  # [C], the outer target
    weight: Array  # [C]
    n: Array  # int32 [], rows in use


class Anchor(NamedTuple):
    """The memory as the stage found it, used as soft-labelled rows that keep the past."""

    slots: Slots
    n: Array  # int32 [], slots in use (they come first)
    share: Array  # float32 [], the anchor's share of the outer loss


class OuterState(NamedTuple):
    learned: dict[str, Array]
    opt: optax.OptState


def outer_examples(key: Array, plan: Plan, stage: StageData, anchor: Anchor) -> Examples:
    """Rows of the outer loss of one trajectory, weighted so that their mean is that loss.

    `batch` rows of the stage with weight 1 - share (times their own), `anchor_batch` old slots
    with weight share.
    """
    key_stage, key_anchor = jax.random.split(key)
    i = jax.random.randint(key_stage, (plan.batch,), 0, stage.n)
    j = jax.random.randint(key_anchor, (plan.anchor_batch,), 0, jnp.maximum(anchor.n, 1))
    old = anchor.slots.examples(j)
    total = plan.batch + plan.anchor_batch
    fresh = (1 - anchor.share) * total / plan.batch * stage.weight[i]
    kept = jnp.full(plan.anchor_batch, anchor.share * total / max(plan.anchor_batch, 1))
    return Examples(
        jnp.concatenate([stage.ids[i], old.ids]),
        jnp.concatenate([stage.dense[i], old.dense]),
        jnp.concatenate([stage.target[i], old.target]),
        jnp.concatenate([fresh, kept]),
    )


def draw(key: Array, inner: Inner, plan: Plan, stage: StageData, anchor: Anchor):
    """R trajectories that end at the same random step, and the outer rows of each."""
    n = plan.trajectories
    key_end, key_runs, key_outer = jax.random.split(key, 3)
    end = jax.random.randint(key_end, (), inner.window, inner.steps + 1)
    runs = Trajectory(stage.trained, stage.fixed, jax.random.split(key_runs, n), end)
    outer = jax.vmap(lambda k: outer_examples(k, plan, stage, anchor))(
        jax.random.split(key_outer, n)
    )
    return runs, outer


AXES = Trajectory(trained=None, fixed=None, key=0, end=None)


def outer_optimizer(plan: Plan) -> optax.GradientTransformation:
    return optax.adam(plan.lr)


def make_outer_steps(inner: Inner, plan: Plan, place: Placement) -> Callable:
    """The outer update: `plan.chunk` steps in one jit over the mesh, trajectories spread over it.

    f(state, slots, writable bool [N], key, first step, stage, anchor) -> (state, loss [chunk]).
    """
    tx = outer_optimizer(plan)

    def one_step(state, slots, writable, key, stage, anchor):
        """One Adam step of the writable slots; the others come out bit for bit as they went in."""
        runs, outer = draw(key, inner, plan, stage, anchor)
        runs, outer = runs._replace(key=place.split(runs.key)), place.split(outer)

        def mean_loss(learned):
            now = slots._replace(**learned)
            each = jax.vmap(lambda run, rows: outer_loss(inner, now, run, rows), (AXES, 0))
            return each(runs, outer).mean()

        value, grads = jax.value_and_grad(mean_loss)(state.learned)
        updates, opt = tx.update(grads, state.opt, state.learned)
        new = optax.apply_updates(state.learned, updates)

        def write(after, before):
            return jnp.where(writable.reshape(-1, *[1] * (after.ndim - 1)), after, before)

        return OuterState(jax.tree.map(write, new, state.learned), opt), value

    def chunk(state, slots, writable, key, first, stage, anchor):
        def body(state, k):
            return one_step(state, slots, writable, jax.random.fold_in(key, k), stage, anchor)

        return jax.lax.scan(body, state, first + jnp.arange(plan.chunk))

    return jax.jit(chunk, donate_argnums=0)


def make_influence(inner: Inner, plan: Plan, place: Placement) -> Callable:
    """f(slots, key, stage, anchor, candidates) -> (slot influence [N], candidate influence [C])."""

    def scores(slots, key, stage, anchor, candidates):
        runs, outer = draw(key, inner, plan, stage, anchor)
        runs, outer = runs._replace(key=place.split(runs.key)), place.split(outer)
        each = jax.vmap(
            lambda run, rows: influence(inner, slots, run, rows, candidates, plan.block), (AXES, 0)
        )
        return jax.tree.map(lambda a: a.mean(0), each(runs, outer))

    return jax.jit(scores)
