"""Says what is in a capture and what is wrong with it and why, and draws a sheet."""

import collections
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from npga_jax.app import cli
from npga_jax.core import InputError
from npga_jax.data import (
    FILES,
    Camera,
    Capture,
    CaptureConfig,
    PointCloud,
    Survey,
    Timestep,
    capture_as_given,
    capture_from_survey,
    decode_all,
    layout_of,
    locate_subject,
    open_located,
    probe,
    sequences_to_track,
    survey_nersemble,
    video_cache,
)
from npga_jax.diagnosis import (
    Diagnosis,
    diagnose,
    diagnose_counts,
    diagnose_matte_sizes,
)
from npga_jax.io import write_png

_NUM_VIEWS = 4
_POINT_COLOR = np.array([0, 255, 90], np.float32)
_POINT_OPACITY = 0.75


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """Check a capture before training on it."""

    subject: str = "demo"
    """Participant id as the folder is called ("074"); "demo" is the packaged one."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    output: Path | None = None
    """Where contact_sheet.png goes; default: check_data/<subject>."""
    decode: bool = False
    """Also decode every video into the cache: finds those that are cut short."""
    capture: CaptureConfig = CaptureConfig()


def main(cfg: CheckConfig) -> None:
    root, name = locate_subject(cfg.subject, cfg.data_root)
    output = cfg.output or Path("check_data") / cfg.subject
    untracked = sequences_to_track(root / name, cfg.capture)
    if layout_of(root / name, cfg.capture) != "nersemble":
        # Other layouts are read as a whole: the first problem ends that.
        capture = open_located(root, name, cfg.capture, need_driving=not untracked)
        print_capture(capture, untracked)
        diagnoses = diagnose(capture)
        print_diagnoses(diagnoses)
        write_contact_sheet(capture, output)
        refuse_wrong(cfg.subject, 0, diagnoses)
        return
    survey = survey_nersemble(root, name, cfg.capture, need_driving=not untracked)
    if cfg.decode and not survey.problems:
        survey = decode_all(survey, root, cfg.capture)
    diagnoses = diagnose_survey(survey, cfg.capture)
    print_survey(survey, untracked)
    print_diagnoses(diagnoses)
    if not survey.problems:
        write_contact_sheet(capture_from_survey(survey), output)
    refuse_wrong(cfg.subject, len(survey.problems), diagnoses)


def print_diagnoses(diagnoses: Sequence[Diagnosis]) -> None:
    """Prints what was found, if anything."""
    if diagnoses:
        print("\nDIAGNOSES")
    for diagnosis in diagnoses:
        print(f"  - {diagnosis}")


def refuse_wrong(
    subject: str, num_problems: int, diagnoses: Sequence[Diagnosis]
) -> None:
    """Ends with an error where something must be mended."""
    sure = sum(d.confidence == "certain" for d in diagnoses)
    words = []
    if num_problems:
        words.append(f"{num_problems} problem{'s' if num_problems > 1 else ''}")
    if sure:
        words.append(f"{sure} certain diagnos{'es' if sure > 1 else 'is'}")
    if words:
        raise InputError(
            f"{' and '.join(words)} with subject {subject}, listed above, to be "
            "mended before training."
        )


def diagnose_survey(survey: Survey, cfg: CaptureConfig) -> list[Diagnosis]:
    """Looks for the causes of problems, and for what no problem shows.

    What cannot be read for it becomes a problem of the survey.
    """
    counts = {key: c.num_frames for key, c in survey.contents.items()}
    found = diagnose_counts(counts, {kind: FILES[kind][0] for kind in FILES})
    sizes = {}
    for (sequence, camera, kind), entry in survey.entries.items():
        # All of the first sequence and one of each other: those were made alike.
        if kind == "alpha" and (
            sequence == survey.sequences[0] or camera == survey.cameras[0]
        ):
            info = survey.attempt(probe, entry.source, kind)
            if info:
                sizes[f"of {camera} in {sequence}"] = (info.width, info.height)
    found += diagnose_matte_sizes(survey.video_size, sizes)
    capture = capture_as_given(survey)
    if capture:
        capture = dataclasses.replace(capture, settings=cfg)
        found += survey.attempt(diagnose, capture) or []
    return found


def write_contact_sheet(capture: Capture, output: Path) -> None:
    """Draws and writes contact_sheet.png, and says so."""
    sheet = draw_contact_sheet(capture)
    if sheet is None:
        print("\nno point cloud for any frame that is used: no contact sheet")
        return
    path = output / "contact_sheet.png"
    write_png(path, np.asarray(sheet))
    print(f"\nwrote {path}: look whether the points lie on the head")


def print_capture(capture: Capture, untracked: Collection[str] = ()) -> None:
    """Prints what was found in a capture that is opened already.

    Args:
      capture: It.
      untracked: Sequences that training would have tracked.
    """
    print(f"subject      {capture.subject} in {capture.root}")
    print(f"cameras      {len(capture.cameras)}: {', '.join(capture.cameras)}")
    print(
        f"images       used at {capture.width}x{capture.height}, {capture.fps:g} a "
        f"second, {'with' if capture.has_mattes else 'without'} mattes"
    )
    if capture.expr_dim:
        print(
            f"codes        {capture.expr_dim} of model '{capture.driving_model}' "
            f"(--capture.driving {capture.driving_name})"
        )
    print_untracked(untracked)
    held_out = capture.settings
    print(
        f"held out     {held_out.held_out_sequence or 'no sequence'}, camera "
        f"{held_out.held_out_camera}"
    )
    print(f"sequences    {len(capture.sequences)}")
    print(f"  {'name':<32}{'frames':>7}{'codes':>7}{'points':>7}{'labels':>8}")
    for sequence in capture.sequences:
        own = [t for t in capture.timesteps if t.sequence == sequence]
        labels = sum(capture.has_labels(t, c) for t in own for c in capture.cameras)
        print(
            f"  {sequence:<32}{len(own):>7}"
            f"{sum(capture.has_driving(t) for t in own):>7}"
            f"{sum(capture.has_points(t) for t in own):>7}{labels:>8}"
        )
    if capture.notes:
        print("\nnotes")
        for note in capture.notes:
            print(f"  - {note}")


def print_untracked(untracked: Collection[str]) -> None:
    if untracked:
        print(
            f"no codes     in {', '.join(untracked)}: experiments/train.py tracks the "
            "head there first, as experiments/track.py does"
        )


def print_survey(survey: Survey, untracked: Collection[str] = ()) -> None:
    """Prints what was found, what is missing, and what is wrong.

    Args:
      survey: What was found.
      untracked: Sequences that training would have tracked.
    """
    print(f"subject      {survey.subject} in {survey.folder}")
    print(f"cameras      {len(survey.cameras)}: {', '.join(survey.cameras)}")
    if survey.stride and survey.video_fps:
        width, height = survey.video_size
        print(
            f"videos       {width}x{height} at {survey.video_fps:g} fps, used at "
            f"{survey.size[0]}x{survey.size[1]}, frame stride {survey.stride}"
        )
    print(f"colours      {'' if survey.is_color_calibrated else 'not '}calibrated")
    track = next(iter(survey.tracks.values()), None)
    if track:
        print(f"codes        {len(track.expr_names)} of model '{track.model}'")
    print_untracked(untracked)
    used = collections.Counter(t.sequence for t in survey.timesteps)
    kinds = collections.Counter((s, kind) for s, _, kind in survey.entries)
    clouds = collections.Counter(
        t.sequence
        for t in survey.timesteps
        if (t.sequence, t.frame_id) in survey.clouds
    )
    print(f"sequences    {len(survey.sequences)}, {sum(used.values())} frames used")
    print(
        f"  {'name':<32}{'frames':>7}{'codes':>7}{'points':>7}{'rgb':>5}{'alpha':>7}"
        f"{'labels':>8}  driving files (* is used)"
    )
    for sequence in survey.sequences:
        track = survey.tracks.get(sequence)
        print(
            f"  {sequence:<32}{used[sequence]:>7}"
            f"{len(track.frame_id) if track else 0:>7}"
            f"{clouds[sequence]:>7}{kinds[sequence, 'rgb']:>5}"
            f"{kinds[sequence, 'alpha']:>7}{kinds[sequence, 'labels']:>8}  "
            f"{list_driving(survey, sequence)}"
        )
    need = sum(
        video_cache.bytes_needed(survey.entries[key], survey.num_frames(key))
        for key in survey.missing
    )
    if survey.entries:
        have = len(survey.entries) - len(survey.missing)
        place = next(iter(survey.entries.values())).array.parent.parent
        print(
            f"cache        {have} of {len(survey.entries)} files decoded; the rest "
            f"takes {video_cache.format_bytes(need)} in {place}"
        )
    for title, sentences in (("notes", survey.notes), ("PROBLEMS", survey.problems)):
        if sentences:
            print(f"\n{title}")
            for sentence in sentences:
                print(f"  - {sentence}")


def list_driving(survey: Survey, sequence: str) -> str:
    """Names a sequence's driving files, like "blendshapes*, nphm (cache)"."""
    used = survey.driving_paths.get(sequence)
    words = []
    for name, path in sorted(survey.code_files.get(sequence, {}).items()):
        where = "" if path.is_relative_to(survey.folder) else " (cache)"
        words.append(f"{name}{'*' if path == used else ''}{where}")
    return ", ".join(words) or "none"


