"""Writes one capture in every layout that is read.

They take any capture and write it as it is opened: its images, cameras, mattes, codes
and poses. What a layout does to the world, they do: VHAP turns it, and moves it by
another offset in every sequence.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from npga_jax.data import flame
from npga_jax.data.capture import Capture, Timestep
from tests.synthetic_capture import write_json, write_pcd

OPENGL = np.diag([1.0, -1, -1, 1])


def vhap_world(capture: Capture, sequence: str) -> np.ndarray:
    """[4, 4] from the capture's world to the one that an export of a sequence is in."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", [0.3, -0.2, 0.1]).as_matrix()
    number = capture.sequences.index(sequence)
    motion[:3, 3] = 0.02 * (number + 1) * np.array([1.0, -2, 0.5])
    return motion


def export_name(sequence: str) -> str:
    return f"074_{sequence}_v16_DS4_whiteBg_staticOffset_maskBelowLine"


def write_vhap(root: Path, capture: Capture, *, cy_from: str = "bottom") -> Path:
    """Writes an export per sequence, and a union of all whose test is the last.

    Returns:
      The union's folder.
    """
    union: dict[str, list] = {"train": [], "val": [], "test": []}
    for sequence in capture.sequences:
        folder = root / export_name(sequence)
        frames = []
        for t in (t for t in capture.timesteps if t.sequence == sequence):
            _write_flame(folder, capture, t)
            for number, camera in enumerate(capture.cameras):
                frames.append(_vhap_frame(folder, capture, t, number, camera, cy_from))
        write_json(folder / "transforms.json", {"frames": frames})
        np.savez(folder / "canonical_flame_param.npz", expr=np.zeros((1, 100)))
        for frame in frames:
            is_front = frame["camera_id"] == "222200037"
            part = "val" if is_front else "train"
            part = "test" if sequence == capture.sequences[-1] else part
            keys = ("file_path", "fg_mask_path", "flame_param_path")
            paths = {key: f"../{folder.name}/{frame[key]}" for key in keys}
            union[part].append({**frame, **paths})
    folder = root / "UNION2_074_v16_DS4_whiteBg_staticOffset_maskBelowLine"
    folder.mkdir()
    np.savez(folder / "canonical_flame_param.npz", expr=np.zeros((1, 100)))
    for part, frames in union.items():
        write_json(folder / f"transforms_{part}.json", {"frames": frames})
    return folder


def write_moment(folder: Path, capture: Capture, timestep: Timestep) -> None:
    """Writes nerfstudio's folder of one timestep."""
    frames = []
    for camera in capture.cameras:
        rgb, alpha = capture.rgb(timestep, camera), capture.alpha(timestep, camera)
        _write_image(folder / f"images/cam_{camera}.png", rgb)
        _write_image(folder / f"masks/cam_{camera}.png", alpha)
        view = capture.camera(timestep, camera)
        c2w = np.linalg.inv(view.world2cam.astype(np.float64)) @ OPENGL
        frames.append(
            {
                "file_path": f"images/cam_{camera}.png",
                "mask_path": f"masks/cam_{camera}.png",
                "transform_matrix": c2w.tolist(),
                **_shared(view, "top"),
            }
        )
    content = {"camera_model": "OPENCV", "k1": 0.0, "p2": 0.0, "frames": frames}
    write_json(folder / "transforms.json", content)


def write_colmap(
    folder: Path, capture: Capture, timestep: Timestep, *, binary: bool, unit: float = 1
) -> None:
    """Writes COLMAP's folder of one timestep, in units of `unit` metres."""
    lenses, pictures = [], []
    for number, camera in enumerate(capture.cameras, start=1):
        rgb, alpha = capture.rgb(timestep, camera), capture.alpha(timestep, camera)
        _write_image(folder / f"images/{camera}.png", rgb)
        _write_image(folder / f"masks/{camera}.png.png", alpha)
        view = capture.camera(timestep, camera)
        K, w2c = view.K.astype(np.float64), view.world2cam.astype(np.float64)
        x, y, z, w = Rotation.from_matrix(w2c[:3, :3]).as_quat()
        params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        lenses.append((number, view.width, view.height, params))
        pose = (w, x, y, z, *(w2c[:3, 3] / unit))
        pictures.append((number, pose, number, f"{camera}.png"))
    model = folder / "sparse/0"
    model.mkdir(parents=True)
    if binary:
        data = struct.pack("<Q", len(lenses))
        for number, width, height, params in lenses:
            data += struct.pack("<iiQQ4d", number, 1, width, height, *params)
        (model / "cameras.bin").write_bytes(data)
        data = struct.pack("<Q", len(pictures))
        for number, pose, lens, name in pictures:
            data += struct.pack("<i7di", number, *pose, lens) + name.encode() + b"\0"
            data += struct.pack("<Q", 1) + struct.pack("<ddq", 1.0, 2.0, -1)
        (model / "images.bin").write_bytes(data)
        return
    lines = ["# Camera list"]
    for number, width, height, params in lenses:
        words = " ".join(f"{x:.17g}" for x in params)
        lines.append(f"{number} PINHOLE {width} {height} {words}")
    (model / "cameras.txt").write_text("\n".join(lines))
    lines = ["# Image list"]
    for number, pose, lens, name in pictures:
        lines += [f"{number} {' '.join(f'{x:.17g}' for x in pose)} {lens} {name}", ""]
    (model / "images.txt").write_text("\n".join(lines))


SPACING = 3
"""Of the frames in DiffusionAvatars' release."""


