"""What the training command does where driving codes are missing or ambiguous.

The tracker itself is replaced: this is about when it is called, and with what.
"""

import dataclasses
import runpy
import shutil
import types
from pathlib import Path

import pytest

from npga_jax.app import deciding, train_avatar
from npga_jax.core import runtime
from npga_jax.core.errors import InputError
from npga_jax.data.driving import tracked_folder
from npga_jax.data.nersemble import open_nersemble
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.training.run_folder import read_config
from npga_jax.training.settings import TrainConfig

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "train.py"


def driving_file(root: Path, sequence: str, name: str = "blendshapes") -> Path:
    return root / "074/sequences" / sequence / "tracking" / f"{name}.npz"


@pytest.fixture
def codes(tiny_capture, tmp_path) -> Path:
    """The capture's codes, outside of any capture."""
    folder = tmp_path / "codes"
    folder.mkdir()
    for sequence in tiny_capture.sequences:
        source = driving_file(tiny_capture.root, sequence)
        shutil.copy(source, folder / f"{sequence}.npz")
    return folder


@pytest.fixture
def root(tiny_capture, tmp_path) -> Path:
    """A copy of the capture, with codes, which a test may take away."""
    shutil.copytree(tiny_capture.folder, tmp_path / "root/074")
    return tmp_path / "root"


@pytest.fixture
def cfg(root, tmp_path) -> TrainConfig:
    return TrainConfig(
        subject="074",
        data_root=root,
        output=tmp_path / "run",
        evaluate=False,
        prior=tmp_path / "prior.npz",
        capture=CaptureConfig(width=16, cache_dir=tmp_path / "cache"),
    )


def with_driving(cfg: TrainConfig, name: str) -> TrainConfig:
    return dataclasses.replace(
        cfg, capture=dataclasses.replace(cfg.capture, driving=name)
    )


def settled(cfg: TrainConfig, name: str) -> TrainConfig:
    """With what training decides once it knows the codes; these have no head model."""
    forward = dataclasses.replace(cfg.forward, source="none")
    return dataclasses.replace(with_driving(cfg, name), forward=forward)


class Recorder:
    """The training command without tracking and training: what they were given."""

    def __init__(self, monkeypatch, codes: Path):
        self.script = types.SimpleNamespace(**runpy.run_path(str(SCRIPT)))
        self.module = train_avatar
        self.codes = codes
        self.calls: list[str] = []
        self.tracked: dict = {}
        monkeypatch.setattr(runtime, "configure", self.configure)
        monkeypatch.setattr(deciding, "track_subject", self.track)
        monkeypatch.setattr(self.module, "run_training", self.train)
        monkeypatch.setattr(self.module, "load_run", lambda *_, **__: None)

    def configure(self, **_):
        self.calls.append("configure")

    def track(self, root, subject, capture_cfg, *, prior, output, sequences=None):
        self.calls.append("track")
        self.tracked = {
            "folder": root / subject,
            "capture": capture_cfg,
            "prior": prior,
            "output": output,
            "sequences": sequences,
        }
        for sequence in sequences:
            target = output / sequence / "tracking/nphm.npz"
            if target.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.codes / f"{sequence}.npz", target)

    def train(self, cfg, method, folder, capture, *_, method_text, **__):
        self.calls.append("train")
        self.cfg, self.capture = cfg, capture
        if cfg.method is not None:
            cfg.method.write_text("raise RuntimeError")  # As if edited by now.
        self.module.prepare_folder(folder, cfg, (), {}, method_text)


@pytest.fixture
def command(monkeypatch, codes) -> Recorder:
    return Recorder(monkeypatch, codes)


def test_codes_that_are_there_are_used_and_remembered(command, cfg, capsys):
    command.script.main(cfg)
    assert command.calls == ["configure", "train"]
    assert command.cfg == settled(cfg, "blendshapes")
    out = capsys.readouterr().out
    assert "prior.npz is not used: there are driving codes of model 'test'" in out
    # As when the run is evaluated, after its person was tracked with nphm too.
    for sequence in command.capture.sequences:
        path = driving_file(cfg.data_root, sequence)
        shutil.copy(path, path.with_name("nphm.npz"))
    opened = open_capture("074", cfg.data_root, command.cfg.capture, decode=False)
    assert opened.driving_name == "blendshapes"
    with pytest.raises(InputError, match=r"--capture\.driving blendshapes or"):
        command.script.main(dataclasses.replace(cfg, output=cfg.output / "second"))


def test_missing_codes_are_tracked_into_the_cache(command, cfg, root, capsys):
    for path in root.glob("074/sequences/*/tracking/*.npz"):
        path.unlink()
    command.script.main(cfg)
    assert command.calls == ["configure", "track", "train"]
    output = tracked_folder(root / "074", cfg.capture.cache_dir)
    assert command.tracked == {
        "folder": root / "074",
        "capture": cfg.capture,
        "prior": cfg.prior,
        "output": output,
        "sequences": ("EXP-2-eyes", "FREE"),
    }
    assert command.cfg == settled(cfg, "nphm")
    assert command.capture.driving_paths["FREE"] == output / "FREE/tracking/nphm.npz"
    out = capsys.readouterr().out
    assert "2 of 2 sequences of subject 074 have no driving codes: tracking" in out
    assert str(output) in out and "is not used" not in out
    assert not list(root.rglob("nphm.npz"))
    # The second time they are there.
    command.script.main(dataclasses.replace(cfg, output=cfg.output / "second"))
    assert command.calls == ["configure", "track", "train", "configure", "train"]


