"""A capture that makes its clouds when they are asked for."""

import numpy as np

from npga_jax.data.capture import Camera, Driving, PointCloud, Timestep

_WORLD2CAM = np.float32(
    [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1], [0, 0, 0, 1]]
)  # A metre before the face, upright, OpenCV.


class MadeUpClouds:
    """Half an ellipsoid that looks at its only camera, without label maps."""

    subject = "made-up"
    cameras = ("front",)

    def __init__(self, num_frames: int, num_points: int):
        self.timesteps = tuple(Timestep(i, "SEQ", i) for i in range(num_frames))
        self._num_points = num_points

    def points(self, timestep: Timestep) -> PointCloud:
        rng = np.random.default_rng(timestep.index)
        normals = rng.normal(size=(self._num_points, 3)).astype(np.float32)
        normals[:, 2] = np.abs(normals[:, 2])
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        xyz = normals * np.float32([0.07, 0.1, 0.09])
        return PointCloud(xyz, np.full_like(xyz, 0.5), normals)

    def labels(self, timestep: Timestep, camera_id: str) -> None:
        return None

    def camera(self, timestep: Timestep, camera_id: str) -> Camera:
        return Camera(np.eye(3, dtype=np.float32), _WORLD2CAM, 100, 100, camera_id)

    def landmarks(self, timestep: Timestep) -> None:
        return None

    def has_driving(self, timestep: Timestep) -> bool:
        return True

    def driving(self, timestep: Timestep) -> Driving:
        return Driving(np.zeros(1, np.float32), np.eye(4, dtype=np.float32))
