"""Tracks a head, through a capture or through any video of a face.

python experiments/track.py --subject 074 --data-root DATA
python experiments/track.py --video talk.mp4 --landmarks face_landmarker.task
"""

import dataclasses
from pathlib import Path

from npga_jax.app import cli
from npga_jax.core import InputError, runtime
from npga_jax.data import CaptureConfig
from npga_jax.tracking import TrackingOptions


@dataclasses.dataclass(frozen=True)
class TrackConfig:
    """Fit a head model to a capture's clouds or to a video: identity, and codes."""

    subject: str = "demo"
    """Folder of the subject; "demo" is the packaged capture."""
    video: Path | None = None
    """A video of one person's face, instead of a capture; needs --landmarks."""
    landmarks: Path | None = None
    """MediaPipe's face_landmarker.task, by which --video is tracked; needs `pip install
    "mediapipe>=1.2"`. Of a capture, experiments/prepare.py finds landmarks."""
    focal: float | None = None
    """Focal length of --video's camera in pixels; default: 1.2 times the long side."""
    smooth: bool = True
    """Smooth the codes of --video in time, as strongly as their noise asks for, and
    without lag."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    prior: Path | None = None
    """Head model: .npz, or MonoNPHM's checkpoint; default: the packaged one."""
    output: Path | None = None
    """Where SEQ/tracking/nphm.npz, the report and the videos go; default: the capture
    where it holds such files already, else the cache; training looks in both. Of a
    video, SEQ is its name; default: runs/track."""
    sequences: tuple[str, ...] = ()
    """Sequences to track (name or prefix); default: all."""
    overlay: bool = True
    """Write videos of the tracked head over the images."""
    capture: CaptureConfig = CaptureConfig()
    tracking: TrackingOptions = TrackingOptions()


def main(cfg: TrackConfig) -> None:
    check_options(cfg)
    runtime.configure()
    if cfg.video is not None:
        track_one_video(cfg, cfg.video)
    else:
        track_capture(cfg)


def check_options(cfg: TrackConfig) -> None:
    """Refuses what cannot be meant."""
    usual = TrackConfig()
    if cfg.video is None:
        for name in ("landmarks", "focal", "smooth"):
            if getattr(cfg, name) != getattr(usual, name):
                raise InputError(
                    f"--{name} has no effect here: it is for --video. Leave it out."
                )
        return
    for name in ("subject", "data_root", "sequences", "capture", "tracking"):
        if getattr(cfg, name) != getattr(usual, name):
            raise InputError(
                f"--{name.replace('_', '-')} has no effect beside --video, which needs "
                "no capture. Leave it out."
            )
    if cfg.landmarks is None:
        raise InputError(
            "--video is tracked by landmarks of the face: give MediaPipe's model with "
            "--landmarks face_landmarker.task."
        )
    if cfg.focal is not None and not 0 < cfg.focal < float("inf"):
        raise InputError(f"--focal is {cfg.focal}; expected pixels, above 0.")


def track_one_video(cfg: TrackConfig, video: Path) -> None:
    """Writes the codes, the report and the overlay of a video."""
    from npga_jax.app import follow_video
    from npga_jax.tracking import open_prior, write_video_overlay

    assert cfg.landmarks is not None  # `check_options` has seen to it.
    loaded = open_prior(cfg.prior)
    output = cfg.output or Path("runs") / "track"
    path, track = follow_video(
        video, cfg.landmarks, loaded, output, focal=cfg.focal, smooth=cfg.smooth
    )
    print(f"wrote {path}; drive an avatar by it with experiments/reenact.py --driving")
    if cfg.overlay:
        picture = write_video_overlay(output, video.stem, video, track, loaded.model)
        print(f"wrote {picture}")


def track_capture(cfg: TrackConfig) -> None:
    """Writes the codes, the report and the overlays of a capture."""
    from npga_jax.data import (
        locate_subject,
        match_sequences,
        sequence_names,
        tracking_output,
    )
    from npga_jax.tracking import summary, track_subject

    root, subject = locate_subject(cfg.subject, cfg.data_root)
    output = cfg.output or tracking_output(root / subject, cfg.capture)
    chosen = None
    if cfg.sequences:
        names = sequence_names(root / subject, cfg.capture)
        chosen = tuple(
            dict.fromkeys(n for s in cfg.sequences for n in match_sequences(names, s))
        )
        if not chosen:
            raise InputError(
                f"no sequence is called {', '.join(cfg.sequences)}; there are "
                f"{', '.join(names) or 'none'}."
            )
    tracking = track_subject(
        root,
        subject,
        cfg.capture,
        prior=cfg.prior,
        output=output,
        sequences=chosen,
        overlay=cfg.overlay,
        options=cfg.tracking,
    )
    if tracking is not None:
        print(summary(tracking.fits, tracking.without_cloud))
        count = len(tracking.frames)
        print(
            f"{count} frames in {tracking.seconds:.0f} s "
            f"({tracking.seconds / count:.2f} s a frame): {output}"
        )


if __name__ == "__main__":
    cli.run(main, TrackConfig)
