"""The landmarks of a capture, by a model that the user gives."""

import dataclasses
from pathlib import Path

from npga_jax.app.job import Preparing, check_disk
from npga_jax.app.making import STEREO_WIDTH
from npga_jax.data import NUM_LANDMARKS, widest
from npga_jax.preparation import (
    find_capture_landmarks,
    landmarks_sheet,
    sequences_without_landmarks,
    write_report,
    wrong_faces,
)

_LANDMARK_BYTES = 10
"""Of a landmark in a view, with its share of the triangulated ones."""


def make_landmarks(job: Preparing, model: Path) -> None:
    """Finds the landmarks that lack, and says what was found.

    Args:
      job: what is prepared.
      model: MediaPipe's face landmarker.

    Raises:
      InputError: the model or the capture cannot be used, or it cannot be written.
    """
    # Mattes are not looked at; those that are not finished are not in the way.
    job = dataclasses.replace(
        job, capture=dataclasses.replace(job.capture, mattes=False)
    )
    # Finer images gave no better points.
    width = min(STEREO_WIDTH, widest(job.root / job.name, job.capture))
    capture = job.open(decode=False, width=width)
    lacking = sequences_without_landmarks(capture, job.output, model)
    kept = len(capture.sequences) - len(lacking)
    if kept:
        print(f"{kept} of {len(capture.sequences)} sequences have landmarks: kept")
    if not lacking:
        return
    frames = sum(t.sequence in lacking for t in capture.timesteps)
    views = frames * (len(capture.cameras) + 2)
    check_disk(job.output, "landmarks", views * NUM_LANDMARKS * _LANDMARK_BYTES)
    found = find_capture_landmarks(
        job.open(decode=True, width=width), lacking, job.output, model
    )
    checks = [check for rows in found.values() for check in rows]
    share = sum(c.views for c in checks) / sum(c.cameras for c in checks)
    print(
        f"landmarks of {len(checks)} frames, a face in {share:.0%} of the images: "
        f"{job.output}; look at {landmarks_sheet(job.output)}"
    )
    write_report(job.output)
    for sequence, rows in found.items():
        for frame_id, why in wrong_faces(rows).items():
            print(f"LOOKS WRONG  {sequence} frame {frame_id}: {why}")
