"""Opens a capture, whatever its layout; the rest of the project asks here."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from npga_jax.core import InputError
from npga_jax.data.capture import Capture
from npga_jax.data.code_files import find_code_files
from npga_jax.data.colmap import find_colmap
from npga_jax.data.decoding import probe
from npga_jax.data.diffusion_avatars import find_diffusion_avatars
from npga_jax.data.driving import TRACKED, tracked_folder
from npga_jax.data.findings import Findings
from npga_jax.data.image_capture import picture_header
from npga_jax.data.image_opening import open_images, used_sequences
from npga_jax.data.image_set import ImageSet
from npga_jax.data.layouts import layout_of
from npga_jax.data.location import locate_subject
from npga_jax.data.nerfstudio import find_nerfstudio
from npga_jax.data.nersemble import open_nersemble
from npga_jax.data.nersemble_files import find_sequences, find_sources
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.vhap import find_vhap

_READERS: Mapping[str, Callable[[Path, CaptureConfig], ImageSet]] = {
    "vhap": find_vhap,
    "nerfstudio": find_nerfstudio,
    "colmap": find_colmap,
    "diffusion-avatars": find_diffusion_avatars,
}
"""Of the layouts whose views are image files."""


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
    capture = open_located(root, name, cfg, progress=progress, decode=decode)
    return dataclasses.replace(capture, subject=subject)


def open_located(
    root: Path,
    name: str,
    cfg: CaptureConfig,
    *,
    progress: bool = True,
    decode: bool = True,
    need_driving: bool = True,
) -> Capture:
    """Opens the capture in the folder `root / name`, in whatever layout it is.

    Args:
      root: Holds the subjects.
      name: Of the subject's folder.
      cfg: What to use of it; its `layout` may say how it is laid out.
      progress: Whether to say on stderr what is done.
      decode: False to decode no more videos than are read from later; images are
        never read before they are asked for.
      need_driving: False if sequences may be without driving codes, as they are
        before they are tracked: all their frames are then timesteps.

    Returns:
      The capture; its `settings` say what is held out where `cfg` names what other
      layouts have.

    Raises:
      InputError: for the first thing that is wrong with the capture, or if its layout
        is not known.
    """
    layout = layout_of(root / name, cfg)
    if layout == "nersemble":
        return open_nersemble(
            root, name, cfg, progress=progress, decode=decode, need_driving=need_driving
        )
    found = _READERS[layout](root / name, cfg)
    return open_images(found, name, cfg, need_driving=need_driving)


def sequence_names(folder: Path, cfg: CaptureConfig) -> tuple[str, ...]:
    """The sequences of a capture that are used.

    Args:
      folder: The subject's.
      cfg: What to use of it.

    Raises:
      InputError: if the layout is not known, or its cameras cannot be read.
    """
    return _names(folder, cfg)[0]


def widest(folder: Path, cfg: CaptureConfig) -> int:
    """The width in pixels of a capture's images as they are: `cfg.width` may be that.

    Args:
      folder: The subject's.
      cfg: What to use of it; its width does not count.

    Raises:
      InputError: there is no image, or it cannot be read.
    """
    layout = layout_of(folder, cfg)
    if layout != "nersemble":
        views = _READERS[layout](folder, cfg).views
        return picture_header(next(iter(views.values())).path)[0][0]
    for sequence in sequence_names(folder, cfg):
        for path in find_sources(folder, sequence, "rgb").values():
            return probe(path, "rgb").width
    raise InputError(f"{folder} has no videos, images/cam_*.mp4 of a sequence.")


def sequences_to_track(folder: Path, cfg: CaptureConfig) -> tuple[str, ...]:
    """Lists the sequences whose codes the head tracker must make before training.

    These are the ones that lack the tracker's file, where that file is asked for or no
    sequence has any other. Codes of another tracker are never mixed with ours.

    Args:
      folder: The subject's folder.
      cfg: What to use of it.

    Raises:
      InputError: see `sequence_names`.
    """
    sequences, own = _names(folder, cfg)
    files = find_code_files(folder, sequences, cfg.cache_dir)
    others = {*own, *(name for found in files.values() for name in found)} - {TRACKED}
    if cfg.driving != TRACKED and (cfg.driving or others):
        return ()
    return tuple(s for s in sequences if TRACKED not in files[s])


def tracking_output(folder: Path, cfg: CaptureConfig) -> Path:
    """Where the head tracker must write what is lacking.

    Its files share one identity, which it takes from those that are there. So this is
    the capture itself if some lie there, else the cache: captures may be read-only.

    Args:
      folder: The subject's folder.
      cfg: What to use of it.

    Raises:
      InputError: see `sequence_names`.
    """
    in_capture = folder / "sequences"
    if any(
        (in_capture / s / "tracking" / f"{TRACKED}.npz").is_file()
        for s in sequence_names(folder, cfg)
    ):
        return in_capture
    return tracked_folder(folder, cfg.cache_dir)


def _names(folder: Path, cfg: CaptureConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sequences that are used, and the codes that the layout itself brings."""
    layout = layout_of(folder, cfg)
    if layout == "nersemble":
        return find_sequences(folder, cfg.ignore_sequences, Findings()), ()
    found = _READERS[layout](folder, cfg)
    return used_sequences(found, cfg.ignore_sequences), tuple(found.codes)
