"""Judges an avatar against a capture: numbers, a table, videos and stills.

The avatar comes in as a function that renders it, so nothing here knows how it is
made or trained.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import Progress, atomic_write
from npga_jax.data import Capture, Split, Views
from npga_jax.evaluation.comparison import write_comparisons
from npga_jax.evaluation.scoring import (
    Row,
    average_scores,
    region_masks,
    score_image,
    spread,
)
from npga_jax.evaluation.text import describe_protocol, format_table
from npga_jax.evaluation.views import RenderFn, ground_truth, render_cameras
from npga_jax.metrics import MIN_SIZE, LpipsFn, make_lpips


def default_lpips() -> dict[str, LpipsFn]:
    """The three LPIPS variants that are reported."""
    return {
        "lpips_alex": make_lpips("alex"),
        "lpips_vgg": make_lpips("vgg"),
        "lpips_alex_01": make_lpips("alex", rescale=False),
    }


def evaluate(
    render_fn: RenderFn,
    capture: Capture,
    split: Split,
    output: Path,
    *,
    num_gaussians: int,
    steps: int,
    seconds: Mapping[str, float] | None = None,
    lpips_fns: Mapping[str, LpipsFn] | None = None,
    lpips_vgg_images: int = 32,
    zero_expression: bool = True,
    videos: bool = True,
    driven_by: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measures both test splits and writes `output`/evaluation.

    The folder gets metrics.json, images.jsonl (scores of every image), table.md,
    frames.png and the videos. The numbers are on disk before the first video starts.

    Args:
      render_fn: Renders the avatar.
      capture: The ground truth.
      split: What is tested.
      output: The run's folder.
      num_gaussians: Number of living Gaussians; recorded.
      steps: Training steps; recorded.
      seconds: Wall time of earlier stages; recorded, with that of this one.
      lpips_fns: Perceptual distances by name; None for `default_lpips()`.
      lpips_vgg_images: Images per split on which the slow "lpips_vgg" is computed.
      zero_expression: Also measure self-reenactment with every expression code
        replaced by zeros, which shows what the expression is worth.
      videos: Also write videos and stills.
      driven_by: What drives the held-out sequence, if not its own codes; recorded.
      progress: Whether to say on stderr how far it is.

    Returns:
      What metrics.json holds.

    Raises:
      InputError: a file cannot be written, or a rendering is not finite.
    """
    start = time.monotonic()
    folder = output / "evaluation"
    notes = []
    if lpips_fns is None:
        lpips_fns = default_lpips()
    if min(capture.width, capture.height) < MIN_SIZE and lpips_fns:
        notes.append(f"LPIPS left out: it needs images of {MIN_SIZE} pixels a side.")
        lpips_fns = {}
    views = (*split.self_reenactment, *split.novel_view)
    if views and capture.alpha(views[0].timestep, views[0].cameras[0]) is None:
        notes.append(
            "The capture has no mattes: the ground truth keeps its background, which "
            "the rendering cannot show, so that 'full' says little."
        )
    tests = {"novel_view": split.novel_view, "self_reenactment": split.self_reenactment}
    result: dict[str, Any] = {}
    lines = []
    for name, views in tests.items():
        rows = measure_views(
            render_fn,
            capture,
            views,
            lpips_fns=lpips_fns,
            lpips_vgg_images=lpips_vgg_images,
            progress=name if progress else None,
        )
        result[name] = _summarise(rows)
        lines += [json.dumps({"split": name, **row}) for row in rows]
    if zero_expression:
        name = "self_reenactment_zero_expression"
        rows = measure_views(
            _without_expression(render_fn),
            capture,
            split.self_reenactment,
            lpips_fns={},
            lpips_vgg_images=0,
            progress=name if progress else None,
        )
        result[name] = _psnr_and_ssim(_summarise(rows))
    result["num_gaussians"] = int(num_gaussians)
    result["steps"] = int(steps)
    elapsed = time.monotonic() - start
    result["seconds"] = {**(seconds or {}), "evaluation": round(elapsed, 1)}
    result["protocol"] = describe_protocol(
        capture, split, lpips_vgg_images, driven_by=driven_by
    )
    result["notes"] = notes
    text = json.dumps(result, indent=2, allow_nan=False)
    _write_text(folder / "metrics.json", text + "\n")
    _write_text(folder / "images.jsonl", "".join(line + "\n" for line in lines))
    _write_text(folder / "table.md", format_table(result))
    if videos:
        write_comparisons(render_fn, capture, split, folder, progress=progress)
    return result


def evaluate_views(
    render_fn: RenderFn,
    capture: Capture,
    views: Sequence[Views],
    *,
    lpips_fns: Mapping[str, LpipsFn],
    lpips_vgg_images: int = 32,
    progress: str | None = None,
) -> dict[str, Any]:
    """Averages the scores of all views: see `scoring.average_scores`.

    Args and errors are those of `measure_views`.
    """
    rows = measure_views(
        render_fn,
        capture,
        views,
        lpips_fns=lpips_fns,
        lpips_vgg_images=lpips_vgg_images,
        progress=progress,
    )
    return _summarise(rows)


def measure_views(
    render_fn: RenderFn,
    capture: Capture,
    views: Sequence[Views],
    *,
    lpips_fns: Mapping[str, LpipsFn],
    lpips_vgg_images: int = 32,
    progress: str | None = None,
) -> list[Row]:
    """Scores every image; each timestep is posed once and rendered for all cameras.

    Args:
      render_fn: Renders the avatar.
      capture: The ground truth.
      views: Timesteps and their cameras.
      lpips_fns: Perceptual distances by name; "lpips_vgg" is computed only on
        `lpips_vgg_images` images, evenly spread.
      lpips_vgg_images: See there.
      progress: What to call this on stderr; None for silence.

    Returns:
      A row per image.

    Raises:
      InputError: a rendering is not finite.
    """
    total = sum(len(v.cameras) for v in views)
    with_vgg = spread(lpips_vgg_images, total)
    without_vgg = {k: f for k, f in lpips_fns.items() if k != "lpips_vgg"}
    rows: list[Row] = []
    shown = Progress(progress or "", total, unit="images", show=progress is not None)
    with shown:
        for timestep, cameras in views:
            preds = render_cameras(render_fn, capture, Views(timestep, cameras))
            for camera, pred in zip(cameras, preds, strict=True):
                target = ground_truth(capture, timestep, camera)
                masks = region_masks(capture.labels(timestep, camera), pred.shape[:2])
                fns = lpips_fns if len(rows) in with_vgg else without_vgg
                rows.append(
                    {
                        "sequence": timestep.sequence,
                        "frame_id": int(timestep.frame_id),
                        "camera": camera,
                        "scores": score_image(pred, target, masks, fns),
                    }
                )
            shown(len(rows))
    return rows


def _without_expression(render_fn: RenderFn) -> RenderFn:
    def render(expr: np.ndarray, *args: Any) -> np.ndarray:
        return render_fn(np.zeros_like(expr), *args)

    return render


def _summarise(rows: Sequence[Row]) -> dict[str, Any]:
    summary = average_scores(rows)
    num_unlabelled = sum("head" not in r["scores"] for r in rows)
    if num_unlabelled:
        summary["note"] = (
            f"{num_unlabelled} of {len(rows)} images have no label map, or no head in "
            "it: they count in 'full' only."
        )
    return summary


def _psnr_and_ssim(summary: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("psnr", "ssim", "num_images")
    return {
        region: {k: summary[region][k] for k in kept}
        for region in ("head", "face", "full")
    }


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
