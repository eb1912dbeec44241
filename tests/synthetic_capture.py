"""Writes tiny captures in the NeRSemble layout: a ball seen by cameras on an arc.

The scene is consistent in 3-D (the ball moves with the head pose and its colour with
the expression), so that it can be projected, and even trained on.
"""

import dataclasses
import json
from pathlib import Path

import av
import numpy as np

CAMERAS = ("222200037", "222200042", "222200046")
SEQUENCES = ("EXP-2-eyes", "FREE")
BALL_RADIUS = 0.1  # Metres.
BACKGROUND = 200
FULL_SCALE = 2  # A shared K is meant for images this much larger than the videos.


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticCapture:
    """Ground truth of what was written."""

    root: Path
    subject: str
    folder: Path
    cameras: tuple[str, ...]
    sequences: tuple[str, ...]
    num_frames: int
    Ks: dict[str, np.ndarray]  # [3, 3] float64, pixels of the videos
    world2cam: dict[str, np.ndarray]  # [4, 4] float64
    expr: dict[str, np.ndarray]  # [T, E] by sequence
    world_from_head: dict[str, np.ndarray]  # [T, 4, 4] by sequence

    def project(self, xyz: np.ndarray, camera: str) -> np.ndarray:
        """Projects world points [P, 3] into a video; [P, 2] pixels."""
        matrix = self.world2cam[camera]
        uvw = (xyz @ matrix[:3, :3].T + matrix[:3, 3]) @ self.Ks[camera].T
        return uvw[:, :2] / uvw[:, 2:]


def write_capture(
    root: Path,
    subject: str = "074",
    *,
    sequences: tuple[str, ...] = SEQUENCES,
    cameras: tuple[str, ...] = CAMERAS,
    num_frames: int = 4,
    width: int = 32,
    height: int = 48,
    fps: int = 24,
    expr_dim: int = 3,
    num_points: int = 200,
    is_K_per_camera: bool = False,
    with_alpha: bool = True,
    with_labels: bool = True,
    seed: int = 0,
) -> SyntheticCapture:
    """Writes a capture to `root / subject`.

    Args:
      root: The data root.
      subject: Name of the subject's folder.
      sequences: Sequence folders.
      cameras: Serials.
      num_frames: Frames of each sequence.
      width: Of the videos; even.
      height: Of the videos; even.
      fps: Of the videos.
      expr_dim: Length of the expression code.
      num_points: Points in each point cloud.
      is_K_per_camera: Whether calibration holds a dict of K, for the videos, rather
        than one K for images `FULL_SCALE` times as large.
      with_alpha: Whether to write mattes.
      with_labels: Whether to write label maps, at half the videos' resolution.
      seed: Of codes, poses and points.
    """
    rng = np.random.default_rng(seed)
    folder = root / subject
    # The principal point is off the centre on purpose.
    K = np.array(
        [[3.2 * width, 0, 0.45 * width], [0, 3.2 * width, 0.53 * height], [0, 0, 1]]
    )
    Ks = {c: K + (i * 0.5 * is_K_per_camera) * _CXY for i, c in enumerate(cameras)}
    angles = np.linspace(-0.6, 0.6, len(cameras))
    world2cam = {c: _look_from(a) for c, a in zip(cameras, angles, strict=True)}
    truth = SyntheticCapture(
        root=root,
        subject=subject,
        folder=folder,
        cameras=cameras,
        sequences=sequences,
        num_frames=num_frames,
        Ks=Ks,
        world2cam=world2cam,
        expr={s: rng.uniform(0, 1, (num_frames, expr_dim)) for s in sequences},
        world_from_head={
            s: np.stack([_random_pose(rng) for _ in range(num_frames)])
            for s in sequences
        },
    )
    full = np.diag([FULL_SCALE, FULL_SCALE, 1])
    write_json(
        folder / "calibration" / "camera_params.json",
        {
            "world_2_cam": {c: m.tolist() for c, m in world2cam.items()},
            "intrinsics": (
                {c: k.tolist() for c, k in Ks.items()}
                if is_K_per_camera
                else (full @ K).tolist()
            ),
            "width": FULL_SCALE * width,
            "height": FULL_SCALE * height,
        },
    )
    for sequence in sequences:
        place = folder / "sequences" / sequence
        write_driving(
            place / "tracking" / "blendshapes.npz",
            expr=truth.expr[sequence],
            world_from_head=truth.world_from_head[sequence],
        )
        for camera in cameras:
            frames = [
                _render(truth, sequence, t, camera, width, height)
                for t in range(num_frames)
            ]
            rgb, alpha = map(np.stack, zip(*frames, strict=True))
            write_video(place / "images" / f"cam_{camera}.mp4", rgb, fps)
            if with_alpha:
                gray = np.repeat(alpha[..., None], 3, axis=-1)
                write_video(place / "alpha_maps" / f"cam_{camera}.mp4", gray, fps)
            if with_labels:
                path = place / "segmentation" / f"cam_{camera}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                labels = np.where(alpha > 127, 2, 0).astype(np.uint8)
                np.savez_compressed(path, labels=labels[:, ::2, ::2])
        for t in range(num_frames):
            normals = rng.normal(size=(num_points, 3))
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
            center = truth.world_from_head[sequence][t, :3, 3]
            color = _ball_color(truth.expr[sequence][t])
            write_pcd(
                place / "pointclouds" / f"frame_{t:05d}.pcd",
                center + BALL_RADIUS * normals,
                np.tile(color, (num_points, 1)),
                normals,
            )
    return truth


