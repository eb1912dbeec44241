"""Draws triangle meshes with NumPy: a z-buffer, one fragment per covered pixel centre.

Triangles become rows and rows become pixels, so that the work is proportional to what
is drawn, and neighbours share the arithmetic of their edge: no gap, no overlap.
Cameras follow OpenCV; the first pixel covers [0, 1], its centre is 0.5.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from npga_jax.core import vertex_normals

_CHUNK = 1 << 20
"""Pixels drawn at once, about; bounds the memory."""

_NEAR = 1e-6
_GREY = 205.0
_AMBIENT = 0.25
_LIGHT = np.array([-0.3, -0.45, -0.84])
"""Towards the light, in the camera's frame: over the viewer's left shoulder."""


class Picture(NamedTuple):
    """A drawn mesh."""

    rgb: np.ndarray  # [H, W, 3] uint8, white where there is no mesh
    depth: np.ndarray  # [H, W] float32 camera z, 0 where there is no mesh
    mask: np.ndarray  # [H, W] bool, where the mesh is


def render_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    normals: np.ndarray | None = None,
    colors: np.ndarray | None = None,
    viewmat: np.ndarray,
    K: np.ndarray,
    width: int,
    height: int,
    shading: bool = True,
) -> Picture:
    """Draws a mesh as one camera sees it.

    Args:
      vertices: [V, 3] in the world, any unit.
      faces: [F, 3] indices. Both sides are drawn. Faces that reach behind the camera
        are left out as a whole.
      normals: [V, 3] unit, in the world; default: those of the faces around.
      colors: [V, 3] uint8; default: grey.
      viewmat: [4, 4] world to camera, OpenCV, rigid or with a uniform scale.
      K: [3, 3] pixels.
      width: of the image.
      height: of the image.
      shading: light from over the viewer's left shoulder; False shows the colours as
        they are.

    Returns:
      Picture. Normals and colours are interpolated in perspective.
    """
    faces = np.asarray(faces)
    in_camera = _in_camera(vertices, viewmat)
    seen = _nearest_faces(in_camera, faces, K, width, height)
    depth, mask = seen.depth, seen.face >= 0
    corners, weights = faces[seen.face[mask]], seen.weights[mask]

    def interpolate(per_vertex: np.ndarray) -> np.ndarray:
        return np.einsum("pk,pkc->pc", weights, per_vertex[corners])

    if colors is None:
        shown = np.full((len(corners), 3), _GREY)
    else:
        shown = interpolate(np.asarray(colors, np.float32))
    if shading:
        if normals is None:
            normals = vertex_normals(vertices, faces)
        normal = interpolate(np.asarray(normals, np.float32) @ viewmat[:3, :3].T)
        a, b, c = (in_camera[corners[:, i]] for i in range(3))
        is_back = np.sum(np.cross(b - a, c - a) * a, axis=1) > 0
        normal[is_back] *= -1  # What is seen from behind is lit from behind.
        shown = shown * _brightness(normal)[:, None]
    rgb = np.full((height * width, 3), 255, np.uint8)
    rgb[mask] = np.clip(np.round(shown), 0, 255)
    depth[~mask] = 0
    shape = (height, width)
    return Picture(rgb.reshape(*shape, 3), depth.reshape(shape), mask.reshape(shape))


def visible_faces(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    viewmat: np.ndarray,
    K: np.ndarray,
    width: int,
    height: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Which triangle each pixel shows; arguments as of `render_mesh`.

    Returns:
      [H, W] int64 row of `faces`, -1 where there is no mesh; [H, W] float32 camera z,
      infinite there.
    """
    in_camera = _in_camera(vertices, viewmat)
    seen = _nearest_faces(in_camera, np.asarray(faces), K, width, height)
    return seen.face.reshape(height, width), seen.depth.reshape(height, width)


