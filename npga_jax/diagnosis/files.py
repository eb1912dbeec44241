"""What sizes and numbers of frames tell of how files were made."""

from collections.abc import Mapping

from npga_jax.data import Kind
from npga_jax.diagnosis.findings import Diagnosis

Size = tuple[int, int]
_SAME_SHAPE = 0.01
"""By which aspect ratios may differ: sizes are whole numbers of pixels."""


def diagnose_matte_sizes(
    video_size: Size, sizes: Mapping[str, Size]
) -> list[Diagnosis]:
    """Says so if mattes do not show what the videos show.

    Mattes of less resolution are fine; those of another shape would be stretched.

    Args:
      video_size: (W, H) of the videos.
      sizes: (W, H) of the mattes, by what they are called.
    """
    wide, high = video_size
    wrong: dict[Size, list[str]] = {}
    for name, size in sizes.items():
        if abs(size[0] * high / (size[1] * wide) - 1) > _SAME_SHAPE + 1 / min(size):
            wrong.setdefault(size, []).append(name)
    found = []
    for size, names in wrong.items():
        is_turned = abs(size[1] * high / (size[0] * wide) - 1) <= _SAME_SHAPE
        how = (
            "are turned by 90 degrees" if is_turned else "are not of the videos' shape"
        )
        which = (
            "all mattes" if len(names) == len(sizes) else f"the mattes {_list(names)}"
        )
        found.append(
            Diagnosis(
                f"{which} {how}",
                "certain",
                f"they are {size[0]}x{size[1]}, the videos {wide}x{high}: they would "
                "be stretched over the images",
                "turn them back"
                if is_turned
                else "make them of whole frames, neither cropped nor padded, or pass "
                "--capture.no-mattes to use none at all",
            )
        )
    return found


def diagnose_counts(
    counts: Mapping[tuple[str, str, Kind], int], folders: Mapping[Kind, str]
) -> list[Diagnosis]:
    """Says why the files of a sequence differ in their number of frames.

    Args:
      counts: Frames by sequence, camera and kind of file ("rgb", ...); those that are
        not known are left out.
      folders: What the folder of each kind is called.
    """
    found = []
    for sequence in dict.fromkeys(s for s, _, _ in counts):
        here = {(c, k): n for (s, c, k), n in counts.items() if s == sequence}
        longest = max(here.values())
        for kind, folder in folders.items():
            of_kind = {c: n for (c, k), n in here.items() if k == kind}
            fewer = {c: n for c, n in of_kind.items() if n < longest - 1}
            if fewer:
                where = f"{sequence}/{folder}"
                found.append(_say_short(where, fewer, len(of_kind), longest))
    return found


def _say_short(
    where: str, fewer: Mapping[str, int], num_files: int, longest: int
) -> Diagnosis:
    """Says why files of one kind are shorter than others.

    Args:
      where: Sequence and folder.
      fewer: Frames by camera, of the short ones.
      num_files: How many there are of the kind.
      longest: Frames of the longest file of the sequence.
    """
    frames = ", ".join(f"{n}" for n in sorted(set(fewer.values())))
    evidence = (
        f"{len(fewer)} of {num_files} files have {frames} frames, others {longest}"
    )
    if len(fewer) == num_files and len(set(fewer.values())) == 1:
        count = next(iter(fewer.values()))
        every = round(longest / count)
        if every > 1 and abs(-(-longest // every) - count) <= 1:
            return Diagnosis(
                f"{where} was made from every {_ordinal(every)} frame",
                "likely",
                evidence,
                "make it again from every frame of the videos (frames are told apart "
                "by their number, and --capture.frame-stride leaves out the same ones "
                "everywhere)",
            )
        return Diagnosis(
            f"{where} was made at another frame rate, or from a cut of the videos",
            "possible",
            evidence,
            "make it again from every frame of the videos as they are",
        )
    names = _list(list(fewer))
    return Diagnosis(
        f"{where} of {names} is cut short, or lost frames when it was recorded",
        "likely",
        evidence,
        f"copy or make it again; where frames were lost in the recording, cut all "
        f"cameras to the same moments, or pass --capture.ignore-cameras "
        f"{' '.join(fewer)} or --capture.ignore-sequences {where.split('/')[0]}",
    )


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _list(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
