"""Training of F by cycle consistency: there and back with B, be where it began.

    x_posed = x + F(x, z),    loss = |B(x_posed, z) - x|

Regressing F to roots of B would average the branches where the inverse has several, as
it has between lips that touch; the cycle is zero on each of them. B is frozen. Source:
NPGA, section 3.4; sampling and network are defaults of this project.

Half of the points begin in posed space instead, around where F takes them: B says which
canonical point x' each is, and x' + F(x', z) should be it. Where an expression unfolds
what is a thin line in canonical space (a lid that closes), the first cycle has almost
no points and almost no error; the second has as many as there is skin. It does average
branches, where there are any (docs/notes/avatar.md, on lips).

Neither says what F does between lips that touch, where it spans what B tears apart;
`folding` keeps it from turning space inside out there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from npga_jax.avatar import displacement, init_forward
from npga_jax.core import (
    Array,
    InputError,
    Params,
    Progress,
    axes_of_matrices,
    exact_products,
)
from npga_jax.distillation.person import Backward, Person, move_back
from npga_jax.distillation.sampling import Domain, Sample, draw, make_domain
from npga_jax.nphm import pointwise_jacobian

_MM = 1000.0
_SOFTEST_MM = 0.05
"""Errors below this count as squares, larger ones as lengths."""
_STEPS_A_CALL = 50
_FINAL_FRACTION = 0.02
_ASTRAY = (0.0015, 0.005)
"""Metres: spread around posed points, one half of them each."""
_CODES_AT_ONCE = 8
"""Posed together, which bounds the memory that F takes."""
_LEAST_DETERMINANT = 0.1
"""Of d x_posed / d x: what is below is pulled up before it turns negative."""
_FOLDING_SHARE = 4
"""Every fourth point is looked at; a Jacobian costs as much as four points."""
METHOD_VERSION = 5
"""Raised with every change of loss, sampling or network that options do not say: what
an earlier version left in a cache is then not taken for this one's."""


class DistillOptions(NamedTuple):
    """How F is made; `avatar.ForwardConfig` has the usual sizes."""

    hidden: int
    layers: int
    octaves: int
    steps: int
    num_points: int = 256
    num_codes: int = 16
    matrix_rate: float = 2e-2
    learning_rate: float = 3e-3
    far_weight: float = 0.05
    fold_weight: float = 10.0
    seed: int = 0


def pose_points(
    params: Params, points: Array, expr: Array, *, octaves: int
) -> jax.Array:
    """F at P canonical points for T codes: [P, 3], [T, E] -> posed [T, P, 3]."""
    return jax.lax.map(
        lambda code: points + displacement(params, points, None, code, octaves=octaves),
        expr,
        batch_size=_CODES_AT_ONCE,
    )


def cycle_error(
    params: Params,
    backward: Backward,
    points: jax.Array,
    expr: jax.Array,
    *,
    octaves: int,
) -> jax.Array:
    """B(x + F(x)) - x in millimetres: [T, P, 3]."""
    posed = pose_points(params, points, expr, octaves=octaves)
    return _MM * (move_back(backward, posed, expr)[0] - points)


def posed_pairs(
    params: Params, backward: Backward, sample: Sample, *, octaves: int
) -> tuple[jax.Array, jax.Array]:
    """Posed points around where F takes the sample, and the canonical ones they are.

    Returns:
      Canonical and posed points, [T, P, 3] each, metres; constants for a gradient.
    """
    params = jax.lax.stop_gradient(params)
    posed = pose_points(params, sample.points, sample.expr, octaves=octaves)
    narrow = jnp.arange(posed.shape[1])[:, None] % 2 == 0
    posed = posed + jnp.where(narrow, *_ASTRAY) * sample.offsets
    canonical, _ = move_back(backward, posed, sample.expr)
    return canonical, posed


def determinants(
    params: Params, points: jax.Array, expr: jax.Array, *, octaves: int
) -> jax.Array:
    """det(d x_posed / d x) of F at P points for T codes: [P, 3], [T, E] -> [T, P].

    How many times larger a volume becomes; below zero, it is turned inside out.
    """

    def of_code(code):
        jacobian = pointwise_jacobian(
            lambda x: x + displacement(params, x, None, code, octaves=octaves), points
        )
        x, y, z = jnp.moveaxis(jacobian, -2, 0)
        return jnp.sum(x * jnp.cross(y, z), axis=-1)

    return jax.lax.map(of_code, expr, batch_size=_CODES_AT_ONCE)


