"""Options that decide what the defaults are: found before the parser runs."""


def option_from_argv(name: str, argv: list[str]) -> str | None:
    """What is given for an option, before the parser runs: the last one counts."""
    given = None
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        key, _, value = word.partition("=")
        if key == name:
            given = value or following
    return given
