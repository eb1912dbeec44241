"""Looks through a capture in the NeRSemble layout without decoding a video.

All that is wrong is collected, so that a person can mend it in one go.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from npga_jax.core import InputError
from npga_jax.data import decoding as video
from npga_jax.data import video_cache
from npga_jax.data.calibration import (
    Calibration,
    load_calibration,
    load_color_calibration,
    make_camera,
)
from npga_jax.data.capture import Camera, Timestep
from npga_jax.data.code_files import (
    choose_code_files,
    find_code_files,
    load_tracks,
)
from npga_jax.data.driving import DrivingFile
from npga_jax.data.findings import Findings, count_things
from npga_jax.data.location import prepared_folder
from npga_jax.data.made_files import ALL_FRAMES, made_strides, report_unmade
from npga_jax.data.nersemble_files import (
    FILES,
    find_cameras,
    find_clouds,
    find_sequences,
    find_sources,
    report_lacking,
)
from npga_jax.data.pcd import read_pcd, unused_fields
from npga_jax.data.settings import CaptureConfig, say_wrong_settings
from npga_jax.data.world import normal_sign, say_wrong_world

_TARGET_FPS = 24.0

EntryKey = tuple[str, str, video.Kind]
"""(sequence, camera, kind)."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Survey(Findings):
    """What was found; fields keep their defaults behind a problem that hides them."""

    subject: str
    folder: Path
    need_driving: bool = True  # Whether a sequence without codes is a problem.
    calibration: Calibration | None = None
    is_color_calibrated: bool = False
    sequences: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    video_size: tuple[int, int] = (0, 0)  # (W, H)
    size: tuple[int, int] = (0, 0)  # (W, H) of the images that are used
    video_fps: float = 0.0
    stride: int = 1
    views: dict[str, Camera] = dataclasses.field(default_factory=dict)
    code_files: dict[str, dict[str, Path]] = dataclasses.field(default_factory=dict)
    driving_paths: dict[str, Path] = dataclasses.field(default_factory=dict)  # used
    tracks: dict[str, DrivingFile] = dataclasses.field(default_factory=dict)
    entries: dict[EntryKey, video_cache.Entry] = dataclasses.field(default_factory=dict)
    contents: dict[EntryKey, video.Contents] = dataclasses.field(default_factory=dict)
    missing: list[EntryKey] = dataclasses.field(default_factory=list)  # not in cache
    timesteps: tuple[Timestep, ...] = ()
    clouds: dict[tuple[str, int], Path] = dataclasses.field(default_factory=dict)
    normal_sign: int = 1  # -1 where normals of clouds point inward

    def num_frames(self, key: EntryKey) -> int:
        """Frames of a file, as far as known; else 0."""
        return self.contents[key].num_frames if key in self.contents else 0


def survey_nersemble(
    root: Path, subject: str, cfg: CaptureConfig, *, need_driving: bool = True
) -> Survey:
    """Looks through the folder `root / subject`.

    Opens headers only, and those only of files that are not in the cache yet.

    Args:
      root: Holds the subjects (or `nvs/` with the subjects).
      subject: Name of the subject's folder.
      cfg: What to use of it.
      need_driving: Whether a sequence without driving codes is a problem; else all
        its frames are used.

    Returns:
      What was found, with all problems in it; never raises for what is on disk.
    """
    folder = root / subject
    if not folder.is_dir() and (root / "nvs" / subject).is_dir():
        folder = root / "nvs" / subject
    survey = Survey(subject=subject, folder=folder.resolve(), need_driving=need_driving)
    if wrong := say_wrong_settings(cfg):
        survey.problems.append(wrong)
        return survey
    survey.sequences = find_sequences(survey.folder, cfg.ignore_sequences, survey)
    survey.calibration = survey.attempt(
        load_calibration, survey.folder / "calibration" / "camera_params.json"
    )
    calibrated = tuple(survey.calibration.world2cam) if survey.calibration else ()
    survey.cameras = find_cameras(
        survey.folder, survey.sequences, calibrated, cfg.ignore_cameras, survey
    )
    survey.code_files = find_code_files(survey.folder, survey.sequences, cfg.cache_dir)
    survey.driving_paths = choose_code_files(
        survey.folder, survey.code_files, cfg, survey, need_driving=need_driving
    )
    survey.tracks = load_tracks(survey.driving_paths, survey, need_driving=need_driving)
    if not survey.cameras or not _probe_first_video(survey, cfg):
        return survey
    for camera_id in survey.cameras if survey.calibration else ():
        camera = survey.attempt(
            make_camera, survey.calibration, camera_id, survey.video_size, survey.size
        )
        if camera:
            survey.views[camera_id] = camera
    prepared = prepared_folder(survey.folder, cfg.cache_dir)
    survey.clouds = find_clouds(survey.folder, survey.sequences, survey, prepared)
    _list_entries(survey, cfg)
    _measure_entries(survey)
    _find_timesteps(survey)
    _check_made(survey)
    _check_world(survey)
    return survey


