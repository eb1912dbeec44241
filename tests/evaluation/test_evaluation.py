"""Evaluation of renderings whose errors are known, on a capture made up here."""

import json
import types

import av
import numpy as np
import pytest
from PIL import Image

from npga_jax.core.errors import InputError
from npga_jax.data.capture import Camera, Driving, Timestep
from npga_jax.data.splits import Split, Views
from npga_jax.evaluation import evaluator as evaluation
from npga_jax.evaluation.comparison import error_heat_map
from npga_jax.evaluation.scoring import average_scores, spread
from npga_jax.evaluation.views import composite_on_white
from npga_jax.metrics import images as metrics

HEIGHT, WIDTH = 38, 41
FRONT, SIDE, OTHER = "front", "side", "other"
CAMERAS = (OTHER, FRONT, SIDE)
ANGLES = {FRONT: 0.0, OTHER: 0.3, SIDE: 0.9}


def _make_capture(has_labels=True, has_alpha=True):
    """Two sequences of three timesteps; the expression is the frame's number."""
    timesteps = tuple(
        Timestep(index, sequence, 3 * frame)
        for index, (sequence, frame) in enumerate(
            (s, f) for s in ("EXP-1", "FREE") for f in range(3)
        )
    )

    def camera(timestep, camera_id):
        c, s = np.cos(ANGLES[camera_id]), np.sin(ANGLES[camera_id])
        world2cam = np.eye(4, dtype=np.float32)
        world2cam[:3, :3] = [[c, 0, -s], [0, 1, 0], [s, 0, c]]
        world2cam[0, 3] = CAMERAS.index(camera_id)
        return Camera(np.eye(3, dtype=np.float32), world2cam, WIDTH, HEIGHT, camera_id)

    def rgb(timestep, camera_id):
        rng = np.random.default_rng([timestep.index, CAMERAS.index(camera_id)])
        return rng.integers(60, 190, (HEIGHT, WIDTH, 3), np.uint8)

    def alpha(timestep, camera_id):
        matte = np.full((HEIGHT, WIDTH), 255, np.uint8)
        matte[:, :8] = 0
        return matte if has_alpha else None

    def labels(timestep, camera_id):
        if not has_labels:
            return None
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        image[30:, 8:] = 1  # Torso.
        image[4:30, 10:30] = 2
        image[4:10, 10:30] = 14
        if timestep.index != 4:
            image[15:17, 14:18] = 8
        if camera_id == FRONT:
            image[24:26, 16:22] = 11
        return image

    def driving(timestep):
        expr = np.array([1.0 + timestep.index, 1.0], np.float32)
        return Driving(expr, np.eye(4, dtype=np.float32))

    return types.SimpleNamespace(
        width=WIDTH,
        height=HEIGHT,
        fps=24.0,
        frame_stride=3,
        cameras=CAMERAS,
        timesteps=timesteps,
        camera=camera,
        rgb=rgb,
        alpha=alpha,
        labels=labels,
        driving=driving,
    )


def _make_split(capture):
    seen = [t for t in capture.timesteps if t.sequence != "FREE"]
    unseen = [t for t in capture.timesteps if t.sequence == "FREE"]
    return Split(
        train=tuple(Views(t, (OTHER, SIDE)) for t in seen),
        novel_view=tuple(Views(t, (FRONT,)) for t in seen),
        self_reenactment=tuple(Views(t, CAMERAS) for t in unseen),
    )


def _make_render_fn(capture, error, calls=None):
    """Renders the truth plus `error`; ten times that if the expression is zero."""

    def render(expr, world_from_head, viewmats, Ks):
        if calls is not None:
            calls.append(len(viewmats))
        timestep = capture.timesteps[max(int(expr[0]) - 1, 0)]
        gain = 10.0 if not expr.any() else 1.0
        images = []
        for viewmat in viewmats:
            camera = CAMERAS[round(float(viewmat[0, 3]))]
            truth = composite_on_white(
                capture.rgb(timestep, camera), capture.alpha(timestep, camera)
            )
            images.append(np.asarray(truth) + gain * error)
        return np.stack(images)

    return render


def _mean_abs_distance(pred, target):
    return np.abs(np.asarray(pred) - np.asarray(target)).mean((1, 2, 3))


def _error():
    """0.01 on the head's box, 0.05 on the rest of the frame, downwards."""
    error = np.full((HEIGHT, WIDTH, 3), -0.05, np.float32)
    error[4:30, 10:30] = -0.01
    return error