def draw_contact_sheet(capture: Capture) -> Image.Image | None:
    """Draws the point cloud of a neutral frame into cameras spread over the arc.

    Each camera's image is shown as it is and, to its right, with the points.
    """
    timestep = find_neutral(capture)
    points = capture.points(timestep) if timestep else None
    if timestep is None or points is None:
        return None
    tiles = []
    for camera_id in spread_cameras(capture, timestep):
        camera = capture.camera(timestep, camera_id)
        image = capture.rgb(timestep, camera_id)
        drawn, share = draw_points(image, points, camera)
        label = f"{camera_id}  {share:.0%} of points in the image"
        tiles.append(label_image(np.concatenate([image, drawn], axis=1), label))
    rows = [np.concatenate(tiles[i : i + 2], axis=1) for i in range(0, len(tiles), 2)]
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(r, ((0, 0), (0, widest - r.shape[1]), (0, 0))) for r in rows]
    title = f"{capture.subject}  {timestep.sequence}  frame {timestep.frame_id}"
    return Image.fromarray(label_image(np.concatenate(rows), title, y=16))


def find_neutral(capture: Capture) -> Timestep | None:
    """The frame with the smallest expression code among those with points.

    Without codes it is the first one.
    """
    with_points = [t for t in capture.timesteps if capture.has_points(t)]
    coded = [t for t in with_points if capture.has_driving(t)]
    if not coded:
        return next(iter(with_points), None)
    return min(coded, key=lambda t: float(np.linalg.norm(capture.driving(t).expr)))


