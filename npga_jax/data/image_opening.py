"""Makes a capture of a set of images: what of it is used, and by which codes."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npga_jax.core import InputError
from npga_jax.data import video_cache
from npga_jax.data.capture import Capture, Timestep, match_sequences
from npga_jax.data.code_files import choose_code_files, find_code_files, load_tracks
from npga_jax.data.driving import DrivingFile
from npga_jax.data.findings import Findings, count_things
from npga_jax.data.image_capture import ImageCapture, is_same_aspect, picture_header
from npga_jax.data.image_set import ImageSet, ImageView, ViewKey
from npga_jax.data.location import prepared_folder
from npga_jax.data.nersemble_files import find_clouds, find_sources
from npga_jax.data.pcd import read_pcd
from npga_jax.data.settings import CaptureConfig, say_wrong_settings
from npga_jax.data.world import normal_sign, say_wrong_world

_USUAL = CaptureConfig()


class _Codes(NamedTuple):
    tracks: dict[str, DrivingFile]
    name: str  # "" for none, or where names differ
    paths: dict[str, Path]


def used_sequences(found: ImageSet, ignored: Sequence[str]) -> tuple[str, ...]:
    """Sequences of a set of images, less the ignored (names or prefixes)."""
    left_out = {s for i in ignored for s in match_sequences(found.sequences, i)}
    return tuple(s for s in found.sequences if s not in left_out)


def open_images(
    found: ImageSet, subject: str, cfg: CaptureConfig, *, need_driving: bool = True
) -> ImageCapture:
    """Makes a capture of what a reader has found.

    Args:
      found: All images.
      subject: Its name.
      cfg: What to use of it.
      need_driving: False if sequences may be without driving codes.

    Returns:
      The capture; its `settings` are `cfg` with what is held out in this layout.

    Raises:
      InputError: for the first thing that is wrong with it.
    """
    out = Findings(notes=list(found.notes))
    if wrong := say_wrong_settings(cfg):
        raise InputError(wrong)
    sequences, cameras = _choose_names(found, cfg, out)
    frames = _whole_frames(found, sequences, cameras, out)
    stride = cfg.frame_stride or found.spacing
    used = {s: [f for f in frames[s] if f % stride == 0] for s in sequences}
    if not any(used.values()):
        raise InputError(
            f"no frame of {found.folder} is left with --capture.frame-stride {stride}: "
            f"expected a stride that is a multiple of {found.spacing}, or 0."
        )
    codes = _read_codes(found, used, cfg, out, need_driving=need_driving)
    if need_driving:
        used = {s: _coded(s, used[s], codes.tracks.get(s), out) for s in sequences}
    timesteps: list[Timestep] = []
    for sequence, numbers in used.items():
        for frame in numbers:
            timesteps.append(Timestep(len(timesteps), sequence, frame))
    views = {
        (t.sequence, t.frame_id, c): found.views[t.sequence, t.frame_id, c]
        for t in timesteps
        for c in cameras
    }
    _check_files(views)
    size, views = _choose_size(views, cfg)
    has_mattes = cfg.mattes and _has_mattes(views, out)
    prepared = prepared_folder(found.folder, cfg.cache_dir)
    clouds = find_clouds(found.folder, sequences, out, prepared)
    capture = ImageCapture(
        subject=subject,
        root=found.folder,
        fps=found.fps / stride,
        frame_stride=stride,
        width=size[0],
        height=size[1],
        sequences=sequences,
        cameras=cameras,
        timesteps=tuple(timesteps),
        expr_names=next((t.expr_names for t in codes.tracks.values()), ()),
        driving_model=next((t.model for t in codes.tracks.values()), ""),
        has_mattes=has_mattes,
        driving_paths=codes.paths,
        settings=cfg,
        views=views,
        tracks=codes.tracks,
        codes_name=codes.name,
        clouds=clouds,
        normal_sign=1,
        maps=_label_maps(found, subject, sequences, cameras, size, cfg),
        rows={(s, f): i for s in sequences for i, f in enumerate(frames[s])},
    )
    held_out = _hold_out(found, capture, cfg, out)
    sign = _check_world(capture, out)
    if out.problems:
        raise InputError(out.problems[0])
    return dataclasses.replace(
        capture, settings=held_out, normal_sign=sign, notes=tuple(out.notes)
    )


def _choose_names(
    found: ImageSet, cfg: CaptureConfig, out: Findings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sequences and cameras that are used."""
    for prefix in cfg.ignore_sequences:
        if not match_sequences(found.sequences, prefix):
            out.notes.append(f"There is no sequence '{prefix}' to ignore.")
    for serial in cfg.ignore_cameras:
        if serial not in found.cameras:
            out.notes.append(f"There is no camera '{serial}' to ignore.")
    sequences = used_sequences(found, cfg.ignore_sequences)
    cameras = tuple(c for c in found.cameras if c not in cfg.ignore_cameras)
    if not sequences or not cameras:
        what = "camera" if sequences else "sequence"
        raise InputError(
            f"no {what} of {found.folder} is left: all that there are "
            f"({', '.join(getattr(found, what + 's')) or 'none'}) are ignored."
        )
    return sequences, cameras


