"""Options of ``interpretkit scores``, checked against a file's headers before anything heavy is loaded."""

from __future__ import annotations

import ast
from pathlib import Path

from interpretkit.commandline import some_of
from interpretkit.commandline.lazy import parse_module
from interpretkit.errors import InputError
from interpretkit.runs.arrays import Header, read_headers

_TABLE = "interpretkit.disentanglement.table"


def check_scores(
    file: Path,
    metrics: str | None,
    *,
    codes: str,
    factors: str,
    models: str | None = None,
    discrete: str | None = None,
    reference: bool = False,
) -> None:
    """Refuse scores that cannot be computed, as far as names and headers tell.

    Parameters
    ----------
    file : path
        An ``.npz`` file.
    metrics : str or None
        Names between commas.
    codes, factors, models : str
        Which arrays hold what; `models` may be None.
    discrete : str or None
        ``all``, ``none``, or numbers of factors between commas.
    reference : bool
        Whether DCI learns by gradient boosting.

    Raises
    ------
    InputError
        If the file or one of its arrays is missing or of another shape, or an option is unknown or of no use.
    """
    headers = read_headers(file)
    names = _metric_names()
    if metrics is not None and names:
        wanted = some_of(names, metrics, "--metrics")
        if reference and "dci" not in wanted:
            raise InputError("--reference: is of use to dci only; expected dci among --metrics")
        if "udr" in wanted and models is None:
            raise InputError("--metrics udr: needs the codes of several models; expected --models-key")
    shape = _found(file, headers, codes, "--codes-key", ("n", "d"))
    rows = _found(file, headers, factors, "--factors-key", ("n", "k"))
    if shape[0] != rows[0]:
        raise InputError(
            f"{file}: {codes!r} has shape {shape} and {factors!r} {rows}; expected equally many rows"
        )
    if models is not None:
        several = _found(file, headers, models, "--models-key", ("m", "n", "d"))
        if several[1] != shape[0]:
            raise InputError(f"{file}: {models!r} has shape {several}; expected (models, {shape[0]}, d)")
    if discrete not in (None, "all", "none"):
        numbers = [number.strip() for number in str(discrete).split(",")]
        if not all(number.isdecimal() for number in numbers):
            raise InputError(f"--discrete {discrete}: expected all, none, or numbers of factors such as 0,2")
        if any(int(number) >= rows[1] for number in numbers):
            raise InputError(f"--discrete {discrete}: expected numbers of factors from 0 to {rows[1] - 1}")


def _found(
    file: Path, headers: dict[str, Header], key: str, option: str, axes: tuple[str, ...]
) -> tuple[int, ...]:
    """Return the shape of an array, seen to be numbers with these axes."""
    if key not in headers:
        present = ", ".join(sorted(headers)) or "none"
        raise InputError(f"{file}: has no array {key!r} ({option}); expected one of: {present}")
    header = headers[key]
    if header.dtype.hasobject:
        raise InputError(f"{file}: cannot be read (array {key!r} holds Python objects); expected numbers")
    if len(header.shape) != len(axes):
        raise InputError(f"{file}: {key!r} has shape {header.shape}; expected ({', '.join(axes)})")
    return header.shape


def _metric_names() -> tuple[str, ...]:
    """Return the names of all metrics, read from the source of the table of scores; empty if it has another form."""
    tree = parse_module(_TABLE)
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["ORDER"]:
            try:
                return tuple(map(str, ast.literal_eval(node.value)))
            except ValueError:
                return ()
    return ()
