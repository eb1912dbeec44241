def source_path(folder: Path, sequence: str, camera_id: str, kind: video.Kind) -> Path:
    """Where a camera's video or label maps are."""
    where, suffix = _FILES[kind]
    return folder / "sequences" / sequence / where / f"cam_{camera_id}{suffix}"


def find_sequences(survey: Survey, ignored: Iterable[str]) -> tuple[str, ...]:
    parent = survey.folder / "sequences"
    folders = (
        sorted(p for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
    )
    found = []
    for folder in folders:
        if folder.name == _BACKGROUND:
            continue
        if not _SEQUENCE_NAME.fullmatch(folder.name):
            survey.notes.append(f"{folder.name} is not a NeRSemble sequence: ignored.")
        elif not any((folder / "images").glob("cam_*.mp4")):
            survey.notes.append(f"{folder.name} has no images/cam_*.mp4: ignored.")
        else:
            found.append(folder.name)
    for prefix in ignored:
        left_out = match_sequences(tuple(found), prefix)
        if not left_out:
            survey.notes.append(f"There is no sequence '{prefix}' to ignore.")
        found = [s for s in found if s not in left_out]
    if not found:
        survey.problems.append(
            f"there is no sequence with videos in {parent}. Expected folders such as "
            "EXP-5-mouth/images/cam_222200037.mp4."
        )
    return tuple(found)


def find_cameras(survey: Survey, ignored: tuple[str, ...]) -> tuple[str, ...]:
    """Lists cameras that are in every sequence, in the calibration's order."""
    present = {
        sequence: {
            path.stem.removeprefix("cam_")
            for path in (survey.folder / "sequences" / sequence / "images").glob(
                "cam_*.mp4"
            )
        }
        for sequence in survey.sequences
    }
    seen = set().union(*present.values())
    calibrated = tuple(survey.calibration.world2cam) if survey.calibration else ()
    for serial in ignored:
        if serial not in seen and serial not in calibrated:
            survey.notes.append(f"There is no camera '{serial}' to ignore.")
    listed = [*calibrated, *sorted(seen - set(calibrated))]
    cameras = [c for c in listed if c in seen and c not in ignored]
    unused = [c for c in listed if c not in seen and c not in ignored]
    if unused and cameras:
        survey.notes.append(
            f"{count_things(unused, 'calibrated camera')} without any video: "
            f"{', '.join(unused)}."
        )
    for camera in cameras:
        lacking = [s for s in survey.sequences if camera not in present[s]]
        if lacking:
            survey.problems.append(
                f"camera {camera} has no video in {', '.join(lacking)} but has one in "
                f"{count_things(set(present) - set(lacking), 'other sequence')}: "
                f"{source_path(survey.folder, lacking[0], camera, 'rgb')} is missing. "
                f"Supply it, or pass --capture.ignore-cameras {camera} or "
                f"--capture.ignore-sequences {' '.join(lacking)}."
            )
    if not cameras and survey.sequences:
        survey.problems.append(
            f"no camera of {survey.folder} is left: all that have videos are ignored."
        )
    return tuple(cameras)


def find_tracks(survey: Survey) -> None:
    first = None
    for sequence in survey.sequences:
        folder = survey.folder / "sequences" / sequence
        path = survey.attempt(find_driving_file, folder)
        track = survey.attempt(load_driving, path) if path else None
        if track is None:
            continue
        first = first or track
        if (track.model, track.expr_names) != (first.model, first.expr_names):
            survey.problems.append(
                f"{path} has {len(track.expr_names)} codes of model '{track.model}', "
                f"unlike other sequences ({len(first.expr_names)} of "
                f"'{first.model}'). Track all sequences with the same model."
            )
        survey.tracks[sequence] = track


def count_things(things: "Iterable[object]", noun: str) -> str:
    number = len(list(things))
    return f"{number} {noun}{'' if number == 1 else 's'}"
