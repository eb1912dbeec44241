"""avatar.npz: opened where neither run nor capture are, and what is refused."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import npga_jax
from npga_jax.avatar.detail import no_detail
from npga_jax.avatar.model import head_viewmats
from npga_jax.core.errors import InputError
from npga_jax.rasterizer import sh
from npga_jax.training.artefact import load_avatar, write_avatar


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def avatar(run):
    return npga_jax.load(run.folder)


@pytest.fixture
def change(run, tmp_path):
    """The avatar's file with some entries replaced."""

    def change(**entries):
        with np.load(run.folder / "avatar.npz") as archive:
            arrays = dict(archive)
        header = json.loads(str(arrays["header"]))
        header |= entries.pop("header", {})
        arrays |= {"header": np.array(json.dumps(header)), **entries}
        path = tmp_path / "changed.npz"
        np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
        return path

    return change


def test_fresh_process_without_capture_renders_what_the_run_renders(run, tmp_path):
    path = tmp_path / "avatar.npz"
    path.write_bytes((run.folder / "avatar.npz").read_bytes())
    timestep = run.split.self_reenactment[1].timestep
    driving = run.capture.driving(timestep)
    camera = run.capture.camera(timestep, run.capture.cameras[1])
    expected = run.render_fn(
        driving.expr, driving.world_from_head, camera.world2cam[None], camera.K[None]
    )[0]
    viewmat = head_viewmats(camera.world2cam[None], driving.world_from_head)[0]
    np.savez(tmp_path / "view.npz", expr=driving.expr, viewmat=viewmat, K=camera.K)
    script = (
        "import numpy as np, npga_jax\n"
        "view = np.load('view.npz')\n"
        "avatar = npga_jax.load('avatar.npz')\n"
        f"size = {run.capture.width}, {run.capture.height}\n"
        "image = avatar.render(view['expr'], view['viewmat'], view['K'], *size)\n"
        "np.save('image.npy', image)\n"
        "np.save('means.npy', avatar.splats(view['expr']).means)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "image.npy"), expected, atol=1e-6)
    alive = np.asarray(run.alive)
    means = run.render_fn.splats(driving.expr).means[alive]
    np.testing.assert_allclose(np.load(tmp_path / "means.npy"), means, atol=1e-7)


def test_avatar_knows_its_code_and_its_camera(run):
    avatar = npga_jax.load(run.folder)
    assert avatar.driving_names == run.capture.expr_names
    assert avatar.driving_model == run.capture.driving_model
    codes = [run.capture.driving(v.timestep).expr for v in run.split.train]
    sizes = np.linalg.norm(codes, axis=-1)
    np.testing.assert_array_equal(avatar.neutral, codes[int(np.argmin(sizes))])
    np.testing.assert_allclose(avatar.code_std, np.std(codes, axis=0), rtol=1e-5)
    assert avatar.num_gaussians == int(np.sum(run.alive))
    assert avatar.provenance["steps"] == run.step
    image = avatar.render()
    assert image.shape == (run.capture.height, run.capture.width, 3)
    # The camera of the world and that of the head see the same.
    again = avatar.renderer(
        avatar.neutral,
        avatar.neutral_pose,
        avatar.world_viewmat[None],
        avatar.camera.K[None],
    )[0]
    np.testing.assert_allclose(again, image, atol=1e-3)
    assert avatar.render(width=2 * run.capture.width).shape[:2] == (
        2 * run.capture.height,
        2 * run.capture.width,
    )
    black = avatar.render(background=0.0)
    assert black.mean() < image.mean()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"header": {"version": 99}}, "format 99"),
        ({"header": {"format": "something"}}, "is no avatar"),
        ({"header": {"driving_names": ["only one"]}}, r"neutral is of shape \(3,\)"),
        ({"params/gaussians/means": None}, "damaged"),
        ({"params/gaussians/means": np.full((3, 3), np.nan)}, "means is not finite"),
        ({"params/gaussians/means": np.zeros((3, 3))}, r"quats is of shape .*\(3, 4\)"),
        ({"params/detail/code_std": np.ones(2)}, r"detail/code_std has shape"),
        ({"camera/K": np.eye(2)}, r"camera/K is of shape \(2, 2\), expected \(3, 3\)"),
        ({"camera/viewmat": np.array(["text"] * 16).reshape(4, 4)}, "not finite num"),
        ({"neutral": np.full(3, np.nan)}, "neutral is not finite"),
        ({"neutral_pose": np.eye(3)}, "neutral_pose is of shape"),
        ({"header": {"version": -3}}, "format -3; expected 1"),
        ({"header": {"version": "1"}}, "format '1'; expected"),
        ({"header": {"driving_model": 3}}, "driving_model is 3, expected text"),
        ({"header": {"driving_names": "abc"}}, "driving_names is abc, expected a list"),
        (
            {"header": {"camera": {"width": "32", "height": 48, "fps": 24.0}}},
            "camera/width is 32, expected a whole number from 1",
        ),
        (
            {"header": {"camera": {"width": 32, "height": 48, "fps": 0}}},
            "camera/fps is 0, expected a number above 0",
        ),
        ({"header": {"provenance": {"subject": "074"}}}, "damaged.*'steps'"),
        ({"neutral": None}, "damaged"),
    ],
)
def test_what_is_no_avatar_is_refused_in_a_sentence(change, entries, message):
    with pytest.raises(InputError, match=message):
        load_avatar(change(**entries))


