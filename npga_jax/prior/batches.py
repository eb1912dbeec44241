"""Drawing training points from registered scans, on the host, a step ahead."""

from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import KDTree

from npga_jax.core import Array, edge_strain
from npga_jax.nphm import RANDOM_BOX, RANDOM_POINTS, ScanBatch
from npga_jax.prior.openings import eye_openings, seen_vertices
from npga_jax.prior.scans import FACE, OUTER, RegisteredScans, triangle_normals


class PointCounts(NamedTuple):
    """Points of each kind per scan and step."""

    surface: int = 128
    outer: int = 48
    off: int = 32
    far: int = 24
    corresp: int = 8
    near: int = 320
    free: int = 48


class NearPoints(NamedTuple):
    """Points beside the surface with a known distance: not in MonoNPHM's training.

    Its real scans have no such points; on registered meshes they teach the distance
    without a second derivative.
    """

    posed: Array  # [S, P, 3]
    neutral: Array  # [S, P, 3] the same places on the neutral head
    sdf: Array  # [S, P] signed distance
    valid: Array  # [S, P] bool: no other part of the surface is nearer


class FreePoints(NamedTuple):
    """Points around the rims of the surface, in an open mouth above all.

    No surface is drawn behind the lips, so nothing else says that there is air between
    them. A point is free where nothing of the head lies before it, seen from the front.
    """

    posed: Array  # [S, P, 3]
    valid: Array  # [S, P] bool: known to be outside


class TrainBatch(NamedTuple):
    """What one step sees."""

    scans: Array  # [S] int32
    people: Array  # [S] int32
    official: ScanBatch
    near: NearPoints
    free: FreePoints
    random_points: Array  # [S, 50, 3] for the penalties on the deformation


_OFF_SIGMA = 0.05
_CORRESP_SIGMAS = (0.01, 0.002)
_NEAR_SIGMAS = (0.03, 0.006)
_VALID_STRIDE = 4
_FREE_SIGMA, _FREE_CANDIDATES = 0.03, 8
_SHORT_EDGE = 1e-3
"""NPHM units (0.25 mm): what is shorter is noise of the mesh."""
_CELL = 0.012
"""Edge of the cells, NPHM units (3 mm), in which the front of a head is looked up."""


