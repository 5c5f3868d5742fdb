"""Influence functions: what a trained network would say had it not seen a training example (Koh and Liang, 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import instrumented
from interpretkit.runs.progress import progress
from interpretkit.training import torch_generator

# From outputs (n, ...) and targets (n, ...) to one loss for each example (n,).
PerExampleLoss = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["cg", "lissa", "exact"]

# The explicit Hessian of so many parameters takes 128 MB in double precision.
MOST_EXACT = 4000
# Numbers in the gradients of single examples that are held at once: 256 MB in single precision.
MOST_HELD = 2**26


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy ``(n,)`` of logits ``(n, classes)`` and classes ``(n,)``."""
    return F.cross_entropy(outputs, targets, reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return half the squared error ``(n,)``, summed over what an example's output ``(n, ...)`` holds."""
    return 0.5 * (outputs - targets).square().flatten(1).sum(1)


@dataclass(frozen=True)
class Risk:
    """What a network was trained to make small: mean loss over its training examples + l2/2 · ‖parameters‖².

    Attributes
    ----------
    module : Module
        Trained to a minimum, for the theory holds there. Used in evaluation mode and left as it was.
    inputs : Tensor, (n, ...)
        The training examples, on the module's device and of its precision.
    targets : Tensor, (n, ...)
        Their labels.
    loss : callable
        From outputs and targets to one loss for each example ``(n,)``.
    l2 : float
        Weight of the penalty on the parameters chosen.
    parameters : sequence of str or None
        Which parameters are free to move, by dotted name or its beginning (``classifier`` for all of a
        classifier's); all of them by default.
    batch_size : int
        Examples that go through the network at once.
    """

    module: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: PerExampleLoss = cross_entropy
    l2: float = 0.0
    parameters: Sequence[str] | None = None
    batch_size: int = 512

    def __post_init__(self) -> None:
        if len(self.inputs) == 0 or len(self.inputs) != len(self.targets):
            raise InputError(
                f"training examples: {len(self.inputs)} inputs and {len(self.targets)} targets; expected as many "
                "of each, at least one"
            )
        if self.l2 < 0 or self.batch_size < 1:
            raise InputError(
                f"l2 {self.l2}, batch_size {self.batch_size}: expected l2 of at least 0, a batch of at least 1"
            )

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Influence:
    """How training examples bear on test examples.

    Attributes
    ----------
    values : ndarray of float, (m, n)
        −∇L_testᵀ (H + damping)⁻¹ ∇L_z: by how much the loss of test example ``m`` rises for each unit of weight
        that training example ``n`` gains in the mean. Positive: the training example does harm.
    residual : float
        How well the linear systems were solved: the largest ‖(H + damping) s − g‖ / ‖g‖ over the test examples.
    solver : str
        ``cg``, ``lissa`` or ``exact``.
    """

    values: NDArray[np.float64]
    residual: float
    solver: str

    @property
    def removal(self) -> NDArray[np.float64]:
        """The predicted change ``(m, n)`` of each test loss when a training example is left out."""
        return -self.values / self.values.shape[1]

    def most_harmful(self, test: int, count: int) -> NDArray[np.intp]:
        """Return the training examples whose removal would lower a test example's loss most, worst first."""
        return np.argsort(-self.values[test], kind="stable")[:count]

    def most_helpful(self, test: int, count: int) -> NDArray[np.intp]:
        """Return the training examples whose removal would raise a test example's loss most, best first."""
        return np.argsort(self.values[test], kind="stable")[:count]


def influence(
    risk: Risk,
    inputs: Tensor,
    targets: Tensor,
    *,
    solver: Solver = "cg",
    damping: float = 0.0,
    tolerance: float = 1e-6,
    iterations: int = 1000,
    samples: int = 1,
    scale: float | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> Influence:
    """Tell how every training example bears on the loss of test examples (Koh and Liang, 2017, arXiv:1703.04730).

    Parameters
    ----------
    risk : Risk
        The trained network, its training examples and its objective.
    inputs, targets : Tensor, (m, ...)
        The test examples.
    solver : {"cg", "lissa", "exact"}
        Conjugate gradients on the whole training set; LiSSA's recursion on random batches; or the Hessian itself,
        for up to 4 000 parameters.
    damping : float
        Added to the Hessian's diagonal. A network that is not convex needs more than its most negative
        eigenvalue, see :func:`extreme_eigenvalues`.
    tolerance : float
        Conjugate gradients stop at this relative residual.
    iterations : int
        At most so many; LiSSA takes all of them.
    samples : int
        LiSSA's recursions to be averaged.
    scale : float, optional
        LiSSA divides the Hessian by it; must be above the largest eigenvalue of every batch's. Measured by
        default.
    seed : int
        Seed of LiSSA's batches.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If an argument is out of range, the parameters are unknown, the curvature is negative, or LiSSA diverges.
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise InputError(
            f"test examples: {len(inputs)} inputs, {len(targets)} targets; expected as many of each"
        )
    with _curvature(risk, damping, seed) as curvature:
        few = curvature.few()
        wanted = torch.cat(
            [curvature.gradients(*some) for some in curvature.batches(inputs, targets, size=few)]
        ).T
        solved = _solve(curvature, wanted, solver, tolerance, iterations, samples, scale, seed, quiet)
        residual = _relative_residual(curvature, solved, wanted)
        rows = [-(curvature.gradients(x, y) @ solved).T for x, y in curvature.batches(size=few)]
    return Influence(torch.cat(rows, 1).double().cpu().numpy(), residual, solver)


def self_influence(
    risk: Risk,
    *,
    solver: Solver = "cg",
    damping: float = 0.0,
    tolerance: float = 1e-4,
    iterations: int = 1000,
    samples: int = 1,
    scale: float | None = None,
    at_once: int = 128,
    seed: int = 0,
    quiet: bool = True,
) -> NDArray[np.float64]:
    """Tell how much each training example holds up its own label: ∇L_zᵀ (H + damping)⁻¹ ∇L_z.

    A mislabelled example contradicts the others, so that nothing but itself speaks for its label: those of largest
    self-influence are the first to look at.

    Parameters
    ----------
    risk : Risk
        The trained network.
    solver, damping, tolerance, iterations, samples, scale, seed, quiet
        As for :func:`influence`.
    at_once : int
        Systems that are solved together; fewer where their gradients would not fit in memory.

    Returns
    -------
    ndarray of float, (n,)

    Raises
    ------
    InputError
        See :func:`influence`.
    """
    found: list[Tensor] = []
    with (
        _curvature(risk, damping, seed) as curvature,
        progress("Self-influence", len(risk), quiet=quiet) as bar,
    ):
        few = min(at_once, curvature.few())
        for start in range(0, len(risk), few):
            rows = slice(start, start + few)
            gradients = curvature.gradients(risk.inputs[rows], risk.targets[rows])
            solved = _solve(
                curvature, gradients.T, solver, tolerance, iterations, samples, scale, seed, quiet=True
            )
            found.append((gradients * solved.T).sum(1))
            bar.advance(len(gradients))
    return torch.cat(found).double().cpu().numpy()


def losses(risk: Risk) -> NDArray[np.float64]:
    """Return the loss of each training example ``(n,)``."""
    with _curvature(risk, 0.0, 0) as curvature, torch.no_grad():
        found = [curvature.losses(x, y) for x, y in curvature.batches()]
    return torch.cat(found).double().cpu().numpy()


def per_example_gradients(risk: Risk, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of each example's loss by the chosen parameters, ``(m, parameters)``.

    All examples are differentiated at once where the network's operations allow it, else one after the other.
    """
    with _curvature(risk, 0.0, 0) as curvature:
        some = curvature.batches(inputs, targets, size=curvature.few())
        return torch.cat([curvature.gradients(x, y) for x, y in some])


def hessian_vector_product(risk: Risk, vectors: Tensor) -> Tensor:
    """Return the Hessian of the risk times vectors ``(parameters, k)``, by double backward."""
    with _curvature(risk, 0.0, 0) as curvature:
        return curvature.product(vectors)


def extreme_eigenvalues(risk: Risk) -> tuple[float, float]:
    """Return the smallest and the largest eigenvalue of the risk's Hessian, by Lanczos' method.

    A network that is not convex needs a damping above minus the smallest.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    with _curvature(risk, 0.0, 0) as curvature:
        size, like = curvature.size, curvature.flat

        def times(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            column = torch.from_numpy(vector.reshape(-1, 1)).to(like)
            return curvature.product(column)[:, 0].double().cpu().numpy()

        if size < 4:
            values = np.linalg.eigvalsh(np.stack([times(row) for row in np.eye(size)]))
            return float(values[0]), float(values[-1])
        operator = LinearOperator((size, size), matvec=times, dtype=np.float64)  # type: ignore[call-arg]
        start = torch_generator(0, "eigenvalues")
        first = torch.randn(size, generator=start).double().numpy()
        ends = np.asarray(
            eigsh(operator, k=2, which="BE", v0=first, tol=1e-3, return_eigenvectors=False)  # type: ignore[arg-type]
        )
    return float(ends.min()), float(ends.max())


class _Curvature:
    """The gradients and the damped Hessian of a risk, with the chosen parameters as leaves of their own."""

    def __init__(self, risk: Risk, damping: float) -> None:
        self.risk = risk
        self.damping = damping
        self.leaves = {
            name: parameter.detach().clone().requires_grad_() for name, parameter in _chosen(risk).items()
        }
        self.flat = torch.cat([leaf.detach().reshape(-1) for leaf in self.leaves.values()])
        self._traced: Tensor | None = None

    @property
    def size(self) -> int:
        """The number of parameters."""
        return len(self.flat)

    def few(self) -> int:
        """Return of how many examples the gradients are held at once, for each is as large as the parameters."""
        return max(1, min(self.risk.batch_size, MOST_HELD // self.size))

    def batches(
        self, inputs: Tensor | None = None, targets: Tensor | None = None, *, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield examples, by default the training examples, a batch at a time."""
        inputs = self.risk.inputs if inputs is None else inputs
        targets = self.risk.targets if targets is None else targets
        size = size or self.risk.batch_size
        yield from zip(inputs.split(size), targets.split(size), strict=True)

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return one loss for each example, with its graph down to the leaves."""
        found = self.risk.loss(functional_call(self.risk.module, self.leaves, (inputs,)), targets)
        if found.shape != (len(inputs),):
            raise InputError(
                f"loss: gave shape {tuple(found.shape)} for {len(inputs)} examples; expected one each"
            )
        return found

    def gradients(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the gradient of each example's loss, ``(m, parameters)``."""

        def one(leaves: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            outputs = functional_call(self.risk.module, leaves, (x[None],))
            return self.risk.loss(outputs, y[None]).sum()

        plain = {name: leaf.detach() for name, leaf in self.leaves.items()}
        try:
            found = vmap(grad(one), in_dims=(None, 0, 0))(plain, inputs, targets)
        except RuntimeError:
            # Some operations cannot be vectorised over; what else is wrong shows again in the slow way.
            return torch.stack(
                [
                    self._flat_gradient(self.losses(x[None], y[None]).sum())
                    for x, y in zip(inputs, targets, strict=True)
                ]
            )
        return torch.cat([found[name].reshape(len(inputs), -1) for name in self.leaves], 1)

    def product(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the damped Hessian of the risk, or of that of some training examples, times ``(parameters, k)``."""
        if rows is not None:
            traced = self._trace(self.risk.inputs[rows], self.risk.targets[rows], len(rows))
            total = self._times(traced, vectors, keep=False)
        elif len(self.risk) <= self.risk.batch_size:
            # The graph of a single batch is kept for all products.
            if self._traced is None:
                self._traced = self._trace(self.risk.inputs, self.risk.targets, len(self.risk))
            total = self._times(self._traced, vectors, keep=True)
        else:
            total = torch.zeros_like(vectors)
            for x, y in self.batches():
                total += self._times(self._trace(x, y, len(self.risk)), vectors, keep=False)
        return total + (self.risk.l2 + self.damping) * vectors

    def _trace(self, inputs: Tensor, targets: Tensor, count: int) -> Tensor:
        """Return the gradient of the examples' losses over `count`, with its own graph, ``(parameters,)``."""
        return self._flat_gradient(self.losses(inputs, targets).sum() / count, create_graph=True)

    def _flat_gradient(self, value: Tensor, *, create_graph: bool = False) -> Tensor:
        found = torch.autograd.grad(
            value, list(self.leaves.values()), create_graph=create_graph, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in found])

    def _times(self, traced: Tensor, vectors: Tensor, *, keep: bool) -> Tensor:
        if not traced.requires_grad:  # a loss that is linear in the parameters
            return torch.zeros_like(vectors)
        leaves = list(self.leaves.values())

        def backward(vector: Tensor, *, batched: bool) -> Tensor:
            found = torch.autograd.grad(
                traced,
                leaves,
                vector,
                retain_graph=True,
                is_grads_batched=batched,
                materialize_grads=True,
            )
            shape = (len(vector), -1) if batched else (-1,)
            return torch.cat([part.reshape(shape) for part in found], -1)

        try:
            product = backward(vectors.T, batched=True).T
        except RuntimeError:
            product = torch.stack([backward(column, batched=False) for column in vectors.T], 1)
        if not keep:
            del traced
        return product


@contextmanager
def _curvature(risk: Risk, damping: float, seed: int) -> Iterator[_Curvature]:
    if damping < 0:
        raise InputError(f"damping {damping}: expected at least 0")
    _chosen(risk)
    with instrumented(risk.module, seed):
        yield _Curvature(risk, damping)


def _chosen(risk: Risk) -> dict[str, Tensor]:
    named: dict[str, Tensor] = dict(risk.module.named_parameters())
    if risk.parameters is None:
        chosen = named
    else:
        chosen = {}
        for wanted in risk.parameters:
            found = {n: p for n, p in named.items() if n == wanted or n.startswith(f"{wanted}.")}
            if not found:
                raise InputError(
                    f"parameters {wanted!r}: the module has none of that name; expected some of "
                    f"{', '.join(list(named)[:8])}"
                )
            chosen |= found
    if not chosen:
        raise InputError("parameters: the module has none; expected a trained network")
    return chosen


def _solve(
    curvature: _Curvature,
    wanted: Tensor,
    solver: str,
    tolerance: float,
    iterations: int,
    samples: int,
    scale: float | None,
    seed: int,
    quiet: bool,
) -> Tensor:
    if iterations < 1 or samples < 1 or tolerance <= 0:
        raise InputError(
            f"iterations {iterations}, samples {samples}, tolerance {tolerance}: expected all above 0"
        )
    if solver == "cg":
        return conjugate_gradients(curvature.product, wanted, tolerance=tolerance, iterations=iterations)
    if solver == "lissa":
        return _lissa(curvature, wanted, iterations, samples, scale, seed, quiet)
    if solver != "exact":
        raise InputError(f"solver {solver!r}: expected cg, lissa or exact")
    if curvature.size > MOST_EXACT:
        raise InputError(
            f"solver 'exact': the network has {curvature.size} parameters; expected up to {MOST_EXACT}, or "
            "solver 'cg'"
        )
    identity = torch.eye(curvature.size).to(wanted)
    hessian = torch.cat([curvature.product(block) for block in identity.split(256, 1)], 1)
    factor, failed = torch.linalg.cholesky_ex((hessian + hessian.T) / 2)
    if int(failed):
        raise InputError(_negative(curvature.damping))
    return torch.cholesky_solve(wanted, factor)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], wanted: Tensor, *, tolerance: float = 1e-6, iterations: int = 1000
) -> Tensor:
    """Solve A x = b for several b at once, with a positive definite A that is known by its products alone.

    Parameters
    ----------
    product : callable
        From ``(p, k)`` to A times it ``(p, k)``.
    wanted : Tensor, (p, k)
        The right-hand sides.
    tolerance : float
        A column is done when ‖b − A x‖ ≤ tolerance · ‖b‖.
    iterations : int
        At most so many products.

    Returns
    -------
    Tensor, (p, k)

    Raises
    ------
    InputError
        If A turns out not to be positive definite.
    """
    solution = torch.zeros_like(wanted)
    residual = wanted.clone()
    direction = wanted.clone()
    square = residual.square().sum(0)
    goal = tolerance**2 * square
    for _ in range(iterations):
        open_columns = square > goal
        if not bool(open_columns.any()):
            break
        image = product(direction)
        curvature = (direction * image).sum(0)
        if bool((curvature[open_columns] <= 0).any()):
            raise InputError(_negative(None))
        step = torch.where(
            open_columns, square / curvature.where(open_columns, torch.ones_like(curvature)), 0
        )
        solution += step * direction
        residual -= step * image
        fresh = residual.square().sum(0)
        ratio = torch.where(open_columns, fresh / square.clamp_min(torch.finfo(square.dtype).tiny), 0)
        direction = torch.where(open_columns, residual + ratio * direction, direction)
        square = fresh
    return solution


def _lissa(
    curvature: _Curvature,
    wanted: Tensor,
    iterations: int,
    samples: int,
    scale: float | None,
    seed: int,
    quiet: bool,
) -> Tensor:
    """Return (H + damping)⁻¹ times columns by LiSSA (Agarwal, Bullins and Hazan, 2017): x ← b + x − A x / scale."""
    n = len(curvature.risk)
    size = min(n, curvature.risk.batch_size)
    generator = torch_generator(seed, "lissa")

    def draw() -> Tensor:
        return torch.randperm(n, generator=generator)[:size].to(curvature.risk.inputs.device)

    if scale is None:
        scale = 1.2 * max(_largest(curvature, draw(), generator) for _ in range(5))
    total = torch.zeros_like(wanted)
    start = float(wanted.norm())
    with progress("LiSSA", samples * iterations, quiet=quiet) as bar:
        for _ in range(samples):
            current = wanted.clone()
            for step in range(iterations):
                current = wanted + current - curvature.product(current, draw()) / scale
                bar.advance()
                if step % 20 == 19 and not float(current.norm()) < 1e8 * max(start, 1e-30):
                    raise InputError(
                        f"solver 'lissa': diverges with scale {scale:.3g} and damping {curvature.damping:.3g}; "
                        "expected more of either, or solver 'cg'"
                    )
            total += current / scale
    return total / samples


def _largest(curvature: _Curvature, rows: Tensor, generator: torch.Generator) -> float:
    """Return about the largest eigenvalue of the damped Hessian of some training examples, by power iteration."""
    vector = torch.randn(curvature.size, 1, generator=generator).to(curvature.flat)
    value = 0.0
    for _ in range(20):
        vector = vector / vector.norm().clamp_min(1e-30)
        vector = curvature.product(vector, rows)
        value = float(vector.norm())
    return max(value, 1e-30)


def _relative_residual(curvature: _Curvature, solved: Tensor, wanted: Tensor) -> float:
    left = (curvature.product(solved) - wanted).norm(dim=0)
    return float((left / wanted.norm(dim=0).clamp_min(torch.finfo(wanted.dtype).tiny)).max())


def _negative(damping: float | None) -> str:
    stated = "" if damping is None else f" {damping:.3g}"
    return (
        f"damping{stated}: the Hessian has directions of negative or no curvature, so that the parameters are at no "
        "minimum; expected more damping (see extreme_eigenvalues), or longer training"
    )