def test_numbers_that_are_not_finite_are_refused(run, change):
    means = np.array(run.avatar().params.gaussians.means)[np.asarray(run.alive)]
    means[0] = np.nan
    with pytest.raises(InputError, match="means is not finite"):
        load_avatar(change(**{"params/gaussians/means": means}))


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "avatar.npz"
    text.write_text("no zip")
    with pytest.raises(InputError, match="avatar"):
        load_avatar(text)
    with pytest.raises(InputError, match="there is no file"):
        load_avatar(tmp_path / "none.npz")


def test_codes_of_another_length_are_refused(run):
    with pytest.raises(InputError, match=r"trained on codes of length 3"):
        npga_jax.load(run.folder).render(np.zeros(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"viewmat": np.eye(4)[:3]}, r"viewmat has shape \[3, 4\]; expected \[4, 4\]"),
        ({"viewmat": np.full((4, 4), np.nan)}, "viewmat is not finite"),
        ({"viewmat": "front"}, r"viewmat: expected numbers \[4, 4\]"),
        ({"K": np.eye(4)}, r"K has shape \[4, 4\]"),
        ({"background": np.ones(4)}, r"background has shape \[4\]; expected \[3\]"),
        ({"background": 4}, r"background is 4; expected values in \[0, 1\]"),
        ({"width": 0}, "width is 0; expected a whole number"),
        ({"height": 0}, "height is 0; expected a whole number"),
        ({"width": -3}, "width is -3"),
        ({"width": 24.5}, "width is 24.5"),
        ({"width": 40_000}, "width is 40000; .* from 1 to 32768"),
        ({"width": 32_000}, "height is 48000; .* from 1 to 32768"),
    ],
)
def test_views_that_cannot_be_are_refused_in_a_sentence(avatar, arguments, message):
    with pytest.raises(InputError, match=message):
        avatar.render(**arguments)


def test_renderer_looks_at_all_that_it_is_given(avatar):
    pose, viewmats, Ks = np.eye(4), np.eye(4)[None], np.eye(3)[None]
    with pytest.raises(InputError, match=r"Ks has shape \[1, 3, 3\]; expected \[2,"):
        avatar.renderer(avatar.neutral, pose, np.eye(4)[None].repeat(2, 0), Ks)
    with pytest.raises(InputError, match="world_from_head is not finite"):
        avatar.renderer(avatar.neutral, np.nan * pose, viewmats, Ks)
    with pytest.raises(InputError, match="world_from_head has shape"):
        avatar.renderer.splats(avatar.neutral, pose[:3])


def test_colors_of_the_cloud_are_harmonics_as_its_text_says(avatar):
    """Without view-dependent colour, its sentence and `eval_sh` say the same."""
    colors = avatar.splats().colors
    assert colors.shape[1:] == (1, 3)
    directions = np.tile([0.0, 0.0, 1.0], (len(colors), 1))
    rgb = np.maximum(0.5 + 0.28209 * colors[:, 0], 0)
    np.testing.assert_allclose(sh.eval_sh(colors, directions), rgb, atol=1e-4)


def test_own_network_is_asked_for_and_own_losses_are_not(run, tmp_path):
    avatar = run.avatar()
    lossless = dataclasses.replace(avatar, method=avatar.method.replace(terms=()))
    write_avatar(tmp_path / "losses.npz", lossless)
    load_avatar(tmp_path / "losses.npz")
    detail = avatar.method.detail.replace(apply=no_detail)
    own = dataclasses.replace(avatar, method=avatar.method.replace(detail=detail))
    write_avatar(tmp_path / "own.npz", own)
    with pytest.raises(InputError, match=r"its own detail.*give that file"):
        load_avatar(tmp_path / "own.npz")
    opened = load_avatar(tmp_path / "own.npz", method=own.method)
    np.testing.assert_array_equal(opened.splats().means, own.splats().means[own.alive])
