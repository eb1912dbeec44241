"""Quality against seconds: a run tested on a few held-out images while it trains."""

from collections.abc import Callable, Sequence

from npga_jax.avatar import AvatarRenderer
from npga_jax.data import Capture, Split, Views
from npga_jax.evaluation import evaluate_views
from npga_jax.training.settings import TrainConfig
from npga_jax.training.state import TrainState

_FRAME_STEP = 2
_NUM_CAMERAS = 3
"""Of self-reenactment, the held-out one among them."""
_NOVEL_FRAMES = 12
_REGIONS = ("face", "head", "full")


def some_views(split: Split, held_out_camera: str) -> dict[str, list[Views]]:
    """A part of both test splits, spread over their frames and cameras."""

    def spread(items: Sequence, count: int) -> tuple:
        return tuple(items[:: max(1, -(-len(items) // count))])

    def few(views: Views) -> Views:
        others = [c for c in views.cameras if c != held_out_camera]
        kept = [c for c in views.cameras if c == held_out_camera]
        return views._replace(
            cameras=(*kept, *spread(others, max(1, _NUM_CAMERAS - len(kept))))
        )

    return {
        "self_reenactment": [few(v) for v in split.self_reenactment[::_FRAME_STEP]],
        "novel_view": list(spread(split.novel_view, _NOVEL_FRAMES)),
    }


def make_test_fn(
    cfg: TrainConfig,
    capture: Capture,
    split: Split,
    renderer_fn: Callable[[TrainState], AvatarRenderer],
) -> Callable[[TrainState], dict[str, float]]:
    """A function from a state to PSNRs in dB, by names such as "novel_view_face".

    Regions that no image shows, or that have no labels, are left out.

    Args:
      renderer_fn: see `runs.make_renderer_fn`.
    """
    tests = some_views(split, cfg.capture.held_out_camera)

    def test(state: TrainState) -> dict[str, float]:
        renderer = renderer_fn(state)
        values = {}
        for name, views in tests.items():
            if not views:
                continue
            scores = evaluate_views(renderer, capture, views, lpips_fns={})
            for region in _REGIONS:
                psnr = scores[region]["psnr"]
                if psnr is not None:
                    values[f"{name}_{region}"] = round(psnr, 3)
        return values

    return test