def write_diffusion_avatars(folder: Path, capture: Capture) -> None:
    """Writes the release's layout; frame t of the capture is frame 3 t."""
    first = capture.timesteps[0]
    views = [capture.camera(first, c) for c in capture.cameras]
    matrices = np.stack([v.world2cam.astype(np.float64) for v in views])
    Ks = [2 * v.K.astype(np.float64) for v in views]  # Of the full images.
    lenses = [{"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]} for K in Ks]
    params = {
        "rs": Rotation.from_matrix(matrices[:, :3, :3]).as_rotvec().tolist(),
        "ts": matrices[:, :3, 3].tolist(),
        "intrinsics": lenses,
    }
    place = folder / "calibration"
    write_json(place / "calibration_result.json", {"params_result": params})
    size = {"w": 2 * capture.width, "h": 2 * capture.height}
    write_json(
        place / "config.json", {"serials": list(capture.cameras), "image_size": size}
    )
    for sequence in capture.sequences:
        timesteps = [t for t in capture.timesteps if t.sequence == sequence]
        place = folder / "sequences" / sequence
        for t in timesteps:
            moment = place / f"timesteps/frame_{SPACING * t.frame_id:05d}"
            for camera in capture.cameras:
                rgb, alpha = capture.rgb(t, camera), capture.alpha(t, camera)
                _write_image(moment / f"images-2x/cam_{camera}.jpg", rgb)
                _write_image(moment / f"alpha_map/cam_{camera}.png", alpha)
                labels = capture.labels(t, camera)
                if labels is not None:
                    name = f"facer_segmentation_masks/segmentation_cam_{camera}.png"
                    _write_image(moment / name, labels)
        _write_tracking(place / "annotations", capture, timesteps)


def write_clouds(
    prepared: Path, capture: Capture, world=None, spacing: int = 1
) -> None:
    """Writes a capture's clouds where those that were made lie.

    Args:
      prepared: Folder of what was made of the capture in the other layout.
      capture: Whose clouds.
      world: From a sequence to [4, 4], the motion of its world.
      spacing: Of the other layout's frames.
    """
    for t in capture.timesteps:
        cloud = capture.points(t)
        motion = np.eye(4) if world is None else world(t.sequence)
        xyz = cloud.xyz @ motion[:3, :3].T + motion[:3, 3]
        place = prepared / "sequences" / t.sequence / "pointclouds"
        path = place / f"frame_{spacing * t.frame_id:05d}.pcd"
        write_pcd(path, xyz, cloud.rgb, cloud.normals @ motion[:3, :3].T)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def _vhap_frame(folder, capture, t, number, camera, cy_from) -> dict:
    rgb, alpha = capture.rgb(t, camera), capture.alpha(t, camera)
    name = f"{t.frame_id:05d}_{number:02d}.png"
    _write_image(folder / "images" / name, on_white(rgb, alpha))
    _write_image(folder / "fg_masks" / name, alpha)
    view = capture.camera(t, camera)
    world = vhap_world(capture, t.sequence)
    c2w = world @ np.linalg.inv(view.world2cam.astype(np.float64)) @ OPENGL
    return {
        "timestep_index": t.index,
        "camera_index": number,
        "camera_id": camera,
        "transform_matrix": c2w.tolist(),
        "file_path": f"images/{name}",
        "fg_mask_path": f"fg_masks/{name}",
        "flame_param_path": f"flame_param/{t.frame_id:05d}.npz",
        **_shared(view, cy_from),
    }


def _shared(view, cy_from: str) -> dict:
    K = view.K.astype(np.float64)
    cy = view.height - K[1, 2] if cy_from == "bottom" else K[1, 2]
    return {
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2],
        "cy": cy,
        "w": view.width,
        "h": view.height,
    }


def _write_flame(folder: Path, capture: Capture, t: Timestep) -> None:
    """The parameters that put FLAME's head where the capture's is, without neck."""
    driving = capture.driving(t)
    pose = vhap_world(capture, t.sequence) @ driving.world_from_head.astype(np.float64)
    R, joint = pose[:3, :3], flame.ROOT_JOINT
    path = folder / "flame_param" / f"{t.frame_id:05d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        translation=(pose[:3, 3] - joint + R @ joint)[None],
        rotation=Rotation.from_matrix(R).as_rotvec()[None],
        neck_pose=np.zeros((1, 3)),
        jaw_pose=np.zeros((1, 3)),
        eyes_pose=np.zeros((1, 6)),
        shape=np.zeros(300),
        expr=driving.expr[None],
        static_offset=np.zeros((1, 5, 3)),
    )


def _write_tracking(place: Path, capture: Capture, timesteps) -> None:
    driving = [capture.driving(t) for t in timesteps]
    poses = np.stack([d.world_from_head.astype(np.float64) for d in driving])
    count = len(driving)
    folder = place / "tracking/FLAME2023_v2"
    folder.mkdir(parents=True)
    np.savez(
        folder / "tracked_flame_params.npz",
        rotation=Rotation.from_matrix(poses[:, :3, :3]).as_euler("XYZ"),
        translation=poses[:, :3, 3],
        scale=np.ones((1, 3)),
        shape=np.zeros((1, 300)),
        expression=np.stack([d.expr for d in driving]),
        jaw=np.zeros((count, 3)),
        neck=np.zeros((count, 3)),
        eyes=np.zeros((count, 6)),
    )
    folder = place / "tracking/NPHM_temp_wNeck_wLMs"
    folder.mkdir()
    for t, d in zip(timesteps, driving, strict=True):
        code = np.zeros(200, np.float32)
        code[: len(d.expr)] = d.expr
        np.savez(folder / f"{SPACING * t.frame_id:05d}_ex_code.npz", code)


def _write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=98)