def _whole_frames(
    found: ImageSet, sequences: Sequence[str], cameras: Sequence[str], out: Findings
) -> dict[str, list[int]]:
    """Frames of each sequence, ascending, that all cameras see."""
    seen: dict[str, Counter[int]] = {s: Counter() for s in sequences}
    has = Counter[tuple[str, str]]()
    for sequence, frame, camera in found.views:
        if sequence in seen and camera in cameras:
            seen[sequence][frame] += 1
            has[sequence, camera] += 1
    whole = {}
    for sequence in sequences:
        lacking = [c for c in cameras if not has[sequence, c]]
        if lacking:
            raise InputError(
                f"camera {lacking[0]} has no image in {sequence} of {found.folder} but "
                "has some in other sequences. Supply them, or pass "
                f"--capture.ignore-cameras {' '.join(lacking)} or "
                f"--capture.ignore-sequences {sequence}."
            )
        numbers = sorted(seen[sequence])
        whole[sequence] = [f for f in numbers if seen[sequence][f] == len(cameras)]
        partly = sorted(set(numbers) - set(whole[sequence]))
        if partly:
            out.notes.append(
                f"{count_things(partly, 'frame')} of {sequence}, like {partly[0]}, "
                "lack images of some cameras: left out."
            )
    return whole


def _read_codes(
    found: ImageSet,
    frames: Mapping[str, Sequence[int]],
    cfg: CaptureConfig,
    out: Findings,
    *,
    need_driving: bool,
) -> _Codes:
    """The driving codes that are used: the layout's own, or files beside them."""
    own = {name: codes.path for name, codes in found.codes.items()}
    files = find_code_files(found.folder, tuple(frames), cfg.cache_dir)
    files = {s: files[s] | own for s in frames}
    chosen = choose_code_files(found.folder, files, cfg, out, need_driving=need_driving)
    if out.problems:
        raise InputError(out.problems[0])
    names = {
        s: next(n for n, path in files[s].items() if path == chosen[s]) for s in chosen
    }
    paths = {s: chosen[s] for s, name in names.items() if name not in own}
    tracks = load_tracks(paths, out, need_driving=need_driving)
    for sequence, name in names.items():
        if name in own:
            tracks[sequence] = found.codes[name].read(sequence, frames[sequence])
    kinds = {(t.model, t.expr_names) for t in tracks.values()}
    if need_driving and len(kinds) > 1:
        raise InputError(
            f"the codes of {found.folder} are of several kinds: "
            f"{', '.join(f'{len(names)} of {model!r}' for model, names in kinds)}. "
            "Name one that all sequences have with --capture.driving NAME."
        )
    used = set(names.values())
    return _Codes(tracks, used.pop() if len(used) == 1 else "", paths)


def _coded(
    sequence: str, frames: Sequence[int], track: DrivingFile | None, out: Findings
) -> list[int]:
    """Frames that have a code."""
    coded = set() if track is None else set(track.frame_id.tolist())
    kept = [f for f in frames if f in coded]
    if len(kept) < len(frames):
        lacking = [f for f in frames if f not in coded]
        out.notes.append(
            f"{count_things(lacking, 'frame')} of {sequence} (of {len(frames)}) "
            "without a driving code: left out."
        )
    if not kept:
        raise InputError(
            f"no frame of {sequence} that is used has a driving code. Track the "
            f"sequence again, or pass --capture.ignore-sequences {sequence}."
        )
    return kept


def _check_files(views: Mapping[ViewKey, ImageView]) -> None:
    """Makes sure that all files are there, with one look into each folder."""
    folders: dict[Path, set[str]] = {}
    for what in ("path", "matte", "labels"):
        paths = [p for view in views.values() if (p := getattr(view, what)) is not None]
        for folder in {p.parent for p in paths} - folders.keys():
            there = folder.iterdir() if folder.is_dir() else ()
            folders[folder] = {p.name for p in there}
        missing = [p for p in paths if p.name not in folders[p.parent]]
        if missing:
            kind = {"path": "images", "matte": "mattes", "labels": "label maps"}[what]
            raise InputError(
                f"{len(missing)} of {len(paths)} {kind} are missing, like "
                f"{missing[0]}. Copy or export them again, or leave their sequences or "
                "cameras out with --capture.ignore-sequences or "
                "--capture.ignore-cameras."
            )


