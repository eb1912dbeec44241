"""docs/extending.md, run: every file of it, alone and all together in a training."""

import dataclasses
import json
import re
from functools import reduce
from pathlib import Path

import jax
import numpy as np
import pytest

import npga_jax
from npga_jax.avatar.method import Method, code_space_template
from npga_jax.avatar.settings import DetailConfig, GaussianConfig
from npga_jax.core.errors import InputError
from npga_jax.data.settings import CaptureConfig
from npga_jax.training import stages
from npga_jax.training.building import default_method
from npga_jax.training.initial_points import InitialPoints
from npga_jax.training.method_file import build_method
from npga_jax.training.ownership import own_parts
from npga_jax.training.settings import DensityConfig, TrainConfig
from npga_jax.training.stages import run_optimizer
from npga_jax.training.start import state_from_points
from npga_jax.training.step import Frames, make_train_step
from tests import small_scene

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCKS = re.findall(r"```python\n(# (\S+)\n.*?)```", PAGE.read_text(), re.DOTALL)
FILES = {name: text for text, name in BLOCKS}
PARTS = {
    "my_loss.py": "terms",
    "my_forward.py": "forward",
    "my_detail.py": "detail",
    "my_density.py": "density",
    "my_renderer.py": "rasterize_fn",
}
CONFIG = dataclasses.replace(
    small_scene.CONFIG,
    gaussians=GaussianConfig(capacity=64, feature_dim=4),
    steps=6,
)


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str | None = None) -> Path:
        path = tmp_path / name
        path.write_text(FILES[name] if text is None else text)
        return path

    return write


@pytest.mark.parametrize("name", PARTS)
def test_file_of_thirty_lines_replaces_one_part(name, write):
    assert len(FILES[name].strip().splitlines()) <= 30
    own, usual = build_method(CONFIG, write(name)), default_method(CONFIG)
    for part in PARTS.values():
        changed = getattr(own, part) != getattr(usual, part)
        assert changed or part != PARTS[name], f"{part} is the usual one"
    shapes = _shapes_of_a_step(own)
    assert shapes["loss"].shape == ()
    assert ("edges" in shapes) == (name == "my_loss.py")


@pytest.mark.parametrize("name", [None, *PARTS])
def test_method_itself_says_what_is_trained_and_beside_what(name, write, monkeypatch):
    """An own F counts as F, also where the settings have none."""
    assert CONFIG.forward.source == "none"
    method = build_method(CONFIG, name and write(name))
    assert own_parts(CONFIG, method) == ((PARTS[name],) if name else ())
    asked = []
    monkeypatch.setattr(stages, "make_optimizer", lambda *_, **kw: asked.append(kw))
    run_optimizer(CONFIG, method)
    assert asked == [{"has_forward": name == "my_forward.py"}]


def _shapes_of_a_step(method: Method) -> dict:
    """Traces a whole step: what does not fit together fails."""
    points = small_scene.ball_points(20)
    points = InitialPoints(
        points, points, np.ones(20, np.float32), points[:, :0], points[:, :2]
    )
    codes = code_space_template(("a", "b", "c"))
    frames = Frames(small_scene.WIDTH, small_scene.HEIGHT, small_scene.MAX_ISECTS)
    step = make_train_step(method, method.terms, frames, run_optimizer(CONFIG, method))
    batch = small_scene.make_batches()[0]

    def run():
        return step(state_from_points(CONFIG, method, points, codes), batch)[1]

    return jax.eval_shape(run)


def test_all_of_them_train_together_and_the_avatar_asks_for_them(
    tiny_capture, tmp_path, write
):
    for name in PARTS:
        write(name)
    loads = "\n".join(
        f"import importlib.util as u{i}\n"
        f"s{i} = u{i}.spec_from_file_location('m{i}', {str(tmp_path / name)!r})\n"
        f"m{i} = u{i}.module_from_spec(s{i}); s{i}.loader.exec_module(m{i})"
        for i, name in enumerate(PARTS)
    )
    merged = "\n".join(
        f"    full = full.replace({part}=m{i}.method(cfg).{part})"
        for i, part in enumerate(PARTS.values())
    )
    file = write(
        "all.py",
        f"from npga_jax import default_method\n{loads}\n"
        "def method(cfg):\n    full = default_method(cfg)\n"
        f"{merged}\n    return full\n",
    )
    cfg = TrainConfig(
        subject=tiny_capture.subject,
        data_root=tiny_capture.root,
        output=tmp_path / "run",
        method=file,
        steps=6,
        log_every=1,
        evaluate=False,
        capture=CaptureConfig(width=32, driving="blendshapes"),
        gaussians=CONFIG.gaussians,
        detail=DetailConfig(),
        density=DensityConfig(),
    )
    run = npga_jax.train(cfg)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    assert [line["step"] for line in logged] == list(range(1, 7))
    assert all(line["edges"] > 0 for line in logged[1:])
    assert "maps" in run.params.forward and "last" in run.params.detail
    assert np.abs(run.params.forward["maps"]).max() > 0
    # The folder finds its own copy; the avatar alone asks for the file.
    file.unlink()
    avatar = tmp_path / "run" / "avatar.npz"
    with pytest.raises(InputError, match=r"own forward, detail, rasterize_fn.*method="):
        npga_jax.load(avatar)
    opened = npga_jax.load(avatar, method=tmp_path / "run" / "method.py")
    np.testing.assert_array_equal(
        opened.splats().means, run.avatar().splats(opened.neutral).means
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def method(cfg):\n    return 1 / 0\n", r"line 2: ZeroDivisionError"),
        ("def method(cfg):\n    return 3\n", "returned int; expected a Method"),
        ("x = 1\n", "has no attribute 'method'"),
        ("def method(cfg:\n", "SyntaxError"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_sentence(text, message, write):
    with pytest.raises(InputError, match=message):
        build_method(CONFIG, write("own.py", text))


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.py: there is no such file"):
        build_method(CONFIG, tmp_path / "none.py")


def test_terms_are_replaced_by_name_and_taken_out():
    method = default_method(CONFIG)
    names = [t.name for t in method.terms]
    l1 = next(t for t in method.terms if t.name == "l1")
    heavier = method.with_term(l1.replace(weight=2.0))
    assert sorted(t.name for t in heavier.terms) == sorted(names)
    assert next(t for t in heavier.terms if t.name == "l1").weight == 2.0
    assert "ssim" not in [t.name for t in method.without_term("ssim").terms]
    with pytest.raises(ValueError, match="no loss term 'none'"):
        method.without_term("none")
    assert reduce(lambda m, n: m.without_term(n), names, method).terms == ()
