"""ICT-FaceKit as a source of registered scans: people and expressions drawn at will.

The file is the "light" model (USC ICT, MIT licence) packed as one .npz: keys `neutral`
[V, 3] in centimetres, `identity` [I, V, 3], `expression` [E, V, 3],
`expression_names` [E], `faces` [F, 3].
"""

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np

from npga_jax.core import InputError
from npga_jax.prior.scans import EYES, FACE, OUTER, RegisteredScans, compact_mesh

NUM_VERTICES = 26719
FACE_VERTICES = slice(0, 9409)
NARROW_FACE_VERTICES = slice(0, 6706)
HEAD_VERTICES = slice(9409, 11248)
EYEBALL_VERTICES = slice(21451, 24591)

UNIT_CM = 25.0
ORIGIN_CM = np.array([0.0, 1.58, 5.95], np.float32)
"""The point of the ICT frame that becomes NPHM's origin: it brings the tip of the nose
to where FLAME has it, so that NPHM's boxes and anchors fit."""

_SHAPES = {
    "neutral": (NUM_VERTICES, 3),
    "identity": (None, NUM_VERTICES, 3),
    "expression": (None, NUM_VERTICES, 3),
    "expression_names": (None,),
    "faces": (None, 3),
}
_IDENTITY_DECAY = 60.0
_LID_RIMS = slice(6548, 6632)
"""Vertices where the mesh ends within the eyes, behind the edges of the lids."""
_HIDDEN_ROWS = 2
"""Rows of vertices from there that no camera sees, however the lids move. As surfaces
they would be a second sheet under the skin, and tear the first where lids meet."""
_WIDEST = "eyeWide_"
"""Units that bare more of the eyeballs than any other."""
_CUT = -0.6
"""Height, NPHM units, below which neck and shoulders are cut off: NPHM's heads end at
the throat, and shoulders would take anchors and capacity from the face."""
_OPEN_MOUTHS = 0.35
_SHUT_EYES, _QUITE_SHUT = 0.3, 0.5
"""Share of the expressions whose eyes shut, and of these the share that shut quite."""
_BLINK = ("eyeBlink_L", "eyeBlink_R")
_UNUSED_PREFIX = "PupilDilate"
"""Units that move no surface."""


