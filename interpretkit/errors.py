"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: an option, a file or a value that the user gave cannot be used.

    The message is one line that names the option or file, the value, and what was expected, because the
    command line prints it as it stands and exits with 2. Everything else that goes wrong is a fault of the
    program or of the machine, and has an exception of its own.

    Examples
    --------
    >>> raise InputError("--window-ev -0.1: expected a width above 0 eV")
    Traceback (most recent call last):
        ...
    interpretkit.errors.InputError: --window-ev -0.1: expected a width above 0 eV
    """
