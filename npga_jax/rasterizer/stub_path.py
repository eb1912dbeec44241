"""Stub until the rasterizer's own lands."""


def describe_path():
    return {}
