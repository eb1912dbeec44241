"""The method: what a run is made of, as one value.

Built once (`training.building`, or a researcher's own file) and handed to the
training step, density control, previews, evaluation and the exported avatar alike.
Whoever wants another loss, F, G, density control or renderer replaces a field.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import struct

from npga_jax.avatar.detail import Residuals
from npga_jax.core import (
    Array,
    AvatarParams,
    Gaussians,
    Graph,
    Params,
    RasterizeFn,
    RenderOutput,
    Splats,
)


class CodeSpace(NamedTuple):
    """The driving codes of the training frames: what networks are started with.

    Units come from these statistics, never from a scale that codes are thought to have.
    """

    names: tuple[str, ...]  # of the E components
    mean: Array  # [E]
    std: Array  # [E] the unit in which networks read codes
    kept: Array  # [E, E] what G hears of codes in that unit


def code_space_template(names: tuple[str, ...]) -> CodeSpace:
    """A space of the right sizes, where only shapes are wanted."""
    width = len(names)
    return CodeSpace(
        names,
        np.zeros(width, np.float32),
        np.ones(width, np.float32),
        np.eye(width, dtype=np.float32),
    )


class Network(struct.PyTreeNode):
    """Weights and a pure function of them.

    G is `apply(params, means [N, 3], features [N, F], expr [E]) -> Residuals`; the
    screen-space network `apply(params, out) -> images [C, H, W, 3]`, where `out` is a
    `RenderOutput` with features.
    """

    init: Callable[[jax.Array, CodeSpace, int], Params] = struct.field(
        pytree_node=False
    )
    """(key, codes, num_features) -> weights; must be traceable."""
    apply: Callable = struct.field(pytree_node=False)


class Jaw(NamedTuple):
    """How an F tells the motion of the jaw, which carries lower teeth and tongue."""

    with_chin: Callable[[Params, np.ndarray | None], Params]
    """(params, chin [P, 3] canonical) -> weights that remember those points."""
    motion: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
    """(params, expr [E]) -> rotation [3, 3] and translation [3], metres."""


class Forward(struct.PyTreeNode):
    """F: `apply(params, means, features, bindings, expr) -> posed means [N, 3]`.

    Means are canonical, head frame, metres; features [N, F]; bindings [N, 2] are the
    shares of skull and jaw (`Gaussians.bindings`); expr [E].
    """

    init: Callable[[jax.Array, CodeSpace, int], Params] = struct.field(
        pytree_node=False
    )
    """(key, codes, num_features) -> weights; must be traceable."""
    apply: Callable[..., jax.Array] = struct.field(pytree_node=False)
    fit: Callable | None = struct.field(pytree_node=False, default=None)
    """(person, codes [T, E], num_features) -> weights that a run starts with, made on
    the host from the head model of the person; None: `init`'s, and Gaussians then
    start on posed points, without a head model."""
    jaw: Jaw | None = struct.field(pytree_node=False, default=None)
    moves: bool = struct.field(pytree_node=False, default=True)
    """Whether it moves anything: G, which then only adds to a motion, learns slower."""


class StepView(NamedTuple):
    """What a loss term may look at; B views of one timestep. Frame: head, metres."""

    params: AvatarParams
    alive: jax.Array  # [N] bool
    expr: Array  # [E]
    splats: Splats  # posed and activated
    residuals: Residuals  # what G added
    out: RenderOutput  # as rasterized
    shown: jax.Array  # [B, H, W, 3] after the screen-space network, else `out.colors`
    target: Array  # [B, H, W, 3] the photograph on the background
    matte: Array  # [B, H, W] in [0, 1]
    parts: Array  # [B, H, W] 1 in eyes and mouth
    viewmats: jax.Array  # [B, 4, 4] head-to-camera
    Ks: Array  # [B, 3, 3] pixels
    graph: Graph  # neighbours of each Gaussian, where a term needs them
    key: jax.Array  # of this step and term


class LossTerm(struct.PyTreeNode):
    """One term of what training minimises: a name, a weight, a pure function."""

    name: str = struct.field(pytree_node=False)
    weight: float = struct.field(pytree_node=False)
    """Zero: it is not computed."""
    fn: Callable[[StepView], jax.Array] = struct.field(pytree_node=False)
    start: float = struct.field(pytree_node=False, default=0.0)
    """Share of the steps after which it counts."""
    needs_mattes: bool = struct.field(pytree_node=False, default=False)
    """It means nothing where the capture has no mattes, and is left out there."""
    needs_screen: bool = struct.field(pytree_node=False, default=False)
    """It trains the screen-space network, which runs while such a term counts."""
    needs_graph: bool = struct.field(pytree_node=False, default=False)
    """It reads the neighbours of Gaussians."""
    guides_density: bool = struct.field(pytree_node=False, default=False)
    """It looks at `out.colors` and `out.alphas` alone, and its gradient by them tells
    density control where the image is wrong."""


class DensityControl(struct.PyTreeNode):
    """How the cloud of Gaussians changes during a run, on fixed shapes."""

    events: tuple[float, ...] = struct.field(pytree_node=False, default=())
    """Shares of the steps after which it is changed, ascending."""
    views: int = struct.field(pytree_node=False, default=32)
    """Views that are rendered and differentiated for an event."""
    change: Callable | None = struct.field(pytree_node=False, default=None)
    """(gaussians, moments, alive, stats, key) -> (gaussians, moments, alive, report):
    `training.density` has the types and two of them. None without events."""
    explore: Callable[[Gaussians, jax.Array, jax.Array], Gaussians] | None = (
        struct.field(pytree_node=False, default=None)
    )
    """(gaussians, alive, key) -> gaussians, after every step."""
    fill: float = struct.field(pytree_node=False, default=1.0)
    """Share of the slots that are filled at the start."""


class Method(struct.PyTreeNode):
    """All functions of a run. A pytree without leaves: it passes through `jit`."""

    forward: Forward
    detail: Network
    screen: Network | None
    terms: tuple[LossTerm, ...]
    density: DensityControl
    rasterize_fn: RasterizeFn = struct.field(pytree_node=False)
    code_noise: float = struct.field(pytree_node=False, default=0.0)
    """Standard deviation of the noise on the codes that G reads in training, in the
    unit of `CodeSpace.std`. It acts on G as ridge regression and keeps it from reading
    the tracker's noise; F, which knows what codes mean, gets them as they are."""

    def with_term(self, term: LossTerm) -> "Method":
        """The method with this term, in the place of one of the same name if any."""
        others = tuple(t for t in self.terms if t.name != term.name)
        return self.replace(terms=(*others, term))

    def without_term(self, name: str) -> "Method":
        """The method without a term."""
        if all(t.name != name for t in self.terms):
            raise ValueError(
                f"there is no loss term '{name}'; there are "
                f"{', '.join(t.name for t in self.terms)}"
            )
        return self.replace(terms=tuple(t for t in self.terms if t.name != name))

    @property
    def needs_graph(self) -> bool:
        """Whether training needs to know neighbours."""
        return any(t.needs_graph and t.weight for t in self.terms)


def terms_at(method: Method, share: float, *, has_mattes: bool) -> tuple[LossTerm, ...]:
    """The terms that count after this share of the steps."""
    return tuple(
        term
        for term in method.terms
        if term.weight and share >= term.start and (has_mattes or not term.needs_mattes)
    )


def init_params(
    method: Method,
    gaussians: Gaussians,
    codes: CodeSpace,
    key: jax.Array,
    forward: Params | None = None,
) -> AvatarParams:
    """Weights before the first step.

    Args:
      forward: of F, where it has been fitted already.
    """
    num_features = gaussians.features.shape[1]
    forward_key, detail_key, screen_key = jax.random.split(key, 3)
    if forward is None:
        forward = method.forward.init(forward_key, codes, num_features)
    screen = {}
    if method.screen is not None:
        screen = method.screen.init(screen_key, codes, num_features)
    return AvatarParams(
        gaussians=gaussians,
        forward=forward,
        detail=method.detail.init(detail_key, codes, num_features),
        screen=screen,
    )
