"""Tracked heads drawn on the images, to look at."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npga_jax.data import Capture
from npga_jax.io import render_mesh, write_video
from npga_jax.nphm import METRES_PER_UNIT, Codes, HeadModel, head_mesh

_FINEST, _COARSEST = 112, 40
_CELLS_PER_PIXEL = 0.5
"""Of a head's mesh: a small face needs no fine one, and that is what takes time."""
_OPACITY = 0.6


def most_frontal(capture: Capture, timestep, pose: np.ndarray) -> str:
    """The camera that the face looks at."""
    forward = pose[:3, 2] / np.linalg.norm(pose[:3, 2])

    def cosine(camera_id: str) -> float:
        w = capture.camera(timestep, camera_id).world2cam
        away = -w[:3, :3].T @ w[:3, 3] - pose[:3, 3]
        return float(forward @ away / np.linalg.norm(away))

    return max(capture.cameras, key=cosine)


def overlay_frames(
    capture: Capture, model: HeadModel, tracking, rows: list[int]
) -> Iterator[np.ndarray]:
    """Images beside the same with the head drawn over: [H, 2 W, 3] uint8 each."""
    first = rows[0]
    camera_id = most_frontal(
        capture, tracking.frames[first].timestep, tracking.poses[first].matrix()
    )
    for i in rows:
        timestep, pose = tracking.frames[i].timestep, tracking.poses[i].matrix()
        camera = capture.camera(timestep, camera_id)
        codes = (tracking.unknowns.geo, tracking.unknowns.exp[i])
        viewmat = camera.world2cam.astype(np.float64)
        image = capture.rgb(timestep, camera_id)
        yield draw_head(image, model, codes, pose, viewmat, camera.K)


def draw_head(
    image: np.ndarray,
    model: HeadModel,
    identity_and_expression: tuple[np.ndarray, np.ndarray],
    world_from_head: np.ndarray,
    viewmat: np.ndarray,
    K: np.ndarray,
) -> np.ndarray:
    """An image beside the same with a head drawn over it.

    Args:
      image: [H, W, 3] uint8.
      model: head model.
      identity_and_expression: its codes.
      world_from_head: [4, 4] metres.
      viewmat: [4, 4] world-to-camera.
      K: [3, 3] pixels.

    Returns:
      [H, 2 W, 3] uint8.
    """
    geo, exp = identity_and_expression
    app = np.zeros(model.cfg.lat_dim_app, np.float32)
    codes = Codes(geo=geo, app=app, exp=exp)
    matrix = world_from_head
    depth = (viewmat @ matrix)[2, 3]
    scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
    pixels = METRES_PER_UNIT * scale * K[1, 1] / max(depth, 1e-6)  # of a unit
    cells = int(np.clip(_CELLS_PER_PIXEL * pixels, _COARSEST, _FINEST))
    mesh = head_mesh(model, codes, posed=True, resolution=cells)
    vertices = mesh.vertices * METRES_PER_UNIT @ matrix[:3, :3].T + matrix[:3, 3]
    height, width = image.shape[:2]
    picture = render_mesh(
        vertices, mesh.faces, viewmat=viewmat, K=K, width=width, height=height
    )
    blend = np.where(
        picture.mask[..., None],
        (1 - _OPACITY) * image + _OPACITY * picture.rgb,
        image,
    )
    return np.concatenate([image, blend.astype(np.uint8)], axis=1)


def write_overlays(
    output: Path, capture: Capture, model: HeadModel, tracking
) -> list[Path]:
    """One video per sequence: <output>/SEQ/overlay.mp4."""
    paths = []
    for sequence in dict.fromkeys(f.timestep.sequence for f in tracking.frames):
        rows = [
            i
            for i, frame in enumerate(tracking.frames)
            if frame.timestep.sequence == sequence
        ]
        path = output / sequence / "overlay.mp4"
        write_video(path, overlay_frames(capture, model, tracking, rows), capture.fps)
        paths.append(path)
    return paths
