"""The one exception that a user, not a programmer, is meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence or two: what was wrong, what was given, what was
    expected, what to do. Scripts print it without a stack trace and exit with 2.
    """