def _probe_first_video(survey: Survey, cfg: CaptureConfig) -> bool:
    """Finds out the resolution and the stride; False if that is impossible."""
    info = None
    for sequence in survey.sequences:
        for path in find_sources(survey.folder, sequence, "rgb").values():
            try:
                info = info or video.probe(path, "rgb")
            except InputError:
                continue  # It is reported when its turn comes.
    if info is None:
        survey.problems.append(
            f"none of the videos in {survey.folder} can be opened: they are cut short "
            "or damaged. Copy or download them again."
        )
        return False
    survey.video_size, survey.video_fps = (info.width, info.height), info.fps
    if cfg.width > info.width:
        survey.problems.append(
            f"--capture.width {cfg.width} is more than the videos have "
            f"({info.width}x{info.height}). Pass --capture.width {info.width} or less."
        )
        return False
    if not info.fps:
        survey.problems.append(
            f"the videos in {survey.folder} do not state their frame rate. Write them "
            "again with one."
        )
        return False
    survey.stride = cfg.frame_stride or max(1, round(info.fps / _TARGET_FPS))
    survey.size = (cfg.width, max(1, round(info.height * cfg.width / info.width)))
    return True


def _list_entries(survey: Survey, cfg: CaptureConfig) -> None:
    """Lists the files to decode and where their frames go."""
    path = survey.folder / "calibration" / "color_calibration.json"
    colors = survey.attempt(load_color_calibration, path) or {}
    survey.is_color_calibrated = bool(colors)
    uncalibrated = [c for c in survey.cameras if c not in colors]
    if colors and uncalibrated:
        survey.problems.append(
            f"{path} lacks {', '.join(uncalibrated)}. Complete it, or pass "
            f"--capture.ignore-cameras {' '.join(uncalibrated)}."
        )
    cache = video_cache.cache_folder(
        cfg.cache_dir, survey.subject, survey.folder, survey.size[0], survey.stride
    )
    prepared = prepared_folder(survey.folder, cfg.cache_dir)
    for kind in FILES:
        if kind == "alpha" and not cfg.mattes:
            continue
        lacking: dict[str, list[str]] = {}
        for sequence in survey.sequences:
            sources = find_sources(survey.folder, sequence, kind, prepared)
            lacking[sequence] = [c for c in survey.cameras if c not in sources]
            for camera in [c for c in survey.cameras if c in sources]:
                survey.entries[sequence, camera, kind] = video_cache.Entry(
                    source=sources[camera],
                    kind=kind,
                    array=cache / sequence / f"cam_{camera}.{kind}.npy",
                    width=survey.size[0],
                    height=survey.size[1],
                    stride=survey.stride,
                    ccm=colors.get(camera) if kind == "rgb" else None,
                    made=(
                        ALL_FRAMES if kind == "rgb" else made_strides(sources[camera])
                    ),
                )
        report_lacking(kind, lacking, len(survey.cameras), survey)


def _measure_entries(survey: Survey) -> None:
    """Finds out what is in the files: from the cache, or else from their headers."""
    for key, entry in survey.entries.items():
        contents = video_cache.cached_contents(entry)
        if contents is None:
            survey.missing.append(key)
            contents = survey.attempt(_stated_contents, entry, survey.video_size)
        if contents is None:
            continue
        if contents.num_frames:
            survey.contents[key] = contents
        if contents.matte_problem:
            survey.problems.append(
                f"{entry.source} is no matte: {contents.matte_problem}; expected 255 "
                "on the person and 0 elsewhere. Write it again, or pass "
                "--capture.no-mattes to use none at all."
            )


def _stated_contents(
    entry: video_cache.Entry, video_size: tuple[int, int]
) -> video.Contents:
    """What a source states to hold.

    Raises:
      InputError: if it cannot be opened, or is a video of another size.
    """
    info = video.probe(entry.source, entry.kind)
    if entry.kind == "rgb" and (info.width, info.height) != video_size:
        raise InputError(
            f"{entry.source} is {info.width}x{info.height}, but other videos are "
            f"{video_size[0]}x{video_size[1]}. Use videos of one size."
        )
    return info.contents


def _find_timesteps(survey: Survey) -> None:
    """Keeps the frames that have both images and, if there is a track, a code."""
    timesteps: list[Timestep] = []
    for sequence in survey.sequences:
        contents = {k: c for k, c in survey.contents.items() if k[0] == sequence}
        if not contents or (survey.need_driving and sequence not in survey.tracks):
            continue
        num_frames = _common_length(survey, contents)
        missing = _missing_moments(survey, contents)
        frames = [f for f in range(0, num_frames, survey.stride) if f not in missing]
        for frame_id in _frames_with_codes(survey, sequence, frames, num_frames):
            timesteps.append(Timestep(len(timesteps), sequence, frame_id))
    survey.timesteps = tuple(timesteps)


