"""The labelled template of a head, from ICT-FaceKit's mean."""

import numpy as np

from npga_jax.data import segmentation
from npga_jax.prior.ict import (
    EYEBALL_VERTICES,
    FACE_VERTICES,
    HEAD_VERTICES,
    NARROW_FACE_VERTICES,
    IctModel,
    to_nphm,
)
from npga_jax.prior.scans import compact_mesh
from npga_jax.tracking import HeadTemplate

_RIMS = (
    (range(6590, 6632), segmentation.EYES[0]),
    (range(6548, 6590), segmentation.EYES[1]),
    (range(6632, 6706), segmentation.INNER_MOUTH),
)
"""Vertices around the subject's right eye, the left one, and in the mouth."""
_LIP_ROWS = 6
"""Rows of vertices from there to where closed lips meet."""
_FOLLOWING_ROWS, _GUIDED_ROWS = 4, 14
"""Rows of vertices from there on that follow the next one; that of lips in all."""
_TEETH = 0.006
"""NPHM units from the lips back to what is seen between them."""
_NAPE, _EAR_TOP, _EAR_BOTTOM = -0.25, 0.1, -0.15
"""Heights, NPHM units: below the first what is behind the head is neck and not scalp;
between the others what is beside the face are ears, above scalp, below neck."""


def ict_template(model: IctModel) -> HeadTemplate:
    """The mean head, its parts and its openings."""
    vertices = to_nphm(model.neutral)
    is_head = (model.faces < HEAD_VERTICES.stop).all(axis=1)
    faces = model.faces[is_head]
    behind_lips = np.zeros(len(vertices), bool)
    behind_lips[list(_RIMS[-1][0])] = True
    for row in range(_LIP_ROWS):
        touched = behind_lips[faces].any(axis=1)
        edge = set(faces[touched][~behind_lips[faces[touched]]].tolist())
        faces = faces[~touched]
        behind_lips[list(edge)] = row < _LIP_ROWS - 1
    side, height, _ = vertices[faces].mean(axis=1).T
    labels = np.where(height > _NAPE, segmentation.HAIR, segmentation.NECK)
    is_around = (faces < FACE_VERTICES.stop).all(axis=1)
    ears = np.where(side < 0, *segmentation.EARS)
    labels[is_around & (height < _EAR_TOP)] = segmentation.NECK
    is_ear = is_around & (height < _EAR_TOP) & (height > _EAR_BOTTOM)
    labels[is_ear] = ears[is_ear]
    is_face = (faces < NARROW_FACE_VERTICES.stop).all(axis=1)
    labels[is_face] = segmentation.FACE
    eyes = vertices[EYEBALL_VERTICES]
    rims, bulges = [], []
    for members, label in (*_RIMS[:-1], (edge, _RIMS[-1][1])):
        rim = _in_order(faces, set(members))
        bulge = np.array([0, 0, -_TEETH])
        if label != segmentation.INNER_MOUTH:
            middle = vertices[rim].mean(axis=0)
            own = eyes[np.sign(eyes[:, 0]) == np.sign(middle[0])]
            bulge[2] = own[:, 2].max() - middle[2]
        rims.append(rim)
        bulges.append(bulge)
    faces, used = compact_mesh(faces, np.isin(np.arange(len(vertices)), faces))
    row_of = np.zeros(len(vertices), int)
    row_of[used] = np.arange(len(used))
    return HeadTemplate(
        vertices[used],
        faces.astype(np.int32),
        labels.astype(np.uint8),
        tuple(row_of[rim] for rim in rims),
        np.array([label for _, label in _RIMS], np.uint8),
        np.array(bulges, np.float32),
        _outward(vertices[used], faces, row_of[rims[-1]], _FOLLOWING_ROWS),
        _outward(vertices[used], faces, row_of[rims[-1]], _GUIDED_ROWS),
    )


def _outward(
    vertices: np.ndarray, faces: np.ndarray, rim: np.ndarray, rows: int
) -> np.ndarray:
    """For each vertex of some rows around a rim the one straight behind them: [V].

    Each stays on its own side; all other vertices are given themselves.
    """
    behind = np.arange(len(vertices))
    distance = np.full(len(vertices), rows + 1)
    distance[rim] = 0
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    for row in range(rows):
        ends = edges[distance[edges[:, 0]] == row][:, 1]
        distance[ends] = np.minimum(distance[ends], row + 1)
    for row in range(rows - 1, -1, -1):
        outward = edges[distance[edges[:, 0]] == row]
        outward = outward[distance[outward[:, 1]] == row + 1]
        inner, outer = vertices[outward].swapaxes(0, 1)
        length = np.linalg.norm(inner - outer, axis=1)
        for one, next_one in outward[np.argsort(-length)]:
            behind[one] = behind[next_one]  # The nearest comes last and stays.
    return behind


def _in_order(faces: np.ndarray, members: set[int]) -> np.ndarray:
    """Walks along the open edges of faces [F, 3] between some vertices."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, which, count = np.unique(
        np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    after = {
        int(b): int(a) for a, b in edges[count[which.ravel()] == 1] if int(a) in members
    }
    loop = [min(members)]
    while len(loop) < len(members):
        loop.append(after[loop[-1]])
    return np.array(loop, np.int32)
