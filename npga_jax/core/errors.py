"""What ends a command on purpose: an input that is no use, or a wish to stop."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence or two: what was wrong, what was given, what was
    expected, what to do. Scripts print it without a stack trace and exit with 2.
    """


class Stopped(KeyboardInterrupt):
    """SIGTERM asked the run to end, and what it has is saved: nothing went wrong.

    Passes through what Ctrl-C passes through; scripts exit with 0.
    """