def _frames_with_codes(
    survey: Survey, sequence: str, frames: Sequence[int], num_frames: int
) -> Sequence[int]:
    """Those frames of a sequence that its codes are for; all if it has no codes."""
    if sequence not in survey.tracks:
        return frames
    coded = set(survey.tracks[sequence].frame_id.tolist())
    kept = [f for f in frames if f in coded]
    uncoded = [f for f in frames if f not in coded]
    if not kept:
        survey.problems.append(
            f"no frame of {sequence} that is used (every frame below {num_frames} "
            f"that is a multiple of {survey.stride}) has a driving code: its codes "
            f"are for frames {min(coded)} to {max(coded)}. Set "
            "--capture.frame-stride to match, or track the sequence again."
        )
    elif uncoded:
        survey.notes.append(
            f"{count_things(uncoded, 'frame')} of {sequence} (of {len(frames)}) "
            "without a driving code: left out."
        )
    if max(coded) > num_frames:
        survey.notes.append(
            f"The driving codes of {sequence} reach frame {max(coded)}, but its "
            f"videos have {num_frames} frames."
        )
    return kept


def _check_made(survey: Survey) -> None:
    """Compares the frames that are used with those that files were made for."""
    used: dict[str, list[int]] = {s: [] for s in survey.sequences}
    for timestep in survey.timesteps:
        used[timestep.sequence].append(timestep.frame_id)
    for kind in FILES:
        unmade = {
            entry.source: entry.made
            for (sequence, _, of), entry in survey.entries.items()
            if of == kind and not all(map(entry.holds, used[sequence]))
        }
        report_unmade(unmade, kind, survey.stride, survey)


def _check_world(survey: Survey) -> None:
    """Compares cameras, heads and the first cloud that is used."""
    frames = ((t.sequence, t.frame_id) for t in survey.timesteps)
    path = next((survey.clouds[f] for f in frames if f in survey.clouds), None)
    cameras = tuple(survey.views.values())
    cloud = survey.attempt(read_pcd, path) if path else None
    poses = [track.world_from_head[:, :3, 3] for track in survey.tracks.values()]
    wrong = say_wrong_world(cameras, cloud, np.concatenate(poses or [np.empty((0, 3))]))
    if wrong:
        survey.problems.append(f"{survey.folder}: {wrong}")
    if cloud is None or path is None:
        if survey.clouds and survey.timesteps and path is None:
            survey.notes.append(
                f"None of the {count_things(survey.clouds, 'point cloud')} is of a "
                "frame that is used."
            )
        return
    unused = survey.attempt(unused_fields, path)
    if unused:
        survey.notes.append(
            f"Fields of the point clouds that are not used: {', '.join(unused)}."
        )
    survey.normal_sign = normal_sign(cameras, cloud)
    if survey.normal_sign != 1:
        what = (
            "point inward: they are turned"
            if survey.normal_sign < 0
            else "point inward as often as outward: they are not used"
        )
        survey.notes.append(f"Normals of the point clouds (see {path}) {what}.")


def _common_length(survey: Survey, contents: dict[EntryKey, video.Contents]) -> int:
    """Frames that all files of a sequence have.

    They may differ by one at the end; but where time stamps say that a file lacks
    frames or begins later, what is one shorter may lack another frame.
    """
    counts = {key: c.num_frames for key, c in contents.items()}
    short = min(counts, key=counts.__getitem__)
    long = max(counts, key=counts.__getitem__)
    late = max(contents, key=lambda key: contents[key].start)
    begins = min((c.start for k, c in contents.items() if k[2] != "labels"), default=0)
    is_late = (contents[late].start - begins) * survey.video_fps > 0.5
    is_uneven = is_late or any(c.missing for c in contents.values())
    if counts[long] - counts[short] > (0 if is_uneven else 1):
        why = "they must not differ by more than 1"
        if is_late:
            seconds = contents[late].start - begins
            why = f"{survey.entries[late].source} begins {seconds:.3f} s after others"
        elif is_uneven:
            why = "with time stamps that leave out frames, all must be of one length"
        survey.problems.append(
            f"{survey.entries[short].source} has {counts[short]} frames, but "
            f"{survey.entries[long].source} has {counts[long]}: {why}. Make or "
            "download the shorter one again."
        )
    return counts[short]


def _missing_moments(
    survey: Survey, contents: dict[EntryKey, video.Contents]
) -> set[int]:
    """The frames that a file of a sequence lacks in between, by its time stamps."""
    for (sequence, camera, kind), c in contents.items():
        lost = [m for m in c.missing if m % survey.stride == 0]
        if lost:
            survey.notes.append(
                f"{count_things(lost, 'frame')} of {sequence}, like {lost[0]}, "
                f"{'is' if len(lost) == 1 else 'are'} missing in "
                f"{FILES[kind][0]} of camera {camera} by its time stamps: left out."
            )
    return {m for c in contents.values() for m in c.missing}
