"""The packaged capture trained on in every layout of whole captures: as good in each.

    NPGA_LAYOUT_STEPS=8000 python -m pytest -m slow -s tests/app/test_layouts_alike.py

trains each for that many steps of the preset "quick", with the head tracked and F
distilled, instead of for a few by the packaged codes.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

import npga_jax
from npga_jax.app.evaluation import evaluate_run
from npga_jax.data.capture import Capture
from npga_jax.data.driving import tracked_folder
from npga_jax.data.location import prepared_folder
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.training.settings import PRESETS
from tests.data import layouts
from tests.synthetic_capture import write_pcd

STEPS = int(os.environ.get("NPGA_LAYOUT_STEPS", "300"))
IS_WHOLE = STEPS >= 1000
TOLERANCE = 0.2
"""dB."""


def write_made(
    folder: Path, cache: Path, capture: Capture, world, spacing: int
) -> None:
    """What was made of a capture: clouds, label maps and tracked codes."""
    prepared = prepared_folder(folder, cache)
    layouts.write_clouds(prepared, capture, world, spacing=spacing)
    for sequence, path in capture.driving_paths.items():
        own = [t for t in capture.timesteps if t.sequence == sequence]
        place = prepared / "sequences" / sequence / "segmentation"
        place.mkdir(parents=True)
        for camera in capture.cameras:
            labels = np.stack([capture.labels(t, camera) for t in own])
            np.savez_compressed(place / f"cam_{camera}.npz", labels=labels)
        with np.load(path) as file:
            arrays = dict(file)
        arrays["world_from_head"] = world(sequence) @ arrays["world_from_head"]
        arrays["frame_id"] = spacing * arrays["frame_id"]
        target = tracked_folder(folder, cache) / sequence / "tracking" / path.name
        target.parent.mkdir(parents=True)
        np.savez(target, **arrays)


@pytest.mark.slow
def test_every_layout_trains_alike(tmp_path):
    cache = tmp_path / "cache"
    driving = "nphm" if IS_WHOLE else "blendshapes"
    cfg = CaptureConfig(driving=driving, cache_dir=cache)
    if IS_WHOLE:
        npga_jax.track("demo", cfg=cfg)
    capture = open_capture("demo", None, cfg, progress=False)
    union = layouts.write_vhap(tmp_path / "vhap", capture)
    write_made(union, cache, capture, lambda s: layouts.vhap_world(capture, s), 1)
    release = tmp_path / "release/001"
    layouts.write_diffusion_avatars(release, capture)
    write_made(release, cache, capture, lambda _: np.eye(4), layouts.SPACING)
    places = {"nersemble": ("demo", None)}
    places |= {f.parent.name: (f.name, f.parent) for f in (union, release)}
    preset = PRESETS["quick" if IS_WHOLE else "demo"]
    found = {}
    for name, (subject, root) in places.items():
        run = npga_jax.train(
            dataclasses.replace(
                preset,
                subject=subject,
                data_root=root,
                output=tmp_path / "runs" / name,
                steps=STEPS,
                evaluate=False,
                capture=cfg,
            )
        )
        assert run.capture.sequences[-1] == "FREE"
        result = evaluate_run(run, lpips_vgg_images=0, videos=False)
        found[name] = {
            split: result[split]["face"]["psnr"]
            for split in ("self_reenactment", "novel_view")
        }
    print(found)
    for split in ("self_reenactment", "novel_view"):
        values = [scores[split] for scores in found.values()]
        assert max(values) - min(values) < TOLERANCE, found


def test_one_moment_trains_with_no_sequence_held_out(tiny_run, tmp_path):
    source, cfg = tiny_run.capture, tiny_run.config
    folder, cache = tmp_path / "studio", tmp_path / "cache"
    layouts.write_moment(folder, source, source.timesteps[1])
    place = prepared_folder(folder, cache) / "sequences/moment/pointclouds"
    cloud = source.points(source.timesteps[1])
    write_pcd(place / "frame_00000.pcd", cloud.xyz, cloud.rgb, cloud.normals)
    capture = dataclasses.replace(
        cfg.capture, width=16, driving="still", cache_dir=cache
    )
    cfg = dataclasses.replace(
        cfg,
        subject="studio",
        data_root=tmp_path,
        output=tmp_path / "run",
        steps=2,
        capture=capture,
        forward=dataclasses.replace(cfg.forward, source="auto"),
    )
    run = npga_jax.train(cfg)
    assert run.config.capture.held_out_sequence == ""
    result = evaluate_run(run, lpips_vgg_images=0, videos=False)
    assert result["novel_view"]["full"]["num_images"] == 1
    assert result["self_reenactment"]["full"]["psnr"] is None
    assert result["protocol"]["self_reenactment"] == "No sequence is held out."