def portrait_camera(
    vertices: np.ndarray, azimuth: float, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """A camera that sees a whole head from a side.

    Args:
      vertices: [V, 3], +y up, face towards +z, +x the subject's left.
      azimuth: degrees; 0 sees the face, 90 the head's left side.
      width: of the image.
      height: of the image.

    Returns:
      viewmat [4, 4] and K [3, 3], OpenCV, for `render_mesh`.
    """
    low, high = vertices.min(0).astype(np.float64), vertices.max(0).astype(np.float64)
    center, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    angle = np.deg2rad(azimuth)
    back = np.array([np.sin(angle), 0.0, np.cos(angle)])  # From the head to the camera.
    down = np.array([0.0, -1.0, 0.0])
    rotation = np.stack([np.cross(down, -back), down, -back])
    distance = 5 * radius
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = [0, 0, distance] - rotation @ center
    in_camera = vertices @ rotation.T + viewmat[:3, 3]
    extent = np.abs(in_camera[:, :2] / in_camera[:, 2:]).max(0)
    focal = 0.95 * min(width / 2 / extent[0], height / 2 / extent[1])
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return viewmat, intrinsics


def error_colors(error: np.ndarray, largest: float) -> np.ndarray:
    """Colours that tell errors apart on a drawn mesh.

    Args:
      error: [V], 0 or more.
      largest: the error from which on all is red.

    Returns:
      [V, 3] uint8, from blue for none to red.
    """
    share = np.clip(np.asarray(error) / largest, 0, 1)[:, None]
    return (share * [220, 40, 30] + (1 - share) * [60, 90, 220]).astype(np.uint8)


class _Fragments(NamedTuple):
    """Pixels that triangles cover."""

    pixel: np.ndarray  # [M] y * width + x
    face: np.ndarray  # [M]
    depth: np.ndarray  # [M] camera z, float32
    weights: np.ndarray  # [M, 3] of the corners, in perspective; float32


class _Nearest(NamedTuple):
    """What is in front at each pixel."""

    face: np.ndarray  # [N] row of the faces, -1 for none
    depth: np.ndarray  # [N] float32, infinite for none
    weights: np.ndarray  # [N, 3] float32 of the corners, in perspective


def _in_camera(vertices: np.ndarray, viewmat: np.ndarray) -> np.ndarray:
    vertices = np.asarray(vertices, np.float64)
    if not np.isfinite(vertices).all():
        raise ValueError("some vertices are not finite.")
    return vertices @ viewmat[:3, :3].T + viewmat[:3, 3]


def _nearest_faces(
    in_camera: np.ndarray, faces: np.ndarray, K: np.ndarray, width: int, height: int
) -> _Nearest:
    depth = np.full(width * height, np.inf, np.float32)
    face_of = np.full(width * height, -1, np.int64)
    weights = np.zeros((width * height, 3), np.float32)
    before = np.flatnonzero((in_camera[faces, 2] > _NEAR).all(1))
    for hit in _fragments(in_camera, faces[before], K, width, height):
        is_nearer = hit.depth < depth[hit.pixel]
        # Of several fragments of one pixel the last that is written stays.
        order = np.flatnonzero(is_nearer)
        order = order[np.argsort(-hit.depth[order], kind="stable")]
        pixel = hit.pixel[order]
        depth[pixel] = hit.depth[order]
        face_of[pixel] = before[hit.face[order]]
        weights[pixel] = hit.weights[order]
    return _Nearest(face_of, depth, weights)


def _brightness(normal: np.ndarray) -> np.ndarray:
    """Diffuse light on normals [P, 3] of the camera's frame: [P] in [0, 1]."""
    length = np.linalg.norm(normal, axis=1)
    cosine = normal @ (_LIGHT / np.linalg.norm(_LIGHT))
    cosine = np.maximum(cosine / np.where(length > 0, length, 1), 0)
    return _AMBIENT + (1 - _AMBIENT) * cosine


def _fragments(
    in_camera: np.ndarray, faces: np.ndarray, K: np.ndarray, width: int, height: int
) -> Iterator[_Fragments]:
    """Pixels whose centres lie in a triangle, in chunks."""
    homogeneous = in_camera @ np.asarray(K, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        screen = homogeneous[:, :2] / homogeneous[:, 2:]
    # By height, then by column: both neighbours see an edge from the same end.
    corners = screen[faces]
    order = np.lexsort((corners[..., 0], corners[..., 1]), axis=1)
    corners = np.take_along_axis(corners, order[..., None], axis=1)
    y = corners[..., 1]
    first = np.clip(np.ceil(y[:, 0] - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(y[:, 2] - 0.5), 0, height).astype(np.int64)
    face, row = _expand(first, last)
    a, b, c = (corners[face, i] for i in range(3))
    middle = row + 0.5
    is_upper = (middle < b[:, 1])[:, None]
    one = _crossing(a, c, middle)
    other = _crossing(np.where(is_upper, a, b), np.where(is_upper, b, c), middle)
    left, right = np.minimum(one, other), np.maximum(one, other)
    start = np.clip(np.ceil(left - 0.5), 0, width).astype(np.int64)
    stop = np.clip(np.ceil(right - 0.5), 0, width).astype(np.int64)
    end = np.cumsum(stop - start)
    cuts = np.searchsorted(end, np.arange(0, end[-1] if len(end) else 0, _CHUNK))
    for i, begin in enumerate(cuts):
        part = slice(begin, cuts[i + 1] if i + 1 < len(cuts) else None)
        span, column = _expand(start[part], stop[part])
        face_of, row_of = face[part][span], row[part][span]
        depth, weights = _interpolation(
            in_camera, screen, faces[face_of], column + 0.5, row_of + 0.5
        )
        yield _Fragments(row_of * width + column, face_of, depth, weights)


def _expand(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All integers of the ranges start[i] to stop[i] - 1, each with its i."""
    count = np.maximum(stop - start, 0)
    which = np.repeat(np.arange(len(start)), count)
    before = np.cumsum(count) - count
    return which, np.arange(len(which)) - before[which] + start[which]


def _crossing(top: np.ndarray, bottom: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where edges [M, 2] to [M, 2] cross the heights y [M]."""
    rise = bottom[:, 1] - top[:, 1]
    share = (y - top[:, 1]) / np.where(rise > 0, rise, 1)
    return top[:, 0] + share * (bottom[:, 0] - top[:, 0])


def _interpolation(
    in_camera: np.ndarray,
    screen: np.ndarray,
    corners: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Depth [M] and perspective weights [M, 3] of triangles [M, 3] at pixels."""
    (ax, ay), (bx, by), (cx, cy) = (screen[corners[:, i]].T for i in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    area = np.where(area == 0, 1, area)
    wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
    wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
    # Rounding may push slivers out of [0, 1], and so out of the triangle's depths.
    flat = np.clip(np.stack([1 - wb - wc, wb, wc], axis=1), 0, 1)
    scaled = flat / in_camera[corners, 2]
    inverse = scaled.sum(1)
    weights = (scaled / inverse[:, None]).astype(np.float32)
    return (flat.sum(1) / inverse).astype(np.float32), weights
