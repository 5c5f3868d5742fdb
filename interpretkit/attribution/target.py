"""Which of a model's outputs is explained, example by example."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.errors import InputError

# None stands for each example's largest output.
Target = None | int | Sequence[int] | NDArray[np.integer] | Tensor | Callable[[Tensor], Tensor]


class TargetScores:
    """Picks the score that is explained out of a model's outputs.

    Parameters
    ----------
    target : Target
        None for each example's largest output; an index for all; an index for each example ``(n,)``; or a
        function from outputs ``(m, ...)`` to scores ``(m,)`` that treats every row alike, for the rows may be
        any of the examples, perturbed, in any number.
    examples : int
        The number of examples, ``n``.

    Attributes
    ----------
    function : callable or None
        The same, if it is one.
    classes : int or None
        How many outputs an index picks from, once the targets are settled; None for a function.
    first : Tensor or None
        The outputs ``(...)`` of the first example, unperturbed, once they have been seen.

    Raises
    ------
    InputError
        If the target is none of these, or does not fit the number of examples.
    """

    def __init__(self, target: Target, examples: int) -> None:
        self.function: Callable[[Tensor], Tensor] | None = None
        self.classes: int | None = None
        self.first: Tensor | None = None
        self._largest = target is None
        self._indices = torch.full((examples,), -1, dtype=torch.long)
        if target is None:
            return
        if callable(target) and not isinstance(target, Tensor):
            self.function = target
        else:
            self._indices[:] = _as_indices(target, examples)

    @property
    def indices(self) -> NDArray[np.int64] | None:
        """The index of each example's output ``(n,)``; None for a function."""
        return None if self.function else self._indices.numpy().copy()

    def resolve(self, outputs: Tensor, rows: Tensor) -> None:
        """Settle the targets of the examples `rows` ``(m,)`` by the outputs of their unperturbed inputs."""
        if self.first is None and int(rows[0]) == 0:
            self.first = outputs[0].detach().clone()
        if self.function:
            return
        outputs = _two_dimensional(outputs)
        self.classes = outputs.shape[1]
        if self._largest:
            self._indices[rows] = outputs.detach().argmax(1).cpu()

    def pick(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the score ``(m,)`` of each row of the outputs ``(m, ...)``.

        Parameters
        ----------
        outputs : Tensor, (m, classes), (m,) or, with a function, (m, ...)
            What the model gave.
        rows : Tensor of int, (m,)
            The example that each row belongs to.

        Raises
        ------
        InputError
            If an index is not among the outputs, or the function gives other than ``m`` finite scores.
        """
        if self.function:
            scores = self.function(outputs)
            if not isinstance(scores, Tensor) or scores.shape != outputs.shape[:1]:
                shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
                raise InputError(
                    f"target: the function gave {shape}; expected a tensor of one score per row, "
                    f"({len(outputs)},)"
                )
        else:
            outputs = _two_dimensional(outputs)
            wanted = self._indices[rows]
            if int(wanted.max()) >= outputs.shape[1]:
                raise InputError(
                    f"target {int(wanted.max())}: the model gives {outputs.shape[1]} outputs; "
                    f"expected 0 to {outputs.shape[1] - 1}"
                )
            scores = outputs.gather(1, wanted[:, None].to(outputs.device))[:, 0]
        finite = scores.detach().isfinite()
        if not bool(finite.all()):
            row = int(rows[int((~finite).nonzero()[0])])
            raise InputError(f"model: its score for example {row} is NaN or infinite; expected a finite one")
        return scores


def _as_indices(target: object, examples: int) -> Tensor:
    expected = f"expected None, an index, {examples} indices or a function"
    try:
        array = np.asarray(target.detach().cpu() if isinstance(target, Tensor) else target)
    except ValueError as error:  # NumPy's word for rows of unlike lengths
        raise InputError(f"target {target!r}: {expected}") from error
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"target {target!r}: {expected}")
    if array.ndim > 1 or (array.ndim == 1 and len(array) != examples):
        raise InputError(f"target: has shape {array.shape} for {examples} examples; {expected}")
    if array.size and array.min() < 0:
        raise InputError(f"target {array.min()}: expected an index of at least 0")
    return torch.from_numpy(np.array(array, dtype=np.int64))


def _two_dimensional(outputs: Tensor) -> Tensor:
    """Return outputs ``(m, classes)``; those of a model with one output may lack the second axis."""
    if outputs.ndim == 1:
        return outputs[:, None]
    if outputs.ndim != 2:
        raise InputError(
            f"target: the model's outputs have shape {tuple(outputs.shape)}, which an index does not pick from; "
            "expected a function from outputs to one score per row"
        )
    return outputs
