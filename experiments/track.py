"""Tracks a head through a capture: `python experiments/track.py --subject 074`."""

import dataclasses
from pathlib import Path

from npga_jax.app import cli
from npga_jax.core import runtime
from npga_jax.data import CaptureConfig
from npga_jax.tracking import TrackingOptions


@dataclasses.dataclass(frozen=True)
class TrackConfig:
    """Fit a head model to a capture's point clouds: one identity, codes per frame."""

    subject: str = "demo"
    """Folder of the subject; "demo" is the packaged capture."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    prior: Path | None = None
    """Head model: .npz, or MonoNPHM's checkpoint; default: the packaged one."""
    output: Path | None = None
    """Where SEQ/tracking/nphm.npz, the report and the videos go; default: the capture
    where it holds such files already, else the cache; training looks in both."""
    sequences: tuple[str, ...] = ()
    """Sequences to track (name or prefix); default: all."""
    overlay: bool = True
    """Write videos of the tracked head over the images."""
    capture: CaptureConfig = CaptureConfig()
    tracking: TrackingOptions = TrackingOptions()


def main(cfg: TrackConfig) -> None:
    runtime.configure()
    from npga_jax.core import InputError
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
