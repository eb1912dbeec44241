"""Imports flow one way, and through the faces of rooms (see pyproject.toml)."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "npga_jax"
FLOORS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["npga_jax"][
    "floors"
]
ROOMS = [room for floor in FLOORS for room in floor]
WITHOUT_JAX = [
    "core.errors",
    "core.files",
    "core.runtime",
    "data.settings",
    "avatar.settings",
    "training.settings",
    "training.run_folder",
    "app.cli",
]


def imports(path: Path) -> set[tuple[str, str]]:
    """Modules that a file imports from, at any depth, and the names: (module, name)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {(node.module, alias.name) for alias in node.names}
    return found


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for room in ROOMS
        for path in sorted((PACKAGE / room).rglob("*.py"))
    }


def faces() -> dict[str, set[str]]:
    """The names that each room shows."""
    return {
        room: {
            alias.name
            for node in ast.parse((PACKAGE / room / "__init__.pyi").read_text()).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for room in ROOMS
    }


def floor_of(room: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if room in floor)


def test_every_folder_is_a_room_on_one_floor():
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")} - {"demo"}
    assert sorted(ROOMS) == sorted(folders)
    assert len(FLOORS) <= 6


def test_the_document_shows_the_floors():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for number, floor in enumerate(FLOORS, start=1):
        line = next(x for x in text.splitlines() if x.startswith(f"| {number} |"))
        for room in floor:
            assert f"`{room}`" in line, (number, room)


@pytest.mark.parametrize("name", modules())
def test_module_imports_only_what_lies_below(name):
    own = name.split(".")[0]
    for module, imported in imports(modules()[name]):
        top, *rest = module.split(".")
        assert top not in ("experiments", "dev", "tests")
        if top != "npga_jax" or rest[:1] == [own]:
            continue
        if not rest:
            assert imported == "__version__", f"{name} imports {imported}"
            continue
        room = rest[0]
        assert floor_of(room) < floor_of(own), f"{name} imports {module}.{imported}"


def test_settings_of_training_are_read_by_training_and_app_alone():
    """As training/settings.py says; the package's own face hands them to users."""
    readers = {
        name.split(".")[0]
        for name, path in modules().items()
        if any(imported == "TrainConfig" for _, imported in imports(path))
    }
    assert readers == {"training", "app"}


@pytest.mark.parametrize(
    "path",
    [
        *modules().values(),
        *sorted((ROOT / "experiments").glob("*.py")),
        *sorted((ROOT / "dev").glob("*.py")),
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_rooms_are_entered_by_their_faces(path):
    inside = path.relative_to(PACKAGE).parts[0] if path.is_relative_to(PACKAGE) else ""
    shown = faces()
    for module, imported in imports(path):
        _, *rest = module.split(".")
        if not module.startswith("npga_jax.") or rest[0] == inside:
            continue
        assert len(rest) == 1, f"{module} is inside room {rest[0]}"
        assert imported in shown[rest[0]], f"{module} does not show {imported}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_hides_the_module_of_its_name(room):
    shown = ast.parse((PACKAGE / room / "__init__.pyi").read_text()).body
    names = {
        alias.name
        for node in shown
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert not names & {path.stem for path in (PACKAGE / room).glob("*.py")}


@pytest.mark.parametrize("room", ROOMS)
def test_faces_show_what_there_is_and_what_is_wanted(room):
    module = importlib.import_module(f"npga_jax.{room}")
    for name in faces()[room]:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", WITHOUT_JAX)
def test_module_does_not_import_jax_at_its_head(name):
    code = f"import sys, npga_jax.{name}; sys.exit('jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert result.returncode == 0


@pytest.mark.parametrize("name", [n for n in modules() if n.startswith("data.")])
def test_reading_captures_needs_no_jax(name):
    """Only the loader names the type of a batch, which is made of arrays."""
    for module, imported in imports(modules()[name]):
        if module == "npga_jax.core":
            from_types = imported in ("Batch",)
            assert not from_types or name == "data.loader", imported
        else:
            assert not module.startswith(("jax", "flax", "optax", "orbax")), module


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
