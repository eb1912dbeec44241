"""How well points, mattes and images agree, camera by camera.

A score is between 0 and 1 and comes with the chance error that so many samples have.
Points lie on the person, so that a true calibration puts them onto the mattes; it need
not cover the mattes, as clouds may be of the face alone, and so that counts little.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from npga_jax.data import PointCloud, project, visible_points
from npga_jax.diagnosis.view import Scene, View

_POINTS_PER_CELL = 6
"""Of the cells that a matte would have: few are then empty by chance."""
_OUTSIDE = 0.5
"""What a point beside the image counts against one on the background."""
_COVERING = 0.25
"""What covering the matte counts against being on it: the exponent."""
_MIN_CONTRAST = 0.02
"""Standard deviation of a cloud's colours, of 1, below which they tell nothing."""
_MIN_VISIBLE = 20
_PATCHES = 16
"""Across an image: pixels of one patch have about one colour."""
_GRID = 32  # Points along an edge of the space that mattes are compared in.
_FAINT = 128


class Match(NamedTuple):
    """How one camera agrees with points. NaN is what cannot be told."""

    inside: float  # share of the points that are in the image
    on: float  # share of them that are on the matte; those beside the image weigh half
    covered: float  # share of the matte that has points
    color: float  # correlation of the colours of points and image
    count: float  # samples of the matte that are independent of one another, about
    color_count: float = 1.0  # and of the image

    @property
    def parts(self) -> dict[str, float]:
        """From 0 to 1, how well mattes and colours fit, where there are any.

        Without both it is the share of points in the image.
        """
        values = {"matte": self.on * self.covered**_COVERING, "color": self.color}
        known = {k: max(v, 0.0) for k, v in values.items() if not np.isnan(v)}
        return known or {"inside": self.inside}

    @property
    def score(self) -> float:
        """The mean of all parts."""
        return float(np.mean(list(self.parts.values())))


_NOTHING = Match(0.0, 0.0, 0.0, np.nan, 1.0)


def known(scene: Scene, matches: Sequence[Match]) -> frozenset[str]:
    """What there is to judge by, as `Cause.needs` calls it."""
    there = set()
    if not np.isnan([m.on for m in matches]).any():
        there.add("mattes")
    if not np.isnan([m.color for m in matches]).any():
        there.add("colors")
    if scene.cloud is not None and there:
        there.add("points")
    return frozenset(there)


def match_view(view: View, cloud: PointCloud) -> Match:
    """Compares a view with points in the world."""
    pixels, inside, _ = _place(view, cloud.xyz)
    on = covered = color = np.nan
    count = float(len(pixels))
    if view.matte is not None:
        area = int((view.matte >= _FAINT).sum())
        cell = max(1, int(np.ceil(np.sqrt(area * _POINTS_PER_CELL / len(pixels)))))
        num_outside = int((~inside).sum())
        on, covered, count = _match_matte(view.matte, pixels[inside], num_outside, cell)
    color_count = 1.0
    if view.image is not None:
        color, color_count = _match_color(view, cloud)
    return Match(float(inside.mean()), on, covered, color, count, color_count)


def match_scene(scene: Scene, *, tolerance: int = 0) -> list[Match]:
    """Measures how well a scene agrees: what `measures` says of its views as given."""
    ways = measures(scene, tolerance=tolerance)
    return [measure(view) for measure, view in zip(ways, scene.views, strict=True)]


def measures(scene: Scene, *, tolerance: int = 0) -> list[Callable[[View], Match]]:
    """For each camera, what measures views of it against what else the scene has.

    Args:
      scene: With a cloud; or with mattes, and each is compared with what the mattes of
        the other cameras leave of space.
      tolerance: How many cameras may say that nobody is where the others say so.
    """
    cloud = scene.cloud
    if cloud is not None:
        return [lambda view: match_view(view, cloud)] * len(scene.views)
    place = meet(scene.views)
    if place is None:
        return [lambda view: _NOTHING] * len(scene.views)
    middle, radius = place
    steps = np.linspace(-radius, radius, _GRID)
    grid = middle + np.stack(np.meshgrid(*[steps] * 3), axis=-1).reshape(-1, 3)
    denied = np.stack([_denies(view, grid) for view in scene.views])
    total = denied.sum(0)
    spacing = float(steps[1] - steps[0])

    def against(hull: np.ndarray) -> Callable[[View], Match]:
        return lambda view: _match_space(view, hull, spacing)

    return [against(grid[total - no <= tolerance]) for no in denied]


def meet(views: Sequence[View]) -> tuple[np.ndarray, float] | None:
    """Where the person is by the mattes alone.

    Returns:
      The point nearest to the rays through the mattes' middles [3], and the radius of
      a ball that holds the person (median over cameras); None if there is none, since
      it would be behind most cameras or far from the rays.
    """
    return _nearest(views, _middle_of_matte)


def axes_meet(views: Sequence[View]) -> tuple[np.ndarray, float] | None:
    """As `meet`, with optical axes for the mattes' middles."""
    return _nearest(
        views,
        lambda v: (np.array([v.camera.width, v.camera.height]) / 2, v.camera.width / 2),
    )


def distance_from_rays(views: Sequence[View], point: np.ndarray) -> float:
    """How far the optical axes pass by a point, as a share of the distance to it."""
    apart = []
    for view in views:
        matrix = view.camera.world2cam
        local = matrix[:3, :3] @ point + matrix[:3, 3]
        if local[2] <= 0:
            return np.inf
        apart.append(np.linalg.norm(local[:2]) / local[2])
    return float(np.median(apart))


