"""Codes from a video of one camera, and what a user is told of them."""

import sys
from pathlib import Path

import numpy as np

from npga_jax.core import InputError, check_writable
from npga_jax.data import probe
from npga_jax.tracking import (
    Lens,
    LoadedPrior,
    VideoTrack,
    check_model,
    track_video,
    usual_lens,
    write_video_track,
)

_FEW = 0.5
"""Share of tracked frames below which a video is called out."""


def follow_video(
    video: Path,
    model: Path,
    loaded: LoadedPrior,
    output: Path,
    *,
    focal: float | None = None,
    smooth: bool = True,
) -> tuple[Path, VideoTrack]:
    """Tracks a video, writes its codes, and says how that went.

    Args:
      video: of one person's face.
      model: MediaPipe's face landmarker.
      loaded: head model.
      output: folder; the codes go to <output>/<name of the video>/tracking/nphm.npz.
      focal: of the camera, pixels; None for that of a usual one.
      smooth: whether to smooth in time.

    Returns:
      The driving file, and the track.

    Raises:
      InputError: the video or the model cannot be used, or no frame could be tracked.
    """
    if not video.is_file():
        raise InputError(f"there is no video {video}; give the path of a file.")
    info = probe(video, "rgb")
    check_model(model)
    check_writable(output)
    lens = usual_lens(info.width, info.height)
    if focal is not None:
        k = lens.K.copy()
        k[0, 0] = k[1, 1] = focal
        lens = Lens(k, info.width, info.height)
    track = track_video(video, model, loaded, lens=lens, smooth=smooth)
    if not len(track.frame_id):
        raise InputError(
            f"{video}: a face was found in {len(track.faces.frame_id)} frames, but the "
            "head model fits none of them; is it the face of a person, seen from the "
            "front?"
        )
    path = write_video_track(output, video.stem, track, loaded)
    faces, share = track.faces, len(track.frame_id) / track.faces.num_frames
    print(
        f"{len(track.frame_id)} of {faces.num_frames} frames tracked ({share:.0%}), "
        f"landmarks off by {np.median(track.error_mm):.1f} mm (median), "
        f"{track.seconds / len(faces.frame_id):.2f} s a frame"
    )
    if focal is None:
        print(
            f"focal length taken to be {lens.K[0, 0]:.0f} pixels; give --focal if you "
            "know it"
        )
    if faces.num_crowded:
        print(
            f"note: {faces.num_crowded} frames show other faces too; the one that is "
            "largest at first is followed",
            file=sys.stderr,
        )
    if share < _FEW:
        print(
            f"WARNING: no face could be followed in {1 - share:.0%} of the frames; "
            "these are gaps in the codes",
            file=sys.stderr,
        )
    return path, track
