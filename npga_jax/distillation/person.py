"""One person's head model: its identity, and the way back to canonical space."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array, InputError, Params
from npga_jax.data import Capture
from npga_jax.nphm import (
    METRES_PER_UNIT,
    Codes,
    HeadModel,
    apply_deformation,
    deformation_condition,
    predict_anchors,
)
from npga_jax.tracking import load_identity, model_name, open_prior


class Person(NamedTuple):
    """A head model with one identity. Head frame, metres, as avatars use them."""

    model: HeadModel
    geo: np.ndarray  # [lat_dim_geo]
    exp_std: np.ndarray  # [E] spread of expression codes

    def codes(self, expr: np.ndarray | None = None) -> Codes:
        """Codes of one head; without an expression, the canonical one's."""
        cfg = self.model.cfg
        if expr is None:
            expr = np.zeros(cfg.lat_dim_exp, np.float32)
        return Codes(geo=self.geo, app=np.zeros(cfg.lat_dim_app, np.float32), exp=expr)


_BLOCK = 8_192
"""Points."""


class Backward(NamedTuple):
    """B of one person, ready for many points: what identity decides is computed."""

    layers: list[Params]
    identity: jax.Array  # [C] the part of the condition that is not the expression
    num_hyper: int


def make_backward(person: Person) -> Backward:
    """Prepares `move_back`."""
    cfg, params = person.model
    geo = jnp.asarray(person.geo)[None]
    anchors = predict_anchors(params, cfg, geo)
    codes = Codes(
        geo=geo,
        app=np.zeros((1, cfg.lat_dim_app), np.float32),
        exp=jnp.zeros((1, cfg.lat_dim_exp)),
    )
    condition = deformation_condition(params, cfg, codes, anchors)
    return Backward(
        params["deformation"]["layers"],
        condition[0, : condition.shape[1] - cfg.lat_dim_exp],
        cfg.num_hyper,
    )


def move_back(
    backward: Backward,
    points: Array,  # [T, P, 3] posed, metres
    expr: jax.Array,  # [T, E]
) -> tuple[jax.Array, jax.Array]:
    """Posed points to canonical ones.

    Returns:
      [T, P, 3] canonical, metres; hyper coordinates [T, P, num_hyper].
    """
    identity = jnp.broadcast_to(
        backward.identity, (expr.shape[0], backward.identity.shape[0])
    )
    units = points / METRES_PER_UNIT
    outputs = apply_deformation(
        backward.layers, units, jnp.concatenate([identity, expr], axis=-1)
    )
    canonical = jnp.add(points, METRES_PER_UNIT * outputs[..., :3])
    return canonical, outputs[..., 3:]


def canonicalize(
    person: Person, points: np.ndarray, expr: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`move_back` of one frame, NumPy in and out: [P, 3], [E] -> [P, 3], [P, hyper].

    Points are padded to whole blocks, so that frames of about as many share a program.
    """
    count = len(points)
    padded = np.zeros((-(-max(count, 1) // _BLOCK) * _BLOCK, 3), np.float32)
    padded[:count] = points
    back = jax.jit(move_back)(make_backward(person), padded[None], expr[None])
    canonical, hyper = jax.tree.map(lambda x: np.asarray(x)[0, :count], back)
    return canonical, hyper


def open_person(capture: Capture, prior: Path | None) -> Person | None:
    """The head model and the identity that a capture's codes belong to.

    Args:
      capture: with driving codes.
      prior: the model; None for the packaged one.

    Returns:
      None if the codes are not the head tracker's: there is no F for them then.

    Raises:
      InputError: they are of another head model, or of several identities.
    """
    if not capture.driving_model.startswith("nphm "):
        return None
    loaded = open_prior(prior)
    path, *others = capture.driving_paths.values()
    if capture.driving_model != model_name(loaded):
        raise InputError(
            f"the codes of subject {capture.subject} are of the head model "
            f"'{capture.driving_model}', and not of '{model_name(loaded)}'. Give their "
            f"model with --prior, or delete them ({path} and those of the other "
            "sequences): the head is then tracked again."
        )
    geo = load_identity(path, loaded)
    for other in others:
        if not np.array_equal(load_identity(other, loaded), geo):
            raise InputError(
                f"{other} has another identity (z_id) than {path}: the sequences of "
                f"subject {capture.subject} were not tracked together. Delete one of "
                "the two, and others like it: they are then tracked again, with the "
                "identity of those that are left."
            )
    return Person(loaded.model, geo, loaded.exp_std)
