"""Fitting a head model to point clouds: one person, many frames."""