def rim_vertices(faces: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Vertices of the face on the border of the mesh: lips, lids. [R] indices."""
    edges = np.sort(
        np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    )
    unique, count = np.unique(edges, axis=0, return_counts=True)
    rim = np.unique(unique[count == 1])
    return rim[regions[rim] == FACE]


class _Strain:
    """How much an expression stretches and turns each triangle of the face."""

    def __init__(self, scans: RegisteredScans):
        """Measures the edges of the mean head once."""
        is_face = (scans.vertex_regions[scans.faces] == FACE).all(axis=1)
        self._rows = np.flatnonzero(is_face)
        corners = scans.faces[self._rows][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        self._edges, own = np.unique(
            np.sort(corners, axis=1), axis=0, return_inverse=True
        )
        self._own = own.reshape(-1, 3)
        self._mean, self._count = scans.mean, len(scans.faces)

    def of(self, displacements: np.ndarray) -> np.ndarray:
        """Differences of displacements [V, 3] along edges, by their length: [F]."""
        strain = np.zeros(self._count)
        along = edge_strain(self._mean, self._edges, displacements, short=_SHORT_EDGE)
        strain[self._rows] = along[self._own].sum(axis=1)
        return strain


def in_front(vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points have nothing of a head before them, seen along -z.

    Args:
      vertices: [V, 3] of the head; they stand for its surface.
      points: [P, 3].

    Returns:
      [P] bool. Cells around the point's count too, since vertices leave gaps.
    """
    low = vertices[:, :2].min(axis=0)
    size = ((vertices[:, :2].max(axis=0) - low) / _CELL).astype(int) + 3

    def cell(at: np.ndarray) -> np.ndarray:
        index = ((at[:, :2] - low) / _CELL).astype(int) + 1
        return np.clip(index, 0, size - 1)

    front = np.full(size, -np.inf)
    index = cell(vertices)
    np.maximum.at(front, (index[:, 0], index[:, 1]), vertices[:, 2])
    front = maximum_filter(front, size=3, mode="nearest")
    index = cell(points)
    return points[:, 2] > front[index[:, 0], index[:, 1]]


class _Chances(NamedTuple):
    """Cumulated chances of a scan's triangles."""

    face: np.ndarray  # [F] of the face and of what is seen of the eyeballs
    outer: np.ndarray  # [F]


class Sampler:
    """Draws the batch of any step: a pure function of the seed and the step."""

    def __init__(
        self,
        scans: RegisteredScans,
        anchor_vertices: np.ndarray,
        counts: PointCounts,
        num_scans: int,
        seed: int,
    ):
        self._scans, self._counts, self._seed = scans, counts, seed
        self._anchors, self._num_scans = anchor_vertices, num_scans
        faces = scans.faces
        region = scans.vertex_regions[faces].max(axis=1)
        area = np.linalg.norm(triangle_normals(scans.mean, faces), axis=-1)
        self._rim = rim_vertices(faces, scans.vertex_regions)
        # A third of the points by area; a third by triangle, since meshes are finer
        # where shape has detail; a third where this very expression strains the skin,
        # since lids and lips are small and move in their own way: without it the
        # deformation learns to leave lids open.
        self._strain = _Strain(scans)
        self._openings = eye_openings(faces, scans.vertex_regions, scans.mean)
        self._is_outer = (region == OUTER) & (area > 0)
        if not self._is_outer.any():  # Scans of faces alone have no outer region.
            self._is_outer = area > 0
        self._is_face = (region != OUTER) & (area > 0)
        self._area = area

    def _chances(self, posed: np.ndarray, neutral: np.ndarray) -> list[_Chances]:
        """For each scan, how likely each triangle is to be drawn."""
        outer = self._mixed(self._is_outer, None)
        found = []
        for vertices, rest in zip(posed, neutral, strict=True):
            seen = seen_vertices(vertices, self._scans.vertex_regions, self._openings)
            face = self._is_face & seen[self._scans.faces].all(axis=1)
            found.append(
                _Chances(self._mixed(face, self._strain.of(vertices - rest)), outer)
            )
        return found

    def _mixed(self, inside: np.ndarray, strain: np.ndarray | None) -> np.ndarray:
        """Cumulated chances of the triangles of a region: [F]."""
        area = inside * self._area
        weight = area / area.sum() + inside / inside.sum()
        strained = 0.0 if strain is None else (inside * strain).sum()
        if strain is not None and strained > 0:
            weight = weight + inside * strain / strained
        return np.cumsum(weight) / weight.sum()

    def batch(self, step: int) -> TrainBatch:
        """The batch of a step."""
        rng = np.random.default_rng([self._seed, step])
        data, counts = self._scans, self._counts
        scans = rng.integers(0, data.num_scans, self._num_scans).astype(np.int32)
        people = data.identity_of[scans]
        # A tenth are neutral, as in MonoNPHM.
        neutral_of = np.flatnonzero(data.is_neutral)
        swap = rng.random(len(scans)) < 0.1
        scans = np.where(swap, neutral_of[people], scans).astype(np.int32)
        posed, neutral = data.posed_fn(scans), data.neutral_fn(people)
        chances = self._chances(posed, neutral)

        face, normal = self._surface(rng, chances, posed, counts.surface, 0.0)
        outer, outer_normal = self._surface(rng, chances, posed, counts.outer, 1.0)
        off, _ = self._surface(rng, chances, posed, counts.off, 0.25)
        off = off + rng.normal(0, _OFF_SIGMA, off.shape)
        direction = rng.normal(size=(len(scans), counts.far, 3))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        radius = rng.random((len(scans), counts.far, 1)) ** (1 / 3)
        corresp = self._displaced(
            rng, chances, posed, neutral, counts.corresp, _CORRESP_SIGMAS
        )
        flags = np.ones(len(scans), np.float32)
        official = ScanBatch(
            points_surface=face,
            normals_surface=normal,
            color_surface=None,
            points_outer=outer,
            normals_outer=outer_normal,
            color_outer=None,
            points_off=off,
            color_off=None,
            points_far=direction * radius,
            anchors=neutral[:, self._anchors],
            corresp_posed=corresp[0],
            corresp_neutral=corresp[1],
            is_neutral=data.is_neutral[scans].astype(np.float32),
            has_hair=flags,
            has_anchors=flags,
            has_corresp=flags,
        )
        near = self._displaced(rng, chances, posed, neutral, counts.near, _NEAR_SIGMAS)
        random_points = rng.uniform(
            -RANDOM_BOX, RANDOM_BOX, (len(scans), RANDOM_POINTS, 3)
        )
        valid = np.stack(
            [
                self._is_nearest(vertices, points, distance)
                for vertices, points, distance in zip(
                    posed, near[0], near[2], strict=True
                )
            ]
        )
        batch = TrainBatch(
            scans=scans,
            people=people,
            official=official,
            near=NearPoints(near[0], near[1], near[2], valid),
            free=self._free_points(rng, posed),
            random_points=random_points,
        )
        return _as_float32(batch)

    def _pick(self, rng, chances, count, outer_share):
        """Random places on the surface, the same on every pose of a scan.

        Returns:
          Vertex indices [S, P, 3] and barycentric weights [S, P, 3, 1].
        """
        num_outer = round(count * outer_share)
        chosen = np.stack(
            [
                np.concatenate(
                    [
                        np.searchsorted(own.face, rng.random(count - num_outer)),
                        np.searchsorted(own.outer, rng.random(num_outer)),
                    ]
                )
                for own in chances
            ]
        )
        u = np.sqrt(rng.random(chosen.shape))
        v = rng.random(chosen.shape)
        weights = np.stack([1 - u, u * (1 - v), u * v], axis=-1)[..., None]
        last = len(self._scans.faces) - 1
        return self._scans.faces[np.minimum(chosen, last)], weights

    def _surface(self, rng, chances, posed, count, outer_share):
        """Surface points and normals, [S, P, 3] each."""
        return _at(posed, *self._pick(rng, chances, count, outer_share))

    def _displaced(self, rng, chances, posed, neutral, count, sigmas):
        """Points moved along the normals: posed, neutral, and by how much."""
        place = self._pick(rng, chances, count, 0.25)
        points, normals = _at(posed, *place)
        rest, rest_normals = _at(neutral, *place)
        sigma = np.where(rng.random(points.shape[:2]) < 0.5, *sigmas)
        distance = rng.normal(size=points.shape[:2]) * sigma
        along = distance[..., None]
        return points + along * normals, rest + along * rest_normals, distance

    def _free_points(self, rng, posed):
        """Points around rims, and which of them are known to be outside."""
        count = self._counts.free
        if not len(self._rim):
            shape = (len(posed), count)
            return FreePoints(np.zeros((*shape, 3)), np.zeros(shape, bool))
        chosen, valid = [], []
        for vertices in posed:
            # Most candidates lie in flesh: more are drawn than are needed.
            rim = vertices[rng.choice(self._rim, count * _FREE_CANDIDATES)]
            points = rim + rng.normal(0, _FREE_SIGMA, rim.shape)
            points[:, 2] -= np.abs(rng.normal(0, _FREE_SIGMA, len(rim)))
            free = in_front(vertices, points)
            order = np.argsort(~free, kind="stable")[:count]
            chosen.append(points[order])
            valid.append(free[order])
        return FreePoints(np.stack(chosen), np.stack(valid))

    @staticmethod
    def _is_nearest(vertices, points, distance):
        """Whether the distance to the surface is not less than the displacement."""
        tree = KDTree(vertices[::_VALID_STRIDE])
        nearest = tree.query(points)[0]
        return nearest > 0.9 * np.abs(distance)


def _at(vertices, triangles, weights):
    """Places on heads [S, V, 3]: points and unit normals of the flat triangles."""
    corners = np.stack([v[t] for v, t in zip(vertices, triangles, strict=True)])
    normal = np.cross(
        corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    )
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return (weights * corners).sum(axis=-2), normal / np.maximum(length, 1e-12)


def _as_float32(tree: Any) -> Any:
    if tree is None:
        return None
    if isinstance(tree, tuple):
        return type(tree)(*(_as_float32(leaf) for leaf in tree))
    return tree.astype(np.float32) if tree.dtype == np.float64 else tree
