"""The one error that is the user's to mend, and the check that most often raises it."""

from operator import index


class InputError(ValueError):
    """Bad input: an option, a file or a value that the user gave cannot be used.

    The message is one line that names the parameter or file, the value, and what was expected, because the
    command line prints it and exits with 2. It calls a parameter by its option where the name begins the line, or
    stands in backticks. Everything else that goes wrong is a fault of the
    program or of the machine, and has an exception of its own.

    Examples
    --------
    >>> raise InputError("window_ev -0.1: expected a width above 0 eV")
    Traceback (most recent call last):
        ...
    interpretkit.errors.InputError: window_ev -0.1: expected a width above 0 eV
    """


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return a whole number, of Python or NumPy, that is at least `least`.

    Raises
    ------
    InputError
        If it is less, or no whole number; `name` says which parameter it is.
    """
    try:
        number = index(value)
    except TypeError:
        number = None
    if isinstance(value, bool) or number is None or number < least:
        raise InputError(f"{name} {value!r}: expected a whole number of at least {least}")
    return number
