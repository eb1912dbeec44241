"""An avatar opened for use, from a run folder or from its file alone."""

import dataclasses
from functools import cached_property
from pathlib import Path

from npga_jax.avatar import Avatar, Method
from npga_jax.core import CHECKPOINTS, checkpoint
from npga_jax.data import Capture, Split, holdout_split, open_capture
from npga_jax.training import (
    AVATAR_FILE,
    CONFIG_FILE,
    TrainConfig,
    check_usual_capture,
    load_avatar,
    load_run,
    settings_from_json,
)


@dataclasses.dataclass(eq=False)
class Opened:
    """An avatar, and its capture where somebody asks for it."""

    avatar: Avatar
    config: TrainConfig
    folder: Path
    """Where results go."""
    data_root: Path | None = None
    """Where the capture is now, if it has moved since the training."""

    @cached_property
    def capture(self) -> Capture:
        """The capture that the avatar was trained on.

        Raises:
          InputError: it is not there, or the settings do not name it.
        """
        if (self.folder / CONFIG_FILE).is_file():
            check_usual_capture(self.folder)
        root = self.data_root or self.config.data_root
        return open_capture(self.config.subject, root, self.config.capture)

    @cached_property
    def split(self) -> Split:
        """What of the capture was held out; errors are those of `capture`."""
        held_out = self.config.capture
        return holdout_split(
            self.capture, held_out.held_out_sequence, held_out.held_out_camera
        )


def open_avatar(
    path: Path, *, data_root: Path | None = None, method: Path | Method | None = None
) -> Opened:
    """Opens what training left.

    Args:
      path: a run folder, or an avatar.npz. A folder whose avatar.npz is not that of
        its newest checkpoint is opened by the checkpoint, which needs the capture.
      data_root: where the capture is now.
      method: see `training.load_avatar`.

    Raises:
      InputError: it is neither, or cannot be read.
    """
    if not path.is_dir():
        avatar = load_avatar(path, method=method)
        return _opened(avatar, path.parent, data_root)
    if (path / AVATAR_FILE).is_file():
        avatar = load_avatar(path, method=method)
        newest = checkpoint.latest_step(path / CHECKPOINTS)
        if newest in (None, avatar.provenance["steps"]):
            return _opened(avatar, path, data_root)
    avatar = load_run(path, data_root=data_root, method=method).avatar()
    return _opened(avatar, path, data_root)


def _opened(avatar: Avatar, folder: Path, data_root: Path | None) -> Opened:
    cfg = settings_from_json(avatar.provenance["settings"])
    return Opened(avatar, cfg, folder, data_root)