@dataclasses.dataclass(frozen=True, eq=False)
class IctModel:
    """The linear model, in its own units."""

    neutral: np.ndarray  # [V, 3] centimetres
    identity: np.ndarray  # [I, V, 3]
    expression: np.ndarray  # [E, V, 3]
    expression_names: tuple[str, ...]
    faces: np.ndarray  # [F, 3]

    def vertices(self, identity: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Heads of identity coefficients [S, I] and weights [S, E]: [S, V, 3] cm."""
        modes = self.identity.reshape(len(self.identity), -1)
        units = self.expression.reshape(len(self.expression), -1)
        moved = identity @ modes + weights @ units
        return self.neutral + moved.reshape(len(identity), -1, 3)


def load_ict(path: Path) -> IctModel:
    """Reads the packed model.

    Raises:
      InputError: no such file, damaged, or with other keys, shapes or bad numbers.
    """
    expected = f"the keys {', '.join(_SHAPES)} of ICT-FaceKit Light ({NUM_VERTICES} "
    expected += "vertices)"
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in _SHAPES}
    except FileNotFoundError:
        raise InputError(f"there is no file of scans {path}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; expected an .npz of scans.") from None
    except KeyError as error:
        raise InputError(f"{path}: {error}; expected {expected}.") from None
    except (
        ValueError,
        OSError,
        EOFError,
        AttributeError,
        TypeError,
        NotImplementedError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(
            f"{path} cannot be read ({error}): it is cut short, damaged, or not an "
            f".npz of plain arrays; expected {expected}."
        ) from error
    for key, shape in _SHAPES.items():
        array = arrays[key]
        fits = len(array.shape) == len(shape) and all(
            b is None or a == b for a, b in zip(array.shape, shape, strict=True)
        )
        kinds = {"faces": "iu", "expression_names": "U"}.get(key, "f")
        if not fits or array.dtype.kind not in kinds or array.size == 0:
            raise InputError(
                f"{path}: {key} is {array.shape} {array.dtype}; expected {expected}."
            )
        if kinds == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: {key} holds NaN or infinite values.")
    faces = arrays["faces"]
    if faces.min() < 0 or faces.max() >= NUM_VERTICES:
        raise InputError(f"{path}: faces name vertices beyond {NUM_VERTICES - 1}.")
    if len(arrays["expression"]) != len(arrays["expression_names"]):
        raise InputError(f"{path}: expression and expression_names differ in length.")
    return IctModel(
        neutral=arrays["neutral"].astype(np.float32),
        identity=arrays["identity"].astype(np.float32),
        expression=arrays["expression"].astype(np.float32),
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        faces=faces.astype(np.int32),
    )


def to_nphm(vertices_cm: np.ndarray) -> np.ndarray:
    """ICT's frame and centimetres to NPHM's frame and units."""
    return (vertices_cm - ORIGIN_CM) / UNIT_CM


def draw_identities(rng: np.random.Generator, count: int, modes: int) -> np.ndarray:
    """Coefficients of plausible people: [count, modes]."""
    return (
        rng.standard_normal((count, modes))
        * np.exp(-np.arange(modes) / _IDENTITY_DECAY)
    ).astype(np.float32)


def draw_expressions(
    rng: np.random.Generator, count: int, names: tuple[str, ...]
) -> np.ndarray:
    """Weights of expressions: single units, and mixes of several.

    Left and right units of a pair often act together, as in real faces, and mouths are
    open and eyes shut more often than one unit of many would have it.

    Returns:
      [count, E] in [0, 1].
    """
    usable = np.array([not n.startswith(_UNUSED_PREFIX) for n in names])
    weights = np.zeros((count, len(names)), np.float32)
    position = {name: i for i, name in enumerate(names)}
    mirror = np.array(
        [
            position.get(
                n[:-1] + {"L": "R", "R": "L"}[n[-1]] if n[-2:] in ("_L", "_R") else n,
                i,
            )
            for i, n in enumerate(names)
        ]
    )
    for row in weights:
        active = rng.choice(np.flatnonzero(usable), size=rng.integers(1, 9))
        values = (
            rng.uniform(0.1, 1.0, size=len(active)) * min(1, 3 / len(active)) ** 0.3
        )
        row[active] = values
        both = rng.random(len(active)) < 0.6
        row[mirror[active[both]]] = values[both] * rng.uniform(0.7, 1.0, both.sum())
        if "jawOpen" in position and rng.random() < _OPEN_MOUTHS:
            row[position["jawOpen"]] = rng.uniform(0.1, 1.0)
        if position.keys() >= set(_BLINK) and rng.random() < _SHUT_EYES:
            low = 0.8 if rng.random() < _QUITE_SHUT else 0.2
            row[[position[name] for name in _BLINK]] = rng.uniform(low, 1.0)
    return np.clip(weights, 0, 1)


def surface_vertices(model: IctModel) -> np.ndarray:
    """Vertices that belong to the outer surface: skin, and the visible eyeballs.

    Returns:
      [V] bool. Shading shells, teeth, gums and sockets are left out, the inner sides of
      the lids, and what covers of the eyeballs even with eyes wide open.
    """
    keep = np.zeros(NUM_VERTICES, bool)
    keep[FACE_VERTICES] = keep[HEAD_VERTICES] = True
    keep &= to_nphm(model.neutral)[:, 1] > _CUT
    keep &= ~_inner_lids(model.faces)
    eyes = np.arange(NUM_VERTICES)[EYEBALL_VERTICES]
    wide = [name.startswith(_WIDEST) for name in model.expression_names]
    vertices = model.neutral + model.expression[wide].sum(axis=0)
    is_skin = keep[model.faces].all(axis=1) & (model.faces < FACE_VERTICES.stop).all(1)
    keep[eyes] = ~_is_covered(vertices[eyes], vertices[model.faces[is_skin]])
    return keep


def _inner_lids(faces: np.ndarray) -> np.ndarray:
    """The rows of skin behind the edges of the lids: [V] bool."""
    skin = faces[(faces < NARROW_FACE_VERTICES.stop).all(axis=1)]
    hidden, row = np.zeros(NUM_VERTICES, bool), np.zeros(NUM_VERTICES, bool)
    row[_LID_RIMS] = True
    for _ in range(_HIDDEN_ROWS):
        hidden |= row
        row[skin[row[skin].any(axis=1)]] = True
    return hidden


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Twice the area that two vectors span in the x-y plane: [..., 3] -> [...]."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _is_covered(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Whether a triangle lies before a point, seen along -z.

    Args:
      points: [P, 3].
      triangles: [F, 3, 3] corners.

    Returns:
      [P] bool.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    near = (triangles.max(axis=1) > low)[:, :2] & (triangles.min(axis=1) < high)[:, :2]
    a, b, c = triangles[near.all(axis=1)].transpose(1, 0, 2)
    covered = np.zeros(len(points), bool)
    area = _cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-12, np.inf, area)
    for i, p in enumerate(points):
        u = _cross(b - p, c - p) / area
        v = _cross(c - p, a - p) / area
        w = 1 - u - v
        inside = (u >= 0) & (v >= 0) & (w >= 0) & np.isfinite(area)
        depth = u * a[:, 2] + v * b[:, 2] + w * c[:, 2]
        covered[i] = (inside & (depth > p[2])).any()
    return covered


def ict_scans(
    model: IctModel,
    *,
    num_identities: int,
    expressions_per_identity: int,
    seed: int,
) -> RegisteredScans:
    """Draws people and, for each, their neutral head and some expressions.

    Args:
      model: the linear model.
      num_identities: people.
      expressions_per_identity: scans of each person beside the neutral one.
      seed: two seeds give different people: one to train, another to hold out.

    Returns:
      RegisteredScans; scan i * (expressions_per_identity + 1) is person i's neutral.
    """
    rng = np.random.default_rng(seed)
    per_person = expressions_per_identity + 1
    identities = draw_identities(rng, num_identities, len(model.identity))
    count = num_identities * per_person
    weights = draw_expressions(rng, count, model.expression_names)
    weights[::per_person] = 0
    faces, used = compact_mesh(model.faces, surface_vertices(model))
    regions = np.full(len(used), OUTER, np.int8)
    regions[used < FACE_VERTICES.stop] = FACE
    regions[used >= EYEBALL_VERTICES.start] = EYES
    identity_of = np.repeat(np.arange(num_identities, dtype=np.int32), per_person)
    small = dataclasses.replace(
        model,
        neutral=np.ascontiguousarray(model.neutral[used]),
        identity=np.ascontiguousarray(model.identity[:, used]),
        expression=np.ascontiguousarray(model.expression[:, used]),
        faces=faces,
    )

    def posed(scans: np.ndarray) -> np.ndarray:
        vertices = small.vertices(identities[identity_of[scans]], weights[scans])
        return to_nphm(vertices)

    def neutral(people: np.ndarray) -> np.ndarray:
        rest = np.zeros((len(people), weights.shape[1]), np.float32)
        return to_nphm(small.vertices(identities[people], rest))

    return RegisteredScans(
        faces=faces,
        vertex_regions=regions,
        mean=to_nphm(small.neutral),
        identity_of=identity_of,
        is_neutral=np.arange(count) % per_person == 0,
        posed_fn=posed,
        neutral_fn=neutral,
        source="ICT-FaceKit Light (USC ICT, MIT licence), drawn at random",
    )
