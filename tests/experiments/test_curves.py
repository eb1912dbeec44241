"""`experiments/curves.py`: tables and pictures of runs that were tested on the way."""

import json
from pathlib import Path

import pytest
from PIL import Image

from npga_jax.app import cli

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    import curves

    return curves


LINE = '{"step": 1, "seconds": 2.5, "self_reenactment_face": 20.5}\n'


def write_run(folder, points):
    folder.mkdir()
    lines = [
        {"step": step, "seconds": 2 * step, "self_reenactment_face": value}
        for step, value in points
    ]
    (folder / "curve.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return folder


def run(script, *argv):
    cli.run(script.main, script.CurvesConfig, argv=[str(word) for word in argv])


def test_runs_are_compared_at_shares_of_their_steps(script, tmp_path, capsys):
    first = write_run(tmp_path / "a", [(10, 20.0), (50, 28.0), (100, 30.0)])
    second = write_run(tmp_path / "b", [(20, 25.0), (40, 26.0)])
    output = tmp_path / "out"
    run(script, "--runs", first, second, "--names", "x", "y", "--output", output)
    table = (output / "curves.md").read_text()
    assert "| x | 20.00 | 22.00 | 28.00 | 30.00 | 100 | 200 |" in table
    # The second run was not tested before half of its steps.
    assert "| y |  |  | 25.00 | 26.00 | 40 | 80 |" in table
    assert table in capsys.readouterr().out
    with Image.open(output / "curves.png") as picture:
        assert picture.width > 500 and len(picture.convert("RGB").getcolors(9999)) > 5


@pytest.mark.parametrize(
    "text, options, message",
    [
        (None, (), "has no curve.jsonl; train with --test-every"),
        ("", (), "is empty"),
        ('{"step": 1}\n', (), "does not hold step, seconds and self_reenactment_face"),
        ("[1]\n", (), "does not hold"),
        ("{", (), "does not hold"),
        (LINE + LINE, (), "steps do not rise"),
        (LINE.replace("20.5", "NaN"), (), "not finite"),
        (
            LINE.replace("self_reenactment", "novel_view"),
            (),
            "has no figure self_reenactment_face, but novel_view_face: give one of",
        ),
        (LINE, ("--names", " "), "give --names that tell them apart"),
        (LINE, ("--shares",), "give some, each above 0"),
        ("", ("--names", "a", "b"), "1 --runs and 2 --names"),
        ("", ("--shares", "0"), "above 0 and at most 1"),
    ],
)
def test_mistakes_are_sentences(script, tmp_path, capsys, text, options, message):
    folder = tmp_path / "a"
    folder.mkdir()
    if text is not None:
        (folder / "curve.jsonl").write_text(text)
    with pytest.raises(SystemExit) as exit_info:
        run(script, "--runs", folder, "--output", tmp_path / "out", *options)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_not_mixed_up(script, tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_run(tmp_path / name / "seed_0", [(1, 20.0)])
    runs = ("--runs", tmp_path / "a/seed_0", tmp_path / "b/seed_0")
    with pytest.raises(SystemExit) as exit_info:
        run(script, *runs, "--output", tmp_path / "out")
    assert exit_info.value.code == 2
    assert "give --names" in capsys.readouterr().err


def test_names_may_hold_what_means_something_to_the_plot(script, tmp_path):
    names = ("_x", r"$\bad$")
    runs = [write_run(tmp_path / f"r{i}", [(1, 20.0), (2, 21.0)]) for i in range(2)]
    output = tmp_path / "out"
    run(script, "--runs", *runs, "--names", *names, "--output", output)
    assert (output / "curves.png").is_file()
    (output / "curves.md").unlink()
    (output / "curves.md").mkdir()
    with pytest.raises(SystemExit) as exit_info:
        run(script, "--runs", *runs, "--names", *names, "--output", output)
    assert exit_info.value.code == 2
