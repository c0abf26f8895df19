"""Experts shared by tasks, a gate and a tower for each: MMoE, PLE.

A row has one task, and its logit is that task's: the towers and gates of the others are computed
and not chosen, so that they get no gradient from the row. As in the papers, experts and gates do
not see which task is asked for. A log with one label is one task.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Inputs, Model, Spec
from diet_jax.models.layers import Mlp, Tower, flat
from diet_jax.types import Array, InputError


def each(module: type[nn.Module], n: int, shared: bool = False) -> type[nn.Module]:
    """n of the module side by side, each with its own parameters: [B, n, ..] -> [B, n, ..].

    shared: all are given the same [B, ..].
    """
    in_axes: Any = None if shared else 1
    return nn.vmap(
        module,
        in_axes=in_axes,
        out_axes=1,
        axis_size=n,
        variable_axes={"params": 0},
        split_rngs={"params": True},
    )


class Gate(nn.Module):
    """Weights of n experts, which sum to one: [B, X] -> [B, n]."""

    n: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.softmax(nn.Dense(self.n, use_bias=False)(x))


class Experts(nn.Module):
    """n ReLU towers on the same input: [B, X] -> [B, n, hidden[-1]]."""

    n: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return each(Mlp, self.n, shared=True)(self.hidden)(x)


def shared_input(x: Inputs, task: int) -> Array:
    """The row as all tasks see it, without the field `task` (-1: there is none): [B, X]."""
    return flat(jnp.delete(x.emb, task, axis=1) if task >= 0 else x.emb, x.dense)


def answer(logits: Array, x: Inputs) -> Array:
    """[B]: of logits [B, T] each row's own task's."""
    return jnp.where(x.task, logits, 0).sum(-1) if x.task.shape[1] else logits[:, 0]


class MMoENet(nn.Module):
    hidden: tuple[int, ...]
    tower: tuple[int, ...]
    task: int
    n_experts: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        n_tasks, row = max(x.task.shape[1], 1), shared_input(x, self.task)
        experts = Experts(self.n_experts, self.hidden)(row)
        gates = each(Gate, n_tasks, shared=True)(self.n_experts)(row)
        states = jnp.einsum("bte,beh->bth", gates, experts)
        return answer(each(Tower, n_tasks)(self.tower)(states), x)


class PLENet(nn.Module):
    hidden: tuple[int, ...]
    tower: tuple[int, ...]
    task: int
    n_levels: int
    n_shared: int
    n_own: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        n_tasks, shared = max(x.task.shape[1], 1), shared_input(x, self.task)
        states = jnp.repeat(shared[:, None], n_tasks, axis=1)
        for level in range(self.n_levels):
            own = each(Experts, n_tasks)(self.n_own, self.hidden)(states)
            common = Experts(self.n_shared, self.hidden)(shared)
            gates = each(Gate, n_tasks)(self.n_own + self.n_shared)(states)
            of_own, of_common = jnp.split(gates, [self.n_own], axis=-1)
            states = jnp.einsum("bte,bteh->bth", of_own, own) + jnp.einsum(
                "bte,beh->bth", of_common, common
            )
            if level + 1 < self.n_levels:  # after the last one nothing is shared any more
                every = jnp.concatenate([own.reshape(len(own), -1, own.shape[-1]), common], axis=1)
                gate = Gate(every.shape[1])(shared)
                shared = jnp.einsum("be,beh->bh", gate, every)
        return answer(each(Tower, n_tasks)(self.tower)(states), x)


def mmoe(spec: Spec, n_experts: int = 4, tower: tuple[int, ...] = (16,)) -> Model:
    """Multi-gate mixture of experts (Ma et al. 2018, eq. 4-6): `hidden` of an expert, `tower` of a
    task's tower; a gate is a softmax of one matrix."""
    _check("MMoE", n_experts=n_experts)
    return from_linen("MMoE", MMoENet(spec.hidden, tower, spec.task, n_experts), spec.dim)


def ple(
    spec: Spec,
    n_levels: int = 2,
    n_shared: int = 1,
    n_own: int = 1,
    tower: tuple[int, ...] = (16,),
) -> Model:
    """Progressive layered extraction (Tang et al. 2020, eq. 1-7): levels of `n_own` experts for
    each task and `n_shared` for all, `hidden` of an expert, `tower` of a task's tower; one level is
    CGC."""
    _check("PLE", n_levels=n_levels, n_shared=n_shared, n_own=n_own)
    net = PLENet(spec.hidden, tower, spec.task, n_levels, n_shared, n_own)
    return from_linen("PLE", net, spec.dim)


def _check(name: str, **counts: int) -> None:
    for key, count in counts.items():
        if count < 1:
            raise InputError(f"{name}: {key} is {count}; set it to 1 or more")
