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
from npga_jax.training.artefact import load_avatar, write_avatar


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


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
        ({"header": {"driving_names": ["only one"]}}, r"detail/\S+ has shape"),
        ({"params/gaussians/means": None}, "damaged"),
        ({"params/gaussians/means": np.full((3, 3), np.nan)}, "has shape|not finite"),
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