def _match_matte(
    matte: np.ndarray, pixels: np.ndarray, num_outside: int, cell: int
) -> tuple[float, float, float]:
    """Compares pixels [P, 2] with a matte.

    Args:
      matte: [H, W].
      pixels: Inside of it.
      num_outside: How many more are beside the image.
      cell: Width of the squares that are covered or not.

    Returns:
      Shares on the matte and covered, and the number of squares on the matte.
    """
    person = matte >= _FAINT
    x, y = pixels.astype(int).T
    weight = len(pixels) + _OUTSIDE * num_outside
    on = person[y, x].sum() / max(weight, 1.0)
    rows, columns = -(-matte.shape[0] // cell), -(-matte.shape[1] // cell)
    padded = np.zeros((rows * cell, columns * cell), bool)
    padded[: matte.shape[0], : matte.shape[1]] = person
    wanted = padded.reshape(rows, cell, columns, cell).mean((1, 3)) >= 0.5
    filled = np.zeros((rows, columns), bool)
    filled[y // cell, x // cell] = True
    num_wanted = max(int(wanted.sum()), 1)
    return float(on), float((filled & wanted).sum() / num_wanted), float(num_wanted)


def _match_space(view: View, points: np.ndarray, spacing: float) -> Match:
    """Compares a matte with points of a grid of space."""
    assert view.matte is not None
    if not len(points):
        return _NOTHING
    pixels, inside, depth = _place(view, points)
    pixels_apart = view.camera.K[0, 0] * spacing / max(np.median(depth), 1e-6)
    cell = int(np.clip(np.ceil(1.3 * pixels_apart), 1, view.camera.width))
    # Where space is not seen by all cameras it is left over beside the image.
    on, covered, count = _match_matte(view.matte, pixels[inside], 0, cell)
    return Match(float(inside.mean()), on, covered, np.nan, count)


def _match_color(view: View, cloud: PointCloud) -> tuple[float, float]:
    """Correlates colours; nearby pixels count as one sample.

    Returns:
      The correlation and the number of samples.
    """
    if cloud.rgb.std(0).max() < _MIN_CONTRAST or view.image is None:
        return np.nan, 1.0
    visible, pixels = visible_points(view.camera, cloud.xyz, cloud.normals)
    if visible.sum() < _MIN_VISIBLE:
        return 0.0, _MIN_VISIBLE
    seen = view.image[pixels[visible, 1], pixels[visible, 0]] / 255.0
    given = cloud.rgb[visible]
    seen, given = seen - seen.mean(0), given - given.mean(0)
    norm = np.sqrt((seen**2).sum() * (given**2).sum())
    column, row = (pixels[visible] * _PATCHES // view.camera.width).T
    patches = np.unique(row * _PATCHES + column)
    color = float((seen * given).sum() / norm) if norm > 1e-9 else 0.0
    return color, float(len(patches))


def _place(view: View, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """Points in an image: pixels [P, 2], which are inside of it [P], depths [P]."""
    pixels, depth = project(view.camera, points)
    x, y = pixels.T
    in_width = (x >= 0) & (x < view.camera.width)
    in_height = (y >= 0) & (y < view.camera.height)
    return pixels, (depth > 0) & in_width & in_height, depth


def _denies(view: View, points: np.ndarray) -> np.ndarray:
    """Which points [P] a camera sees on the background or behind itself."""
    assert view.matte is not None
    pixels, inside, depth = _place(view, points)
    x, y = np.where(inside[:, None], pixels, 0).astype(int).T
    return (depth <= 0) | (inside & (view.matte[y, x] < _FAINT))


def _nearest(
    views: Sequence[View], aim: Callable[[View], tuple[np.ndarray, float] | None]
) -> tuple[np.ndarray, float] | None:
    """The point nearest to one ray of each camera; `aim` gives pixel and radius."""
    system, right, rays = np.zeros((3, 3)), np.zeros(3), []
    for view in views:
        aimed = aim(view)
        if aimed is None:
            continue
        camera = view.camera
        rotation = camera.world2cam[:3, :3].astype(np.float64)
        centre = -rotation.T @ camera.world2cam[:3, 3]
        ray = np.linalg.solve(camera.K.astype(np.float64), [*aimed[0], 1.0])
        ray = rotation.T @ (ray / np.linalg.norm(ray))
        across = np.eye(3) - np.outer(ray, ray)
        system, right = system + across, right + across @ centre
        rays.append((centre, ray, aimed[1] / camera.K[0, 0]))
    if len(rays) < 2 or np.linalg.cond(system) > 1e6:
        return None
    middle = np.linalg.solve(system, right)
    along = np.array([(middle - centre) @ ray for centre, ray, _ in rays])
    if np.median(along) <= 0:
        return None
    radius = np.median(
        [d * width for d, (_, _, width) in zip(along, rays, strict=True)]
    )
    return middle, float(radius)


def _middle_of_matte(view: View) -> tuple[np.ndarray, float] | None:
    if view.matte is None or not (view.matte >= _FAINT).any():
        return None
    y, x = np.nonzero(view.matte >= _FAINT)
    low, high = np.percentile([x, y], [1, 99], axis=1)
    return np.array([x.mean(), y.mean()]) + 0.5, 0.65 * float((high - low).max())
