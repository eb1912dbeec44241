"""Measures where MediaPipe's landmarks lie on the head model, from known heads."""

import dataclasses
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree
from true_surface import check_sequence, load_truth, true_face

from npga_jax.app import cli
from npga_jax.core import InputError, atomic_write, runtime
from npga_jax.data import NUM_LANDMARKS

_REACH = 0.014
"""Metres around a detection in which its place on the face is sought."""
_MOST_OFF = 0.012
"""Metres beyond which a detection counts no more: hidden cheeks slide anywhere."""
_SHUT = 0.4
"""Weight of a blink from which on an eye counts as shut."""


@dataclasses.dataclass(frozen=True)
class MakeLandmarksConfig:
    """Writes the table of landmarks that trackers of images read.

    For each landmark, the place on the face that it keeps to best in all frames, and by
    how much it is off. Only for captures that were rendered from ICT-FaceKit, with the
    landmarks that experiments/prepare.py --steps landmarks finds.
    """

    captures: tuple[Path, ...]
    """Folders of subjects with ground_truth/truth.npz and SEQ/landmarks/face.npz."""
    scans: Path
    """ICT-FaceKit's .npz."""
    output: Path
    """The table's .npz."""


def main(cfg: MakeLandmarksConfig) -> None:
    runtime.configure()
    from npga_jax.prior import FACE_VERTICES, load_ict, to_nphm

    ict = load_ict(cfg.scans)
    faces, seen, known, shut, turn = [], [], [], [], []
    for folder in cfg.captures:
        truth = load_truth(folder)
        blinks = [i for i, n in enumerate(ict.expression_names) if "Blink" in n]
        for path in sorted(folder.glob("sequences/*/landmarks/face.npz")):
            sequence = path.parent.parent.name
            check_sequence(truth, folder, sequence)
            with np.load(path, allow_pickle=False) as archive:
                frames, points = archive["frame_id"], archive["points"]
                agreeing = archive["agreeing"]
            for row, frame in enumerate(frames):
                vertices, rotation = true_face(truth, ict, sequence, int(frame))
                faces.append(vertices)
                turn.append(rotation)
                seen.append(points[row].astype(np.float64))
                known.append(agreeing[row] > 0)
                weights = truth[f"{sequence}/weights"][frame]
                shut.append(weights[blinks].mean() > _SHUT)
    if not faces:
        raise InputError("the captures have no landmarks; make them first.")
    vertex, offset, spread = place_landmarks(
        np.stack(faces), np.stack(turn), np.stack(seen), np.stack(known), np.array(shut)
    )
    mean = to_nphm(ict.neutral)[FACE_VERTICES]
    metre = 1.0 / 0.25
    with atomic_write(cfg.output) as file:
        np.savez_compressed(
            file,
            points=mean[vertex].astype(np.float32),
            offsets=(offset * metre).astype(np.float32),
            spread=(spread * metre).astype(np.float32),
        )
    median = np.median(spread) * 1000
    print(f"{len(faces)} frames; landmarks keep to their place within {median:.1f} mm")
    print(f"wrote {cfg.output}")


def place_landmarks(faces, turn, seen, known, shut):
    """The vertex of each landmark, its mean offset from there, and what is left.

    Args:
      faces: [T, V, 3] true vertices in the world, metres.
      turn: [T, 3, 3] of the heads.
      seen: [T, 478, 3] landmarks in the world; likewise known [T, 478] bool.
      shut: [T] bool, whether eyes are; these frames count as much as all others.

    Returns:
      [478] vertices, [478, 3] metres in the head's frame, [478] metres.
    """
    share = np.where(shut, 0.5 / max(shut.sum(), 1), 0.5 / max((~shut).sum(), 1))
    some = np.unique(np.linspace(0, len(faces) - 1, 12).astype(int))
    trees = [KDTree(faces[t]) for t in some]
    vertex = np.zeros(NUM_LANDMARKS, int)
    offset, spread = np.zeros((NUM_LANDMARKS, 3)), np.zeros(NUM_LANDMARKS)
    for k in range(NUM_LANDMARKS):
        near = [
            tree.query_ball_point(seen[t, k], _REACH)
            for t, tree in zip(some, trees, strict=True)
            if known[t, k]
        ]
        candidates = np.unique(np.concatenate([np.zeros(0, int), *near])).astype(int)
        if not len(candidates):
            spread[k] = _MOST_OFF
            continue
        apart = seen[:, k, None] - faces[:, candidates]
        apart = np.einsum("tji,tvj->tvi", turn, apart)  # in the head's frame
        weight = share * known[:, k]
        weight = weight / weight.sum()
        mean = np.einsum("t,tvi->vi", weight, apart)
        left = np.linalg.norm(apart - mean, axis=-1)
        left = np.sqrt(weight @ np.minimum(left, _MOST_OFF) ** 2)
        # Of places that a landmark keeps to alike, the nearest.
        best = np.argmin(left + 0.3 * np.linalg.norm(mean, axis=-1))
        vertex[k], offset[k], spread[k] = candidates[best], mean[best], left[best]
    return vertex, offset, spread


if __name__ == "__main__":
    cli.run(main, MakeLandmarksConfig)
