"""Scores of single images, and their averages over a test set.

Masks select what is judged: `head` is face and hair, `face` the skin with ears, eyes
and mouth, `full` the whole frame with neck and torso.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.data import region_mask
from npga_jax.metrics import LpipsFn
from npga_jax.metrics import images as metrics

REGIONS = ("head", "face", "full")
"""Judged by PSNR, SSIM and LPIPS."""

PARTS = ("hair", "eyes", "mouth")
"""Judged by PSNR alone: too small, or too thin, for windows and networks."""

POOL_SIZE = 16
"""Images whose errors `psnr_pooled16` averages before taking the logarithm."""

Row = dict[str, Any]
"""Scores of one image: sequence, frame_id, camera, and {region: {metric: value}}."""


class Painted(NamedTuple):
    """One image as each of `REGIONS` sees it: white outside the region."""

    pred: jax.Array  # [3, H, W, 3]
    target: jax.Array  # [3, H, W, 3]


def region_masks(
    labels: np.ndarray | None,  # [H, W] uint8
    shape: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Masks of the regions and parts, [H, W] bool; without labels only `full`."""
    masks = {"full": np.ones(shape, bool)}
    if labels is not None:
        for name in ("head", "face", *PARTS):
            masks[name] = region_mask(labels, name)
    return masks


def score_image(
    pred: np.ndarray,  # [H, W, 3] in [0, 1]
    target: np.ndarray,  # [H, W, 3] in [0, 1]
    masks: Mapping[str, np.ndarray],  # {region: [H, W] bool}
    lpips_fns: Mapping[str, LpipsFn],
) -> dict[str, dict[str, float]]:
    """Computes every metric of one image, except for regions it does not show.

    Args:
      pred: The rendering, on white.
      target: The ground truth, on white.
      masks: As `region_masks` returns them.
      lpips_fns: Distances by name. One whose name ends in "_01" is a variant, and
        is computed for `full` only.

    Returns:
      {region: {metric: value}} of the regions with at least one pixel.
    """
    shown = [name for name in (*REGIONS, *PARTS) if name in masks and masks[name].any()]
    blank = np.zeros(pred.shape[:2], bool)
    # Every image passes all masks, so that there is one compilation.
    scores, painted = _score(
        pred, target, {name: masks.get(name, blank) for name in (*REGIONS, *PARTS)}
    )
    scores = jax.device_get(scores)
    result = {name: {k: float(v) for k, v in scores[name].items()} for name in shown}
    for i, name in enumerate(REGIONS):
        for lpips_name, lpips_fn in lpips_fns.items():
            if name == "full" or (name in shown and not lpips_name.endswith("_01")):
                # One pair at a time: no slower, and VGG's features are large.
                one = slice(i, i + 1)
                distance = lpips_fn(painted.pred[one], painted.target[one])
                result[name][lpips_name] = float(np.asarray(distance)[0])
    return result


@jax.jit
def _score(
    pred: jax.Array, target: jax.Array, masks: dict[str, jax.Array]
) -> tuple[dict[str, dict[str, jax.Array]], Painted]:
    scores = {}
    preds, targets = [], []
    for name in REGIONS:
        mask = masks[name]
        mse = metrics.mean_squared_error(pred, target, mask)
        painted_pred = metrics.paint_white(pred, mask)
        painted_target = metrics.paint_white(target, mask)
        scores[name] = {
            "mse": mse,
            "psnr": metrics.psnr_from_mse(mse),
            "ssim": metrics.ssim(painted_pred, painted_target, mask),
            "psnr_white": metrics.psnr(painted_pred, painted_target),
        }
        preds.append(painted_pred)
        targets.append(painted_target)
    scores["full"] |= {
        "psnr_channelwise_3dgs": metrics.psnr_channelwise(pred, target),
        "ssim_3dgs": scores["full"]["ssim"],
        "ssim_reflect": metrics.ssim(pred, target, padding="reflect"),
    }
    for name in PARTS:
        scores[name] = {"psnr": metrics.psnr(pred, target, masks[name])}
    return scores, Painted(jnp.stack(preds), jnp.stack(targets))


def average_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Averages over images; an image counts in the regions that it shows.

    Returns:
      {region: {metric: mean, num_images: n}}. LPIPS that was computed on fewer
      images adds its own count (`num_images_lpips_vgg`); `full` adds
      `psnr_pooled16`. A region that no image shows has num_images 0 and None for
      its values.
    """
    summary: dict[str, Any] = {}
    for region in (*REGIONS, *PARTS):
        scores = [row["scores"][region] for row in rows if region in row["scores"]]
        entry: dict[str, Any] = {"psnr": None}
        if region in REGIONS:
            entry["ssim"] = None
        for metric in dict.fromkeys(name for score in scores for name in score):
            values = [score[metric] for score in scores if metric in score]
            # NaN is the score of what an image does not show.
            values = [value for value in values if not np.isnan(value)]
            if metric != "mse":
                mean = np.mean(values, dtype=np.float64) if values else None
                entry[metric] = mean if mean is None else float(mean)
            if len(values) < len(scores):
                entry[f"num_images_{metric}"] = len(values)
        entry["num_images"] = len(scores)
        summary[region] = entry
    if rows:
        summary["full"]["psnr_pooled16"] = _pooled_psnr(rows)
    return summary


def _pooled_psnr(rows: Iterable[Row]) -> float:
    """Mean over pools of up to 16 consecutive frames of one camera's video."""
    videos = defaultdict(list)
    for row in rows:
        videos[row["sequence"], row["camera"]].append(row["scores"]["full"]["mse"])
    pools = [
        np.mean(errors[start : start + POOL_SIZE])
        for errors in videos.values()
        for start in range(0, len(errors), POOL_SIZE)
    ]
    return float(np.mean(metrics.psnr_from_mse(np.asarray(pools))))


def spread(count: int, total: int) -> frozenset[int]:
    """`count` indices of range(total), evenly spread with both ends."""
    if count >= total:
        return frozenset(range(total))
    return frozenset(np.linspace(0, total - 1, max(count, 0)).round().astype(int))