def folding(
    params: Params, points: jax.Array, expr: jax.Array, *, octaves: int
) -> jax.Array:
    """Mean of what determinants lack to a tenth: [P, 3], [T, E] -> []."""
    found = determinants(params, points, expr, octaves=octaves)
    return jnp.mean(jnp.maximum(_LEAST_DETERMINANT - found, 0.0))


def distillation_loss(
    params: Params,
    backward: Backward,
    sample: Sample,
    *,
    octaves: int,
    far_weight: float,
    fold_weight: float,
) -> jax.Array:
    """Mean length in mm of both cycles' errors, and of the motion far from the head.

    Args:
      fold_weight: of `folding`, in mm.
    """

    def length(error):
        return jnp.sqrt(jnp.sum(error**2, axis=-1) + _SOFTEST_MM**2) - _SOFTEST_MM

    half = sample.points.shape[0] // 2
    cycle = cycle_error(
        params, backward, sample.points[:half], sample.expr, octaves=octaves
    )
    later = sample._replace(points=sample.points[half:])
    canonical, posed = posed_pairs(params, backward, later, octaves=octaves)
    again = canonical + displacement(
        params, canonical, None, sample.expr, octaves=octaves
    )
    unfolding = _MM * (again - posed)
    far = displacement(params, sample.far, None, sample.expr, octaves=octaves)
    near = 0.5 * (jnp.mean(length(cycle)) + jnp.mean(length(unfolding)))
    loss = near + far_weight * jnp.mean(length(_MM * far))
    if fold_weight:
        some = sample.points[: max(1, sample.points.shape[0] // _FOLDING_SHARE)]
        folded = folding(params, some, sample.expr, octaves=octaves)
        loss += fold_weight * folded
    return loss


def initial_forward(
    code_mean: Array,
    code_std: Array | float,
    *,
    num_features: int,
    options: DistillOptions,
) -> Params:
    """F before distillation, see `forward.init_forward`."""
    return init_forward(
        jax.random.key(options.seed),
        num_features=num_features,
        code_mean=code_mean,
        code_std=code_std,
        hidden=options.hidden,
        layers=options.layers,
        octaves=options.octaves,
    )


def distill(
    person: Person,
    codes: np.ndarray,
    *,
    num_features: int,
    options: DistillOptions,
    progress: bool = True,
) -> tuple[Params, Domain]:
    """Distils one person's F.

    Args:
      person: the head model and its identity.
      codes: [T, E] tracked codes of the training frames.
      num_features: length of the Gaussians' features that F will be able to read.

    Returns:
      The weights, and where they were compared with the model.

    Raises:
      InputError: the loss is not finite.
    """
    domain, backward = make_domain(person, codes)
    params = initial_forward(
        codes.mean(axis=0), person.exp_std, num_features=num_features, options=options
    )

    def schedule(rate):
        falling = optax.cosine_decay_schedule(rate, options.steps, _FINAL_FRACTION)
        # A call makes all its steps; those past the last one change nothing.
        return lambda count: jnp.where(count < options.steps, falling(count), 0.0)

    optimizer = optax.contrib.muon(
        schedule(options.matrix_rate),
        adam_learning_rate=schedule(options.learning_rate),
        muon_weight_dimension_numbers=axes_of_matrices,
    )

    def loss_fn(params, backward, sample):
        return distillation_loss(
            params,
            backward,
            sample,
            octaves=options.octaves,
            far_weight=options.far_weight,
            fold_weight=options.fold_weight,
        )

    @jax.jit
    @exact_products
    def run(params, opt_state, backward, domain, first_step):
        def step(carry, index):
            params, opt_state = carry
            key = jax.random.fold_in(jax.random.key(options.seed + 1), index)
            sample = draw(key, domain, options.num_points, options.num_codes)
            loss, grads = jax.value_and_grad(loss_fn)(params, backward, sample)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        steps = first_step + jnp.arange(_STEPS_A_CALL)
        (params, opt_state), losses = jax.lax.scan(step, (params, opt_state), steps)
        return params, opt_state, jnp.mean(losses)

    opt_state = optimizer.init(params)
    with Progress("distilling F", options.steps, unit="steps", show=progress) as shown:
        for done in range(0, options.steps, _STEPS_A_CALL):
            params, opt_state, loss = run(
                params, opt_state, backward, domain, jnp.int32(done)
            )
            if not np.isfinite(loss):
                raise InputError(
                    f"distillation has diverged at step {done} (loss {float(loss)}); "
                    "are the expression codes those of this head model (--prior)?"
                )
            shown(
                min(done + _STEPS_A_CALL, options.steps), f"loss {float(loss):.3f} mm"
            )
    return params, domain
