"""The examples of docs/rasterizer.md run as they are printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rasterizer.md").read_text()


def example(name):
    (code,) = re.findall(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE, re.S)
    return code


@pytest.mark.parametrize("name, least", [("image", 24.0), ("scene", 20.0)])
def test_examples_of_the_page_learn_what_they_are_shown(
    name, least, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    exec(compile(example(name), f"{name} of rasterizer.md", "exec"), {})
    (psnr,) = re.findall(r"([\d.]+) dB", capsys.readouterr().out)
    assert float(psnr) > least