def spread_cameras(capture: Capture, timestep: Timestep) -> list[str]:
    """Picks cameras from one end of the arc to the other."""

    def place_on_arc(camera_id: str) -> float:
        matrix = capture.camera(timestep, camera_id).world2cam
        return float((-matrix[:3, :3].T @ matrix[:3, 3])[0])

    ordered = sorted(capture.cameras, key=place_on_arc)
    count = min(_NUM_VIEWS, len(ordered))
    return [
        ordered[i] for i in np.linspace(0, len(ordered) - 1, count).round().astype(int)
    ]


def draw_points(
    image: np.ndarray, points: PointCloud, camera: Camera
) -> tuple[np.ndarray, float]:
    """Blends the points that face the camera into an image.

    Args:
      image: [H, W, 3] uint8.
      points: P points; without normals, all count as facing the camera.
      camera: The camera of the image.

    Returns:
      [H, W, 3] uint8, and the share of all points that is inside the image.
    """
    xyz = points.xyz @ camera.world2cam[:3, :3].T + camera.world2cam[:3, 3]
    faces_camera = np.ones(len(xyz), bool)
    if points.normals is not None:
        normals = points.normals @ camera.world2cam[:3, :3].T
        faces_camera = (normals * xyz).sum(-1) < 0
    xy = (xyz @ camera.K.T)[:, :2] / np.maximum(xyz[:, 2:], 1e-9)
    column, row = np.floor(xy).astype(np.int64).T
    is_inside = (
        (xyz[:, 2] > 0)
        & (column >= 0)
        & (column < camera.width)
        & (row >= 0)
        & (row < camera.height)
    )
    shown = is_inside & faces_camera
    out = image.astype(np.float32)
    at = row[shown], column[shown]
    out[at] = (1 - _POINT_OPACITY) * out[at] + _POINT_OPACITY * _POINT_COLOR
    return out.astype(np.uint8), float(is_inside.mean())


def label_image(image: np.ndarray, text: str, y: int = 2) -> np.ndarray:
    """Writes a line into the upper left corner."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(draw.textbbox((4, y), text), fill=(255, 255, 255))
    draw.text((4, y), text, fill=(0, 0, 0))
    return np.asarray(canvas)


if __name__ == "__main__":
    cli.run(main, CheckConfig)