def test_tracking_goes_on_after_an_interruption(command, cfg, root, codes, capsys):
    for path in root.glob("074/sequences/*/tracking/*.npz"):
        path.unlink()
    done = tracked_folder(root / "074", cfg.capture.cache_dir)
    done = done / "EXP-2-eyes/tracking/nphm.npz"
    done.parent.mkdir(parents=True)
    shutil.copy(codes / "EXP-2-eyes.npz", done)
    command.script.main(cfg)
    # All of them: the tracker takes the identity from those that it keeps.
    assert command.tracked["sequences"] == ("EXP-2-eyes", "FREE")
    assert command.calls == ["configure", "track", "train"]
    assert "1 of 2 sequences of subject 074 has no driving" in capsys.readouterr().out


def test_tracking_in_the_capture_is_completed_there(command, cfg, root):
    driving_file(root, "FREE").rename(driving_file(root, "FREE", "nphm"))
    command.script.main(with_driving(cfg, "nphm"))
    assert command.tracked["output"] == root / "074/sequences"
    paths = {s: driving_file(root, s, "nphm") for s in ("EXP-2-eyes", "FREE")}
    assert command.capture.driving_paths == paths
    assert not cfg.capture.cache_dir.joinpath("tracking").exists()


def test_tracked_codes_can_be_asked_for_beside_others(command, cfg, capsys):
    command.script.main(with_driving(cfg, "nphm"))
    assert command.calls == ["configure", "track", "train"]
    # The tracker may start where the other tracker says that the head is.
    assert command.tracked["capture"] == cfg.capture
    assert command.capture.driving_name == "nphm"
    assert "2 of 2 sequences of subject 074 have no nphm.npz" in capsys.readouterr().out


def test_two_other_trackers_are_not_in_the_way_of_ours(command, cfg, root):
    for sequence in ("EXP-2-eyes", "FREE"):
        path = driving_file(root, sequence)
        shutil.copy(path, path.with_name("flame.npz"))
    command.script.main(with_driving(cfg, "nphm"))
    assert command.calls == ["configure", "track", "train"]
    # As the tracker opens it, which is given no name.
    opened = open_nersemble(
        root, "074", command.tracked["capture"], decode=False, need_driving=False
    )
    assert "several trackers (blendshapes, flame)" in " ".join(opened.notes)


def test_other_codes_in_some_sequences_are_for_a_person_to_complete(command, cfg, root):
    driving_file(root, "FREE").unlink()
    with pytest.raises(InputError) as error:
        command.script.main(cfg)
    for words in ("FREE has no driving codes", "track.py", "ignore-sequences FREE"):
        assert words in str(error.value)
    with pytest.raises(InputError, match=r"FREE has no driving file blendshapes\.npz"):
        command.script.main(with_driving(cfg, "blendshapes"))
    assert "track" not in command.calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out_camera": "1"}, "no camera '1'"),
        ({"held_out_sequence": "SEN"}, "no sequence 'SEN'"),
        ({"width": 64}, "more than the videos have"),
    ],
)
def test_mistakes_are_said_before_tracking(command, cfg, change, message):
    cfg = with_driving(cfg, "nphm")
    cfg = dataclasses.replace(cfg, capture=dataclasses.replace(cfg.capture, **change))
    with pytest.raises(InputError, match=message):
        command.script.main(cfg)
    assert command.calls == ["configure"]


def test_run_that_is_resumed_keeps_its_codes(command, cfg, root, codes):
    for path in root.glob("074/sequences/*/tracking/*.npz"):
        path.unlink()
    command.script.main(cfg)
    # Codes of another tracker come later.
    for sequence in command.capture.sequences:
        shutil.copy(codes / f"{sequence}.npz", driving_file(root, sequence))
    stored = read_config(cfg.output)
    assert stored == settled(cfg, "nphm")
    resumed = dataclasses.replace(stored, resume=True)
    command.script.main(resumed)
    assert command.capture.driving_name == "nphm"
    with pytest.raises(InputError, match=r"capture\.driving was nphm, is now blend"):
        command.script.main(with_driving(resumed, "blendshapes"))
    with pytest.raises(InputError, match=r"prior was .*prior\.npz, is now other\.npz"):
        command.script.main(dataclasses.replace(resumed, prior=Path("other.npz")))
    assert command.calls == ["configure", "track", "train", "configure", "train"]


def test_method_that_ran_is_the_one_that_is_kept(command, cfg, tmp_path):
    text = "from npga_jax import default_method as method\n"
    file = tmp_path / "own.py"
    file.write_text(text)
    command.script.main(dataclasses.replace(cfg, method=file))
    assert file.read_text() != text
    assert (cfg.output / "method.py").read_text() == text
