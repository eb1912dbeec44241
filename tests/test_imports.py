"""Imports flow one way: the table of docs/architecture.md, checked."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "npga_jax"

# Each module may import those of earlier layers, and of its own where that is listed.
LAYERS = [
    {"errors", "math", "types", "sh", "mlp", "runtime", "loop", "files"}
    | {"memory", "mesh"},
    {
        "config",
        "cli",
        "rasterizer",
        "metrics",
        "bones",
        "deformation",
        "forward",
        "screen",
        "optim",
    }
    | {"nphm"}
    | {"mesh_ply", "mesh_files", "mesh_picture"},
    {"avatar", "losses", "parallel", "data", "video", "perceptual", "export"}
    | {"density", "laplacian", "reenactment"},
    {"training", "run_folder", "initialization", "mouth", "scoring"}
    | {"evaluation_text"}
    | {"evaluation_views", "comparison", "tracking"},
    {"checkpoint", "distillation", "evaluation"},
    {"build", "prior"},
    {"initial_state", "runs", "refinement"},
    {"fitting"},
    {"preview", "curve"},
]
WITHIN_A_LAYER = {
    ("mlp", "types"),
    ("forward", "bones"),
    ("forward", "deformation"),
    ("files", "errors"),
    ("runtime", "files"),
    ("runtime", "errors"),
    ("memory", "errors"),
    ("mesh_files", "mesh_ply"),
    ("mouth", "initialization"),
    ("evaluation_text", "comparison"),
    ("scoring", "evaluation_views"),
    ("comparison", "evaluation_views"),
    ("comparison", "scoring"),
    ("evaluation_text", "scoring"),
}
# Imported for type checking only.
TYPING_ONLY = {("evaluation", "runs")}
WITHOUT_JAX = {"errors", "files", "config", "cli", "runtime", "run_folder"}


def unit(name: str) -> str:
    """The part of the package that a dotted module name belongs to."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> dict[str, Path]:
    return {
        ".".join(("npga_jax", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "demo" and path != PACKAGE / "__init__.py"
    }


def layer_of(name: str) -> int:
    for index, layer in enumerate(LAYERS):
        if name in layer:
            return index
    raise AssertionError(f"{name} is in no layer: put it into tests/test_imports.py")


@pytest.mark.parametrize("name", modules())
def test_module_imports_only_what_lies_below(name):
    own = unit(name)
    for imported in imports(modules()[name]):
        if not imported.startswith("npga_jax"):
            assert not imported.startswith(("experiments", "tests"))
            continue
        other = unit(imported)
        if other in (own, "__version__", "__init__"):
            continue
        if (own, other) in WITHIN_A_LAYER | TYPING_ONLY:
            continue
        assert layer_of(other) < layer_of(own), f"{name} imports {imported}"


@pytest.mark.parametrize("name", sorted(WITHOUT_JAX))
def test_module_does_not_import_jax_at_its_head(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert not any(a.name.startswith("jax") for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.module.startswith("jax")


@pytest.mark.parametrize("name", [n for n in modules() if unit(n) == "data"])
def test_reading_captures_needs_no_jax(name):
    """Only the loader names the type of a batch, which is made of arrays."""
    for imported in imports(modules()[name]):
        if imported.startswith("npga_jax"):
            allowed = {"data", "errors", "files", "config"} | (
                {"types"} if name.endswith(".loader") else set()
            )
            assert unit(imported) in allowed, imported
        else:
            assert not imported.startswith(("jax", "flax", "optax", "orbax")), imported


def test_help_of_training_needs_no_jax():
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--help']\n"
        "try:\n    runpy.run_path('experiments/train.py', run_name='__main__')\n"
        "except SystemExit as error:\n    assert error.code == 0\n"
        "assert 'jax' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "--preset" in result.stdout
