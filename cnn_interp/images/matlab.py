"""Files of MATLAB, as some sets of labelled images are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from scipy.io import loadmat

from interpretkit.errors import InputError

Built = TypeVar("Built")


def read_matlab(file: Path, variable: str, build: Callable[[Any], Built], expected: str) -> Built:
    """Read a variable from a ``.mat`` file of version 5, and return what `build` makes of it.

    Parameters
    ----------
    file : Path
        The file.
    variable : str
        The variable's name in it.
    build : callable
        Is given the variable, a struct with its fields as attributes.
    expected : str
        What the file should be, such as ``a file of affNIST``.

    Raises
    ------
    InputError
        If there is no such file, it is damaged or of another version, or does not hold what `build` takes.
    """
    try:
        return build(loadmat(file, squeeze_me=True, struct_as_record=False)[variable])
    except NotImplementedError as error:
        raise InputError(f"{file}: is a MATLAB 7.3 file; expected version 5 (in MATLAB: save -v7)") from error
    # SciPy may raise anything at a damaged file, IndexError and TypeError too.
    except Exception as error:
        reason = " ".join(repr(error).split())
        raise InputError(f"{file}: cannot be read ({reason[:160]}); expected {expected}") from error
