"""Good scenes made wrong, one mistake at a time."""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np

from npga_jax.data.capture import Camera, PointCloud
from npga_jax.diagnosis.view import Scene, View

OPENGL = np.diag([1, -1, -1, 1]).astype(np.float32)


def in_views(
    scene: Scene, change: Callable[[View], View], which: Collection[int] = ()
) -> Scene:
    """Changes some views by their number; all without numbers."""
    views = [
        change(view) if not which or i in which else view
        for i, view in enumerate(scene.views)
    ]
    return scene._replace(views=tuple(views))


def posed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[View], View]:
    """A view whose camera has another matrix."""

    def wrong(view: View) -> View:
        pose = change(view.camera.world2cam.copy()).astype(np.float32)
        return view._replace(camera=dataclasses.replace(view.camera, world2cam=pose))

    return wrong


def moved(scale: float = 1.0, by: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    """A matrix whose translation is scaled, or pushed to the right."""

    def change(pose: np.ndarray) -> np.ndarray:
        pose[:3, 3] *= scale
        pose[0, 3] += by
        return pose

    return change


def with_K(change: Callable[[np.ndarray, Camera], None]) -> Callable[[View], View]:
    """A view whose intrinsics a function has changed in place."""

    def wrong(view: View) -> View:
        K = view.camera.K.copy()
        change(K, view.camera)
        return view._replace(camera=dataclasses.replace(view.camera, K=K))

    return wrong


def scaled_K(factor: float) -> Callable[[View], View]:
    """A view whose intrinsics are for images `factor` times as large."""

    def change(K: np.ndarray, camera: Camera) -> None:
        K[:2] *= factor

    return with_K(change)


def from_lower_edge(K: np.ndarray, camera: Camera) -> None:
    K[1, 2] = camera.height - K[1, 2]


def from_right_edge(K: np.ndarray, camera: Camera) -> None:
    K[0, 2] = camera.width - K[0, 2]


def from_corner(K: np.ndarray, camera: Camera) -> None:
    from_lower_edge(K, camera)
    from_right_edge(K, camera)


def pictured(
    change: Callable[[np.ndarray], np.ndarray], *names: str
) -> Callable[[View], View]:
    """A view with other pictures: "matte", "image"."""

    def wrong(view: View) -> View:
        there = {n: getattr(view, n) for n in names if getattr(view, n) is not None}
        return view._replace(**{n: change(x) for n, x in there.items()})

    return wrong


def mirrored(picture: np.ndarray) -> np.ndarray:
    return picture[:, ::-1]


def upside_down(picture: np.ndarray) -> np.ndarray:
    return picture[::-1, ::-1]


def inverted(picture: np.ndarray) -> np.ndarray:
    return 255 - picture


def scaled_cloud(scene: Scene, factor: float) -> Scene:
    """A scene whose cloud is larger."""
    assert scene.cloud is not None
    xyz = np.float32(factor) * scene.cloud.xyz
    return scene._replace(cloud=dataclasses.replace(scene.cloud, xyz=xyz))


def exchanged(scene: Scene, i: int, j: int) -> Scene:
    """A scene in which two cameras have each other's pictures."""
    views = list(scene.views)
    a, b = views[i], views[j]
    views[i] = a._replace(matte=b.matte, image=b.image)
    views[j] = b._replace(matte=a.matte, image=a.image)
    return scene._replace(views=tuple(views))


def cropped(scene: Scene) -> Scene:
    """Without some rows below and columns at the left: off-centre principal points."""

    def crop(view: View) -> View:
        rows, columns = view.camera.height // 10, view.camera.width // 12
        K = view.camera.K.copy()
        K[0, 2] -= columns
        camera = dataclasses.replace(
            view.camera,
            K=K,
            width=view.camera.width - columns,
            height=view.camera.height - rows,
        )
        cut = pictured(lambda x: x[:-rows, columns:], "matte", "image")(view)
        return cut._replace(camera=camera)

    return in_views(scene, crop)


def without_mattes(scene: Scene) -> Scene:
    return in_views(scene, lambda view: view._replace(matte=None))


def without_pictures(scene: Scene) -> Scene:
    return in_views(scene, lambda view: view._replace(matte=None, image=None))


def without_cloud(scene: Scene) -> Scene:
    return scene._replace(cloud=None)


def shifted_cloud(scene: Scene, by: float) -> Scene:
    assert scene.cloud is not None
    xyz = scene.cloud.xyz + np.float32(by)
    return scene._replace(cloud=dataclasses.replace(scene.cloud, xyz=xyz))


def part_of_cloud(scene: Scene, keep: Callable[[np.ndarray], np.ndarray]) -> Scene:
    """A scene with those points that `keep` [P, 3] -> [P] chooses."""
    assert scene.cloud is not None and scene.cloud.normals is not None
    kept = keep(scene.cloud.xyz)
    parts = (scene.cloud.xyz, scene.cloud.rgb, scene.cloud.normals)
    return scene._replace(cloud=PointCloud(*(x[kept] for x in parts)))