def test_known_errors_give_known_numbers():
    capture = _make_capture()
    views = _make_split(capture).self_reenactment
    calls = []
    result = evaluation.evaluate_views(
        _make_render_fn(capture, _error(), calls),
        capture,
        views,
        lpips_fns={"lpips_alex": _mean_abs_distance, "lpips_vgg": _mean_abs_distance},
        lpips_vgg_images=4,
    )
    assert calls == [3, 3, 3]
    for region in ("head", "face", "hair", "eyes", "mouth"):
        np.testing.assert_allclose(result[region]["psnr"], 40.0, atol=1e-3)
    share = (26 * 20) / (HEIGHT * WIDTH)
    np.testing.assert_allclose(
        result["head"]["psnr_white"], 40 - 10 * np.log10(share), atol=1e-3
    )
    mse = share * 0.01**2 + (1 - share) * 0.05**2
    full = result["full"]
    for name in ("psnr", "psnr_white", "psnr_channelwise_3dgs", "psnr_pooled16"):
        np.testing.assert_allclose(full[name], -10 * np.log10(mse), atol=1e-3)
    np.testing.assert_allclose(full["ssim_3dgs"], full["ssim"])
    assert 0 < full["ssim"] < result["head"]["ssim"] < 1
    assert full["num_images"] == 9 and result["head"]["num_images"] == 9
    assert result["eyes"]["num_images"] == 6  # One timestep shows none.
    assert result["mouth"]["num_images"] == 3  # Only one camera sees it.
    np.testing.assert_allclose(result["head"]["lpips_alex"], 0.01 * share, rtol=1e-4)
    assert result["head"]["num_images_lpips_vgg"] == 4
    assert "num_images_lpips_alex" not in result["head"]
    assert "note" not in result and "mse" not in full


def test_ssim_of_a_region_ignores_what_is_outside():
    capture = _make_capture()
    views = _make_split(capture).novel_view
    small = np.full((HEIGHT, WIDTH, 3), -0.01, np.float32)
    first, second = (
        evaluation.evaluate_views(
            _make_render_fn(capture, error), capture, views, lpips_fns={}
        )
        for error in (small, _error())
    )
    np.testing.assert_allclose(first["head"]["ssim"], second["head"]["ssim"], rtol=1e-6)
    assert first["full"]["ssim"] > second["full"]["ssim"]


def test_perfect_renderings_and_missing_labels():
    capture = _make_capture(has_labels=False)
    result = evaluation.evaluate_views(
        _make_render_fn(capture, np.float32(0)),
        capture,
        _make_split(capture).novel_view,
        lpips_fns={"lpips_alex": _mean_abs_distance},
    )
    np.testing.assert_allclose(result["full"]["psnr"], 100.0)
    np.testing.assert_allclose(result["full"]["ssim"], 1.0, atol=1e-6)
    assert result["full"]["lpips_alex"] == 0
    assert result["head"] == {"psnr": None, "ssim": None, "num_images": 0}
    assert result["note"].startswith("3 of 3 images have no label map")


def test_a_capture_without_mattes_is_noted(tmp_path):
    capture = _make_capture(has_labels=False, has_alpha=False)
    result = evaluation.evaluate(
        _make_render_fn(capture, np.float32(0.01)),
        capture,
        _make_split(capture),
        tmp_path,
        num_gaussians=1,
        steps=1,
        lpips_fns={},
        videos=False,
        progress=False,
    )
    assert "no mattes" in result["notes"][0]
    assert result["notes"][0] in (tmp_path / "evaluation" / "table.md").read_text()
    np.testing.assert_allclose(result["novel_view"]["full"]["psnr"], 40, atol=1e-2)


def test_truth_is_composited_on_white_only_where_there_is_a_matte():
    rgb = np.full((2, 2, 3), 51, np.uint8)
    alpha = np.array([[0, 255], [102, 0]], np.uint8)
    image = composite_on_white(rgb, alpha)
    np.testing.assert_allclose(image[..., 0], [[1, 0.2], [0.68, 1]], rtol=1e-6)
    np.testing.assert_allclose(composite_on_white(rgb, None), 0.2, rtol=1e-6)


def test_pooled_psnr_pools_16_consecutive_frames_of_a_camera():
    errors = {"a": [1e-2] * 16 + [1e-4], "b": [1e-3] * 3}
    rows = [
        {"sequence": "s", "camera": c, "scores": {"full": {"mse": e, "psnr": 0.0}}}
        for c, values in errors.items()
        for e in values
    ]
    np.testing.assert_allclose(
        average_scores(rows)["full"]["psnr_pooled16"], (20 + 40 + 30) / 3, rtol=1e-5
    )


def test_spread_is_even():
    assert spread(3, 9) == {0, 4, 8}
    assert spread(5, 3) == {0, 1, 2}
    assert spread(0, 3) == frozenset()
    assert len(spread(32, 384)) == 32


