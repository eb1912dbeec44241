"""Measures a run into its own folder."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from npga_jax.evaluation import evaluate, format_table
from npga_jax.training import Run


def evaluate_run(
    run: Run,
    *,
    stages: Mapping[str, float] | None = None,
    lpips_vgg_images: int = 32,
    zero_expression: bool = True,
    videos: bool = True,
) -> dict[str, Any]:
    """Evaluates a run into its own folder, and prints the table.

    Args and errors are those of `evaluate`; `stages` are wall times to record besides
    the run's own.
    """
    result = evaluate(
        run.render_fn,
        run.capture,
        run.split,
        run.folder,
        num_gaussians=int(np.sum(run.alive)),
        steps=run.step,
        seconds={**(stages or {}), **run.seconds},
        lpips_vgg_images=lpips_vgg_images,
        zero_expression=zero_expression,
        videos=videos,
    )
    print(format_table(result))
    return result
