"""A Flax module of one's own, linen or nnx, as an architecture of the zoo."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from diet_jax.models.base import Inputs, Model
from diet_jax.types import Array, InputError

Arguments = Callable[[Inputs], tuple]


def whole(x: Inputs) -> tuple:
    return (x,)


def from_linen(
    name: str, module: nn.Module, width: int, linear: bool = False, args: Arguments = whole
) -> Model:
    """The architecture of a linen module that is called as module(*args(inputs)) -> logit [B].

    width: columns of a table row, D of `Inputs`. linear: see `Model`. args: what of the inputs the
    module takes; left out, the `Inputs` themselves.

    The model's init raises InputError for a module with state beside its parameters (BatchNorm,
    Dropout: a pure function of parameters has none), or whose answer is not one logit a row.
    """

    def init(key, x):
        logit, net = module.init_with_output(key, *args(x))
        _check(name, logit, x, [kind for kind in net if kind != "params"])
        return net

    def apply(net, x) -> Any:
        return module.apply(net, *args(x))

    return Model(name, init, apply, width, linear)


def from_nnx(
    name: str,
    make: Callable[[nnx.Rngs, Inputs], Callable[..., Array]],
    width: int,
    linear: bool = False,
    args: Arguments = whole,
) -> Model:
    """The architecture of an nnx module, called as module(*args(inputs)) -> logit [B].

    make(rngs, inputs) -> module; of `inputs` only the shapes [.., F, D], [.., G], [.., L, D] are to
    be used, since nnx layers want the sizes of what they are given. Else as `from_linen`.
    """

    def init(key, x):
        module = make(nnx.Rngs(key), x)
        _, params, rest = nnx.split(module, nnx.Param, ...)
        _check(name, module(*args(x)), x, sorted({type(leaf).__name__ for leaf in _leaves(rest)}))
        return nnx.to_pure_dict(params)

    def apply(net, x):
        skeleton = nnx.eval_shape(lambda: make(nnx.Rngs(0), x))
        graph, params = nnx.split(skeleton, nnx.Param)
        nnx.replace_by_pure_dict(params, net)
        return nnx.merge(graph, params)(*args(x))

    return Model(name, init, apply, width, linear)


def _leaves(state: Any) -> list:
    return jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def _check(name: str, logit: Array, x: Inputs, state: list[str]) -> None:
    if state:
        raise InputError(
            f"model {name!r} keeps state beside its parameters ({', '.join(state)}): leave out "
            "batch norm and dropout, or use LayerNorm"
        )
    if jnp.shape(logit) != (len(x.emb),):
        raise InputError(
            f"model {name!r} answers with shape {list(jnp.shape(logit))} for {len(x.emb)} rows: "
            "return one logit a row, for example x[:, 0]"
        )