def write_json(path: Path, content: object) -> None:
    """Writes JSON and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_driving(path: Path, **changes: object) -> None:
    """Writes a neutral driving file: `expr`, `world_from_head`, and what differs."""
    expr = np.asarray(changes["expr"], np.float32)
    content = {
        "frame_id": np.arange(len(expr), dtype=np.int32),
        "expr_names": np.array([f"e{i}" for i in range(expr.shape[1])]),
        "model": "test",
        "head_unit": "m",
        **changes,
        "expr": expr,
        "world_from_head": np.asarray(changes["world_from_head"], np.float32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{k: v for k, v in content.items() if v is not None})


def write_video(path: Path, frames: np.ndarray, fps: int = 24) -> None:
    """Writes [T, H, W, 3] uint8 as lossless H.264 with full chroma.

    The index comes first, so that a file that is cut short still opens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.options = {"qp": "0", "preset": "ultrafast"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_pcd(
    path: Path, xyz: np.ndarray, rgb: np.ndarray, normals: np.ndarray
) -> None:
    """Writes a binary .pcd; rgb [P, 3] is in [0, 1]."""
    levels = np.round(np.asarray(rgb) * 255).astype(np.uint32)
    packed = (levels[:, 0] << 16) | (levels[:, 1] << 8) | levels[:, 2]
    table = np.concatenate(
        [
            xyz.astype("<f4"),
            packed.astype("<u4").view("<f4")[:, None],
            normals.astype("<f4"),
        ],
        axis=-1,
    )
    header = (
        "VERSION 0.7\nFIELDS x y z rgb normal_x normal_y normal_z\n"
        f"SIZE {'4 ' * 7}\nTYPE {'F ' * 7}\nCOUNT {'1 ' * 7}\nWIDTH {len(xyz)}\n"
        f"HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(xyz)}\nDATA binary\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + table.tobytes())


_CXY = np.array([[0, 0, 1.0], [0, 0, 1.0], [0, 0, 0]])


def _look_from(angle: float, distance: float = 1.0) -> np.ndarray:
    """World-to-camera of a camera on the arc that looks at the origin."""
    forward = -np.array([np.sin(angle), 0, np.cos(angle)])
    right = np.cross(forward, [0, 1, 0])
    R = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = R, [0, 0, distance]
    return matrix


def _random_pose(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(-0.2, 0.2)
    matrix = np.eye(4)
    matrix[0, [0, 2]] = np.cos(angle), np.sin(angle)
    matrix[2, [0, 2]] = -np.sin(angle), np.cos(angle)
    matrix[:3, 3] = rng.uniform(-0.01, 0.01, 3)
    return matrix


def _ball_color(expr: np.ndarray) -> np.ndarray:
    return 0.2 + 0.7 * np.resize(expr, 3)


def _render(
    truth: SyntheticCapture, sequence: str, t: int, camera: str, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Intersects pixel centres' rays with the ball: rgb [H, W, 3], alpha [H, W]."""
    matrix = truth.world2cam[camera]
    center = matrix[:3, :3] @ truth.world_from_head[sequence][t, :3, 3] + matrix[:3, 3]
    y, x = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1)
    rays = pixels @ np.linalg.inv(truth.Ks[camera]).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    nearest = rays @ center
    miss = center @ center - nearest**2
    is_hit = miss < BALL_RADIUS**2
    depth = nearest - np.sqrt(np.maximum(BALL_RADIUS**2 - miss, 0))
    normal = (rays * depth[..., None] - center) / BALL_RADIUS
    shade = 0.5 + 0.5 * np.clip(-normal[..., 2:], 0, 1)
    color = 255 * shade * _ball_color(truth.expr[sequence][t])
    rgb = np.where(is_hit[..., None], color, BACKGROUND)
    return rgb.astype(np.uint8), np.where(is_hit, 255, 0).astype(np.uint8)
