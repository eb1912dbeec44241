"""The seam: a reader of another layout needs `Capture` alone."""

import dataclasses
from pathlib import Path

import numpy as np

from npga_jax.data.capture import Camera, Capture, Driving, PointCloud, Timestep
from npga_jax.data.loader import load_batch
from npga_jax.data.splits import expression_codes, holdout_split
from npga_jax.distillation.person import open_person


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Memory(Capture):
    """A capture that is all in memory; frame and camera are in the pixels."""

    def camera(self, timestep: Timestep, camera_id: str) -> Camera:
        eye = np.eye(4, dtype=np.float32)
        return Camera(eye[:3, :3], eye, self.width, self.height, camera_id)

    def rgb(self, timestep: Timestep, camera_id: str) -> np.ndarray:
        value = 10 * timestep.index + self.cameras.index(camera_id)
        return np.full((self.height, self.width, 3), value, np.uint8)

    def alpha(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        return None

    def labels(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        return None

    def driving(self, timestep: Timestep) -> Driving:
        expr = np.full(2, timestep.index, np.float32)
        return Driving(expr, np.eye(4, dtype=np.float32))

    def points(self, timestep: Timestep) -> PointCloud | None:
        xyz = np.zeros((1, 3), np.float32)
        return PointCloud(xyz, xyz, None) if timestep.index else None


def make_memory(**changes: object) -> Memory:
    fields: dict = dict(
        subject="x",
        root=Path(),
        fps=24.0,
        frame_stride=1,
        width=4,
        height=3,
        sequences=("a", "b"),
        cameras=("left", "right"),
        timesteps=tuple(Timestep(i, "ab"[i // 2], i % 2) for i in range(4)),
        expr_names=("e0", "e1"),
        driving_model="test",
        has_mattes=False,
    )
    return Memory(**(fields | changes))


def test_another_reader_feeds_training_by_the_interface_alone():
    capture = make_memory()
    split = holdout_split(capture, "b", "right")
    assert expression_codes(capture, split.train).tolist() == [[0, 0], [1, 1]]
    batch = load_batch(capture, capture.timesteps[1], ("right",))
    assert (batch.rgb == 11).all() and (batch.alpha == 255).all()
    assert [capture.has_points(t) for t in capture.timesteps] == [False, *[True] * 3]
    assert all(capture.has_driving(t) for t in capture.timesteps)
    assert open_person(capture, None) is None


def test_codes_are_called_as_all_their_files_are():
    assert make_memory().driving_name == ""
    files = {"a": Path("a/nphm.npz"), "b": Path("b/nphm.npz")}
    assert make_memory(driving_paths=files).driving_name == "nphm"
    files["b"] = Path("b/flame.npz")
    assert make_memory(driving_paths=files).driving_name == ""
