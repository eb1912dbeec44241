"""What all tests of this folder share."""

from tests.quick_compilation import quick_compilation  # noqa: F401
