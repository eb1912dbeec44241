"""Makes a capture of a set of images: what of it is used, and by which codes."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from npga_jax.core import InputError
from npga_jax.data import video_cache
from npga_jax.data.capture import Timestep, match_sequences
from npga_jax.data.code_files import choose_code_files, find_code_files, load_tracks
from npga_jax.data.driving import DrivingFile
from npga_jax.data.findings import Findings, count_things
from npga_jax.data.image_capture import ImageCapture
from npga_jax.data.image_checks import (
    all_have_mattes,
    check_files,
    check_world,
    choose_size,
    hold_out,
)
from npga_jax.data.image_set import ImageSet
from npga_jax.data.landmarks import find_landmarks
from npga_jax.data.location import prepared_folder
from npga_jax.data.made_files import made_strides, report_unmade
from npga_jax.data.nersemble_files import find_clouds, find_sources
from npga_jax.data.settings import CaptureConfig, say_wrong_settings


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
    for sequence in sequences:
        if not used[sequence]:
            raise InputError(
                f"no frame of {sequence} in {found.folder} is left: cameras have "
                f"{len(frames[sequence])} frames in common, of which "
                f"--capture.frame-stride {stride} takes none. Expected a multiple of "
                f"{found.spacing}, or 0; or leave cameras that lack images out with "
                "--capture.ignore-cameras."
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
    if not cfg.mattes:
        views = {key: view._replace(matte=None) for key, view in views.items()}
    check_files(views)
    size, views = choose_size(views, cfg)
    has_mattes = cfg.mattes and all_have_mattes(views, out)
    prepared = prepared_folder(found.folder, cfg.cache_dir)
    clouds = find_clouds(found.folder, sequences, out, prepared)
    maps = _label_maps(found, subject, sequences, cameras, size, cfg)
    report_unmade(
        {
            entry.source: entry.made
            for (sequence, _), entry in maps.items()
            if not all(map(entry.holds, used[sequence]))
        },
        "labels",
        stride,
        out,
    )
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
        landmark_paths=find_landmarks(sequences, found.folder, prepared),
        settings=cfg,
        views=views,
        tracks=codes.tracks,
        codes_name=codes.name,
        clouds=clouds,
        normal_sign=1,
        maps=maps,
        rows=_rows(found),
    )
    held_out = hold_out(found, capture, cfg, out)
    sign = check_world(capture, out)
    if out.problems:
        raise InputError(out.problems[0])
    return dataclasses.replace(
        capture,
        settings=held_out,
        normal_sign=sign,
        notes=tuple(out.notes),
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


def _rows(found: ImageSet) -> dict[tuple[str, int], int]:
    """Counts the frames of each sequence, whatever is used of them."""
    numbers: dict[str, set[int]] = {}
    for sequence, frame, _ in found.views:
        numbers.setdefault(sequence, set()).add(frame)
    return {(s, f): i for s, fs in numbers.items() for i, f in enumerate(sorted(fs))}


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
                    made=made_strides(source),
                )
    return maps
