"""Captures: opening them, splitting them, feeding them to training."""

import dataclasses
from pathlib import Path

from npga_jax.data.capture import Capture
from npga_jax.data.location import locate_subject
from npga_jax.data.nersemble import open_nersemble
from npga_jax.data.settings import CaptureConfig


def open_capture(
    subject: str,
    data_root: Path | None,
    cfg: CaptureConfig,
    *,
    progress: bool = True,
    decode: bool = True,
) -> Capture:
    """Opens a subject's capture, decoding its videos into the cache if need be.

    Args:
      subject: Name of the subject's folder, or "demo" for the packaged capture.
      data_root: The folder that holds the subjects; None for $NPGA_DATA.
      cfg: What to use of the capture.
      progress: Whether to say on stderr what is done.
      decode: False to decode only the files that frames are read from later.

    Raises:
      InputError: if there is no such subject, or its data cannot be used.
    """
    root, name = locate_subject(subject, data_root)
    capture = open_nersemble(root, name, cfg, progress=progress, decode=decode)
    return dataclasses.replace(capture, subject=subject)