def test_evaluate_writes_everything(tmp_path):
    capture = _make_capture()
    split = _make_split(capture)
    result = evaluation.evaluate(
        _make_render_fn(capture, _error()),
        capture,
        split,
        tmp_path,
        num_gaussians=123,
        steps=4000,
        seconds={"train": 61.0},
        lpips_fns={"lpips_alex": _mean_abs_distance, "lpips_vgg": _mean_abs_distance},
        lpips_vgg_images=2,
        progress=False,
    )
    folder = tmp_path / "evaluation"
    assert sorted(p.name for p in folder.iterdir()) == [
        "frames.png",
        "images.jsonl",
        "metrics.json",
        "novel_view_front.mp4",
        "self_reenactment_front.mp4",
        "self_reenactment_side.mp4",
        "table.md",
    ]
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored == result
    for name in ("novel_view", "self_reenactment"):
        for region in ("head", "face", "full"):
            assert {"psnr", "ssim", "lpips_alex", "lpips_vgg", "num_images"} <= set(
                stored[name][region]
            )
    zeroed = stored["self_reenactment_zero_expression"]
    assert set(zeroed) == {"head", "face", "full"}
    assert set(zeroed["face"]) == {"psnr", "ssim", "num_images"}
    assert stored["self_reenactment"]["face"]["psnr"] - zeroed["face"]["psnr"] > 3
    assert stored["num_gaussians"] == 123 and stored["steps"] == 4000
    assert stored["seconds"]["train"] == 61.0 and stored["seconds"]["evaluation"] >= 0
    assert all(isinstance(text, str) for text in stored["protocol"].values())
    lines = [json.loads(x) for x in (folder / "images.jsonl").read_text().splitlines()]
    assert len(lines) == 3 + 9
    assert lines[0]["split"] == "novel_view" and lines[0]["camera"] == FRONT
    table = (folder / "table.md").read_text()
    assert "self-reenactment, expression zeroed" in table and "40.00" in table
    with av.open(str(folder / "self_reenactment_side.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 3
    assert frames[0].shape == (HEIGHT + 20, 3 * WIDTH + 1, 3)
    assert Image.open(folder / "frames.png").size == (3 * WIDTH, 4 * (HEIGHT + 20))


def test_a_rendering_that_is_not_finite_is_an_input_error(tmp_path):
    capture = _make_capture()
    render_fn = _make_render_fn(capture, np.float32(np.nan))
    with pytest.raises(InputError, match="EXP-1 frame 0 is not finite"):
        evaluation.evaluate(
            render_fn,
            capture,
            _make_split(capture),
            tmp_path,
            num_gaussians=1,
            steps=1,
            lpips_fns={},
            progress=False,
        )


def test_results_that_cannot_be_written_are_an_input_error(tmp_path):
    capture = _make_capture()
    (tmp_path / "run").write_text("a file, not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        evaluation.evaluate(
            _make_render_fn(capture, _error()),
            capture,
            _make_split(capture),
            tmp_path / "run",
            num_gaussians=1,
            steps=1,
            lpips_fns={},
            zero_expression=False,
            progress=False,
        )


def test_predictions_are_clipped():
    capture = _make_capture()
    views = _make_split(capture).novel_view[:1]
    image = evaluation.render_cameras(
        _make_render_fn(capture, np.float32(2.0)), capture, views[0]
    )
    assert image.max() == 1.0
    assert metrics.psnr(image[0], np.ones_like(image[0])) == 100.0


def test_heat_map_runs_from_black_to_pale_yellow():
    target = np.zeros((1, 3, 3))
    pred = target + np.array([0.0, 0.1, 0.3])[None, :, None]
    heat = error_heat_map(pred, target)
    np.testing.assert_array_equal(heat[0, 0], [0, 0, 0])
    np.testing.assert_array_equal(heat[0, 1], [200, 45, 70])
    np.testing.assert_array_equal(heat[0, 2], [255, 255, 200])


def test_scores_that_are_nan_are_left_out_of_means():
    def row(psnr):
        head = {"mse": 0.01, "psnr": psnr, "ssim": 0.5, "psnr_white": psnr}
        scores = {"head": head, "full": {**head, "psnr": 20.0}, "eyes": {"psnr": psnr}}
        return {"sequence": "a", "frame_id": 0, "camera": "b", "scores": scores}

    summary = average_scores([row(20.0), row(np.nan), row(30.0)])
    assert summary["head"]["psnr"] == 25.0
    assert summary["head"]["num_images_psnr"] == 2
    assert summary["head"]["ssim"] == 0.5
    assert summary["full"]["psnr"] == 20.0 and "num_images_psnr" not in summary["full"]
    assert average_scores([row(np.nan)])["eyes"]["psnr"] is None