def _choose_size(
    views: Mapping[ViewKey, ImageView], cfg: CaptureConfig
) -> tuple[tuple[int, int], dict[ViewKey, ImageView]]:
    """The size (W, H) that images get; and the views, with mattes from alpha channels.

    The first image of each camera in each sequence is looked at.
    """
    firsts: dict[tuple[str, str], ImageView] = {}
    for (sequence, _, camera), view in views.items():
        firsts.setdefault((sequence, camera), view)
    headers = {view.path: picture_header(view.path) for view in firsts.values()}
    size = None
    for view in firsts.values():
        actual = headers[view.path][0]
        if not is_same_aspect(actual, view.size):
            raise InputError(
                f"{view.path} is {actual[0]}x{actual[1]}, but its camera is for "
                f"{view.size[0]}x{view.size[1]}: the aspect ratios differ. Write the "
                "images or the cameras again."
            )
        if cfg.width > actual[0]:
            raise InputError(
                f"--capture.width {cfg.width} is more than {view.path} has "
                f"({actual[0]}x{actual[1]}). Pass --capture.width {actual[0]} or less."
            )
        height = max(1, round(actual[1] * cfg.width / actual[0]))
        size = size or (cfg.width, height)
        if not is_same_aspect((cfg.width, height), size):
            raise InputError(
                f"{view.path} is {actual[0]}x{actual[1]}, unlike other images, which "
                f"are {size[0]}x{size[1]} when they are {cfg.width} wide. Use images "
                "of one shape, or leave its camera out with --capture.ignore-cameras."
            )
    assert size is not None, "no views"
    has_mattes = any(view.matte for view in firsts.values())
    if not has_mattes and all(alpha for _, alpha in headers.values()):
        return size, {k: v._replace(matte=v.path) for k, v in views.items()}
    return size, dict(views)


def _has_mattes(views: Mapping[ViewKey, ImageView], out: Findings) -> bool:
    """Whether all images have mattes; some but not all is an error."""
    without = [key for key, view in views.items() if view.matte is None]
    if not without:
        return True
    if len(without) < len(views):
        sequence, frame, camera = without[0]
        raise InputError(
            f"{len(without)} of {len(views)} images have no matte, like camera "
            f"{camera} at frame {frame} of {sequence}: the background would count as "
            "part of the person there. Supply them, or pass --capture.no-mattes to "
            "use none at all."
        )
    out.notes.append(
        "There are no mattes: the background counts as part of the person."
    )
    return False


def _label_maps(
    found: ImageSet,
    subject: str,
    sequences: Sequence[str],
    cameras: Collection[str],
    size: tuple[int, int],
    cfg: CaptureConfig,
) -> dict[tuple[str, str], video_cache.Entry]:
    """Label maps that were made of this capture, and where they are unpacked to."""
    prepared = prepared_folder(found.folder, cfg.cache_dir)
    place = video_cache.cache_folder(cfg.cache_dir, subject, found.folder, size[0], 1)
    maps = {}
    for sequence in sequences:
        for camera, source in find_sources(prepared, sequence, "labels").items():
            if camera in cameras:
                maps[sequence, camera] = video_cache.Entry(
                    source=source,
                    kind="labels",
                    array=place / sequence / f"cam_{camera}.labels.npy",
                    width=size[0],
                    height=size[1],
                    stride=1,
                )
    return maps


def _hold_out(
    found: ImageSet, capture: Capture, cfg: CaptureConfig, out: Findings
) -> CaptureConfig:
    """Settings with what is held out where the usual names are not there."""
    sequence, camera = cfg.held_out_sequence, cfg.held_out_camera
    if sequence == _USUAL.held_out_sequence and not match_sequences(
        capture.sequences, sequence
    ):
        own = found.held_out_sequence
        sequence = own if own in capture.sequences else capture.sequences[-1]
        if len(capture.sequences) == 1:
            sequence = ""
            out.notes.append(
                "There is one sequence: none is held out, so that expressions are not "
                "tested."
            )
        else:
            out.notes.append(
                f"Held out is {sequence} (--capture.held-out-sequence takes another)."
            )
    if camera == _USUAL.held_out_camera and camera not in capture.cameras:
        own = found.held_out_camera
        camera = own if own in capture.cameras else _middle_camera(capture)
        out.notes.append(
            f"Held out is camera {camera} (--capture.held-out-camera takes another)."
        )
    return dataclasses.replace(cfg, held_out_sequence=sequence, held_out_camera=camera)


def _middle_camera(capture: Capture) -> str:
    """The camera whose optical axis is nearest to the mean of all."""
    first = capture.timesteps[0]
    axes = np.stack(
        [capture.camera(first, c).world2cam[2, :3] for c in capture.cameras]
    )
    return capture.cameras[int(np.argmax(axes @ axes.mean(axis=0)))]


def _check_world(capture: ImageCapture, out: Findings) -> int:
    """Compares cameras, heads and the first cloud that is used: the sign of normals."""
    if not capture.timesteps:
        return 1
    first = next((t for t in capture.timesteps if capture.has_points(t)), None)
    cloud = (
        None
        if first is None
        else read_pcd(capture.clouds[first.sequence, first.frame_id])
    )
    first = first or capture.timesteps[0]
    cameras = [capture.camera(first, c) for c in capture.cameras]
    heads = np.empty((0, 3))
    if capture.has_driving(first):
        heads = capture.tracks[first.sequence].world_from_head[:, :3, 3]
    wrong = say_wrong_world(
        cameras, cloud, heads, poses="the cameras' poses (--capture.world-unit)"
    )
    if wrong:
        out.problems.append(f"{capture.root}: {wrong}")
    if cloud is None:
        return 1
    sign = normal_sign(cameras, cloud)
    if sign != 1:
        what = "are turned" if sign < 0 else "are not used: half of them point inward"
        out.notes.append(f"Normals of the point clouds {what}.")
    return sign
