"""`avatar.npz`: a trained avatar in one file, without pickle, read in any process.

Entries are the arrays of the parameters, named by their path, and `header`, which is
JSON: format version, settings, names of the code, camera, provenance. Functions are not
in it: the settings name those of this package, and a researcher's own file is given
anew (`method`), since opening an avatar runs nothing that it holds.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar import (
    Avatar,
    CodeSpace,
    DefaultCamera,
    Method,
    code_space_template,
    head_viewmats,
    init_params,
)
from npga_jax.core import (
    AvatarParams,
    Gaussians,
    InputError,
    atomic_write,
    load_npz,
    most_neutral_row,
)
from npga_jax.data import Capture, Split, expression_codes
from npga_jax.training.artefact_checks import (
    check_arrays,
    check_header,
    check_version,
)
from npga_jax.training.building import default_method
from npga_jax.training.method_file import METHOD_FILE, build_method
from npga_jax.training.ownership import parts_to_render
from npga_jax.training.run_folder import settings_from_json, settings_to_json
from npga_jax.training.settings import TrainConfig

AVATAR_FILE = "avatar.npz"
FORMAT_VERSION = 1
_MOST_BYTES = 2**33
"""What the arrays of an avatar may claim: far more than the most Gaussians take."""


def make_avatar(
    cfg: TrainConfig,
    method: Method,
    params: AvatarParams,
    alive: jax.Array,
    capture: Capture,
    split: Split,
    *,
    steps: int,
    environment: dict[str, Any],
) -> Avatar:
    """An avatar of what was trained, with all that it needs of its capture.

    Args:
      cfg: of the run; likewise `method`, `split`.
      steps: that were trained.
      environment: of the run; recorded.
    """
    codes = expression_codes(capture, split.train)
    calm = split.train[most_neutral_row(codes)].timestep
    driving = capture.driving(calm)
    front = capture.camera(calm, cfg.capture.held_out_camera)
    viewmat = head_viewmats(
        jnp.asarray(front.world2cam[None]), jnp.asarray(driving.world_from_head)
    )[0]
    return Avatar(
        method=method,
        params=params,
        alive=alive,
        driving_names=capture.expr_names,
        driving_model=capture.driving_model,
        neutral=driving.expr,
        code_mean=codes.mean(axis=0),
        code_std=codes.std(axis=0),
        neutral_pose=driving.world_from_head,
        camera=DefaultCamera(
            np.asarray(viewmat), front.K, capture.width, capture.height, capture.fps
        ),
        provenance={
            "subject": capture.subject,
            "steps": steps,
            "settings": settings_to_json(cfg),
            "environment": environment,
        },
    )


def write_avatar(path: Path, avatar: Avatar) -> None:
    """Writes an avatar, whole or not at all; dead slots are left out.

    Raises:
      InputError: the file cannot be written.
    """
    alive = np.flatnonzero(np.asarray(avatar.alive))
    gaussians = jax.tree.map(lambda x: np.asarray(x)[alive], avatar.params.gaussians)
    arrays = _named(avatar.params._replace(gaussians=gaussians))
    cfg = settings_from_json(avatar.provenance["settings"])
    codes = code_space_template(avatar.driving_names)
    camera = avatar.camera
    arrays |= {
        "neutral": avatar.neutral,
        "code_mean": avatar.code_mean,
        "code_std": avatar.code_std,
        "neutral_pose": avatar.neutral_pose,
        "camera/viewmat": camera.viewmat,
        "camera/K": camera.K,
    }
    header: dict[str, Any] = {
        "format": "npga_jax avatar",
        "version": FORMAT_VERSION,
        "driving_names": avatar.driving_names,
        "driving_model": avatar.driving_model,
        "own_parts": parts_to_render(cfg, avatar.method, codes),
        "camera": {"width": camera.width, "height": camera.height, "fps": camera.fps},
        "provenance": avatar.provenance,
    }
    arrays["header"] = np.array(json.dumps(header))
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_avatar(
    path: str | Path, *, method: str | Path | Method | None = None
) -> Avatar:
    """Opens an avatar; neither its run nor its capture need be there.

    Args:
      path: an avatar.npz, or the run folder that holds one.
      method: needed only if the avatar was trained with own networks or an own
        renderer: the `Method`, or the file with `def method(cfg) -> Method`. A run
        folder has that file where training was given it, and it is run then.

    Raises:
      InputError: it is no avatar, damaged, of a later version, or lacks its method.
    """
    path = Path(path)
    kept = path / METHOD_FILE if path.is_dir() else None
    path = path / AVATAR_FILE if path.is_dir() else path
    arrays = load_npz(path, "an avatar.npz of npga_jax", max_bytes=_MOST_BYTES)
    header = _read_header(path, arrays)
    try:
        check_header(path, header)
        names = tuple(header["driving_names"])
        cfg = settings_from_json(header["provenance"]["settings"])
        if method is None and header["own_parts"] and kept and kept.is_file():
            method = kept
        found = _method_of(path, cfg, header["own_parts"], method)
        check_arrays(
            path,
            arrays,
            num_expr=len(names),
            num_features=cfg.gaussians.feature_dim,
            sh_degree=cfg.gaussians.sh_degree,
        )
        params = _take_params(path, arrays, found, names)
        camera = DefaultCamera(
            arrays["camera/viewmat"], arrays["camera/K"], **header["camera"]
        )
        return Avatar(
            method=found,
            params=params,
            alive=jnp.ones(params.gaussians.means.shape[0], bool),
            driving_names=names,
            driving_model=header["driving_model"],
            neutral=arrays["neutral"],
            code_mean=arrays["code_mean"],
            code_std=arrays["code_std"],
            neutral_pose=arrays["neutral_pose"],
            camera=camera,
            provenance=header["provenance"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is an avatar, but damaged or not as this version writes it "
            f"({error}); export it again from its run."
        ) from error


def _read_header(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    try:
        header = json.loads(str(arrays["header"]))
        if header["format"] != "npga_jax avatar":
            raise ValueError
        version = header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no avatar; give the avatar.npz that experiments/train.py ends "
            "with."
        ) from error
    check_version(path, version, FORMAT_VERSION)
    return header


def _method_of(
    path: Path,
    cfg: TrainConfig,
    own_parts: list[str],
    given: str | Path | Method | None,
) -> Method:
    if isinstance(given, Method):
        return given
    if given is not None:
        return build_method(cfg, Path(given))
    if own_parts:
        raise InputError(
            f"{path} was trained with its own {', '.join(own_parts)}, from "
            f"{cfg.method or 'Python'}; give that file with method= (--method)."
        )
    return default_method(cfg)


def _named(params: AvatarParams) -> dict[str, np.ndarray]:
    return {
        "params/" + jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(x)
        for key, x in jax.tree_util.tree_leaves_with_path(params)
    }


def _take_params(
    path: Path,
    arrays: dict[str, np.ndarray],
    method: Method,
    names: tuple[str, ...],
) -> AvatarParams:
    """Parameters in the structure that the method's networks have."""
    stored = Gaussians(
        *(jnp.asarray(arrays[f"params/gaussians/{x}"]) for x in Gaussians._fields)
    )
    codes: CodeSpace = code_space_template(names)
    template = jax.eval_shape(
        lambda: init_params(method, stored, codes, jax.random.key(0))
    )
    wanted = jax.tree_util.tree_leaves_with_path(template)
    leaves = []
    for key, shaped in wanted:
        name = jax.tree_util.keystr(key, simple=True, separator="/")
        leaf = arrays.get(f"params/{name}")
        if leaf is None or leaf.shape != shaped.shape:
            found = "none" if leaf is None else leaf.shape
            raise InputError(
                f"{path}: {name} has shape {found}, and the method's networks want "
                f"{shaped.shape}; give the method that it was trained with."
            )
        if not np.isfinite(leaf).all():
            raise InputError(f"{path}: {name} is not finite; the file is damaged.")
        leaves.append(jnp.asarray(leaf, shaped.dtype))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)
