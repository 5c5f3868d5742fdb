"""The training loop."""

from __future__ import annotations

import math
import pickle
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path
from interpretkit.runs.progress import progress
from interpretkit.training.distributed import average, from_main, gather, is_joined, unwrap, world
from interpretkit.training.precision import Precision, autocast

CHECKPOINT = "checkpoint.pt"
FORMAT_VERSION = 1

Loss = Callable[[torch.nn.Module, Any], Mapping[str, torch.Tensor]]
Validate = Callable[[torch.nn.Module], Mapping[str, float]]


class NonFiniteLossError(FloatingPointError):
    """The loss, its gradient or the monitored figure is infinite or NaN; going on would spoil the weights."""


@dataclass
class History:
    """What happened in a training.

    Attributes
    ----------
    epochs : list of dict
        One mapping per epoch: ``epoch`` (from 1), the training figures as ``train_<name>``, the figures of
        ``validate`` as it names them, ``learning_rate`` and ``seconds``.
    monitor : str or None
        The figure that chose the weights.
    best_epoch : int or None
        The epoch whose weights the model has at the end; None without a monitored figure.
    best : float or None
        The monitored figure in that epoch.
    stopped : str
        Why it ended: ``epochs`` (all done) or ``patience``; ``running`` until then.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    monitor: str | None = None
    best_epoch: int | None = None
    best: float | None = None
    stopped: str = "running"

    def column(self, name: str) -> list[float]:
        """Return one figure through the epochs, as a list of length ``len(self.epochs)``."""
        return [row[name] for row in self.epochs]


def fit(
    model: torch.nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    scheduler_steps: Literal["epoch", "batch"] = "epoch",
    validate: Validate | None = None,
    monitor: str | None = None,
    direction: Literal["min", "max"] = "min",
    patience: int | None = None,
    clip_norm: float | None = None,
    precision: Precision = "float32",
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 1,
    description: str = "Training",
    quiet: bool = False,
) -> History:
    """Train a model in place, and leave it in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        The model, on the device to train on; wrapped by
        :func:`~interpretkit.training.distributed.parallelize` when several processes train it together.
    batches : iterable
        Gives the batches of an epoch each time it is iterated over. Tensors in a batch (within mappings,
        tuples and lists) are moved to the model's device. If it, or its ``sampler``, has ``set_epoch``, that
        is called with the epoch, from 0; the state of its ``generator`` is kept in checkpoints.
    loss : callable
        Takes the model and a batch and returns named scalars, of which ``"loss"`` is minimised and the others
        are reported.
    optimizer : torch.optim.Optimizer
        Over the model's parameters.
    epochs : int
        How many epochs at most.
    scheduler : learning-rate scheduler, optional
        Stepped after each epoch, or after each batch; ``ReduceLROnPlateau`` is given the monitored figure.
    scheduler_steps : {"epoch", "batch"}
        When to step it.
    validate : callable, optional
        Takes the model, in evaluation mode and without gradients, and returns named figures.
    monitor : str, optional
        The figure that chooses the weights: a name from `validate`, or ``train_loss``. At the end the model
        has the weights of the best epoch.
    direction : {"min", "max"}
        Whether less or more of it is better.
    patience : int, optional
        Stop after so many epochs in a row without an improvement.
    clip_norm : float, optional
        Scale the gradient down to this Euclidean norm where it is longer.
    precision : {"auto", "float32", "bfloat16"}
        Precision of the forward pass; see :func:`~interpretkit.training.precision.autocast`.
    checkpoint : path, optional
        A folder in which the state of the training is kept, and from which it is resumed if it is there
        already. On a CPU, resumed training ends with the same bits as training that was never interrupted.
    checkpoint_every : int
        Keep the state after every so many epochs, and after the last.
    description : str
        What the progress bar says.
    quiet : bool
        Show no progress bar.

    Returns
    -------
    History
        The figures of every epoch, also of those before a resumption.

    Raises
    ------
    NonFiniteLossError
        If the loss, the gradient's norm or the monitored figure is infinite or NaN.
    InputError
        If the checkpoint is damaged or of another model or training.
    ValueError
        If the arguments contradict each other, there is no batch, or a figure that they name is not there.
    """
    if patience is not None and monitor is None:
        raise ValueError("patience needs a monitored figure")
    if isinstance(scheduler, ReduceLROnPlateau) and (monitor is None or scheduler_steps == "batch"):
        raise ValueError("ReduceLROnPlateau needs a monitored figure, and is stepped after epochs")
    if epochs < 1 or checkpoint_every < 1:
        raise ValueError(f"epochs {epochs}, checkpoint_every {checkpoint_every}: expected at least 1")
    device = next(model.parameters()).device
    is_main = not is_joined() or world().is_main
    training = _Training(model, optimizer, scheduler, batches, History(monitor=monitor), direction)
    path = None if checkpoint is None else Path(checkpoint) / CHECKPOINT
    if path is not None and path.exists():
        training.load(path)
    history = training.history
    # A training that had reached its last epoch may be given more of them; one that stopped by itself has
    # ended.
    if history.stopped == "epochs" and len(history.epochs) < epochs:
        history.stopped = "running"

    steps = len(batches) if isinstance(batches, Sized) else None
    with progress(description, epochs * (steps or 1), quiet=quiet or not is_main) as bar:
        bar.update(done=len(history.epochs) * (steps or 1))
        while history.stopped == "running" and len(history.epochs) < epochs:
            epoch = len(history.epochs)
            started = time.monotonic()
            figures: dict[str, float] = {}
            count = 0
            model.train()
            _set_epoch(batches, epoch)
            for batch in batches:
                with autocast(device, precision):
                    values = loss(model, _to_device(batch, device))
                total = values["loss"]
                numbers = {name: float(value.detach()) for name, value in values.items()}
                place = f"in epoch {epoch + 1}, batch {count + 1}"
                if not math.isfinite(numbers["loss"]):
                    raise NonFiniteLossError(f"the loss is {_listed(numbers)} {place}; {_ADVICE}")
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                if clip_norm is not None:
                    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
                    if not math.isfinite(norm):
                        raise NonFiniteLossError(f"the gradient's norm is {norm} {place}; {_ADVICE}")
                optimizer.step()
                if scheduler is not None and scheduler_steps == "batch":
                    scheduler.step()  # type: ignore[call-arg]
                count += 1
                for name, number in numbers.items():
                    figures[name] = figures.get(name, 0.0) + number
                if steps is not None:
                    bar.advance(note=f"epoch {epoch + 1}, loss {numbers['loss']:.4g}")
            if count == 0:
                raise ValueError("there is no batch to train on")

            row: dict[str, float] = {"epoch": epoch + 1}
            mean = average({name: value / count for name, value in figures.items()}, device)
            row |= {f"train_{name}": value for name, value in mean.items()}
            if validate is not None:
                with _evaluation(model):
                    measured = {name: float(value) for name, value in validate(model).items()}
                row |= from_main(measured, device)
            row["learning_rate"] = optimizer.param_groups[0]["lr"]
            row["seconds"] = time.monotonic() - started
            history.epochs.append(row)
            training.judge(row)
            if scheduler is not None and scheduler_steps == "epoch":
                if isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step(row[str(monitor)])
                else:
                    scheduler.step()
            if steps is None:
                bar.advance(note=f"loss {mean['loss']:.4g}")
            if len(history.epochs) >= epochs:
                history.stopped = "epochs"
            if patience is not None and len(history.epochs) - (history.best_epoch or 0) >= patience:
                history.stopped = "patience"
            if path is not None and (
                history.stopped != "running" or len(history.epochs) % checkpoint_every == 0
            ):
                training.save(path, is_main)
    if history.stopped == "running":  # resumed with fewer epochs than it had done
        history.stopped = "epochs"
    if training.best_weights is not None:
        unwrap(model).load_state_dict(training.best_weights)
    model.eval()
    return history


_ADVICE = "look for NaN or infinite values in the data, lower the learning rate, or clip the gradient"


@dataclass
class _Training:
    """The state of a training: everything that a resumed one must begin with."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau | None
    batches: Iterable[Any]
    history: History
    direction: str
    best_weights: dict[str, Any] | None = None

    def judge(self, row: Mapping[str, float]) -> None:
        """Keep the weights if the monitored figure is the best so far."""
        history = self.history
        if history.monitor is None:
            return
        if history.monitor not in row:
            raise ValueError(f"the monitored figure {history.monitor!r} is not among {', '.join(row)}")
        value = row[history.monitor]
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the monitored figure {history.monitor} is {value} in epoch {row['epoch']}; {_ADVICE}"
            )
        best = history.best
        if best is None or (value < best if self.direction == "min" else value > best):
            history.best, history.best_epoch = value, len(history.epochs)
            weights = unwrap(self.model).state_dict()
            # A module may keep more than tensors in its state.
            self.best_weights = {
                name: value.detach().clone() if isinstance(value, torch.Tensor) else deepcopy(value)
                for name, value in weights.items()
            }

    def save(self, path: Path, is_main: bool) -> None:
        """Write the state, atomically, from the main process."""
        random_states = gather(_random_state(self.batches))
        if not is_main:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "format_version": FORMAT_VERSION,
            "model": unwrap(self.model).state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "random_states": random_states,
            "history": asdict(self.history),
            "direction": self.direction,
        }
        with atomic_path(path) as hidden:
            torch.save(state, hidden)

    def load(self, path: Path) -> None:
        """Read the state back; nothing in the file is executed."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            version = state["format_version"]
        except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path}: the checkpoint cannot be read ({type(error).__name__}: {error})"
            ) from error
        if version != FORMAT_VERSION:
            raise InputError(f"{path}: checkpoint of format version {version}; expected {FORMAT_VERSION}")
        past = History(**state["history"])
        if (past.monitor, state["direction"]) != (self.history.monitor, self.direction):
            raise InputError(
                f"{path}: chose its weights by {past.monitor} ({state['direction']}), "
                f"not by {self.history.monitor} ({self.direction}); remove it to begin anew"
            )
        try:
            unwrap(self.model).load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path}: the checkpoint is of another model or optimizer ({reason}); remove it to begin anew"
            ) from error
        self.best_weights = state["best_weights"]
        self.history = past
        rank = world().rank if is_joined() else 0
        if rank < len(state["random_states"]):
            _set_random_state(self.batches, state["random_states"][rank])


def _generators(batches: Any) -> list[torch.Generator]:
    """Return the generators that a loader draws its order from."""
    found = [
        getattr(batches, "generator", None),
        getattr(getattr(batches, "sampler", None), "generator", None),
    ]
    return [g for g in found if isinstance(g, torch.Generator)]


def _random_state(batches: Any) -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        # As plain numbers, which can be read back without running code.
        "numpy": [str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "batches": [generator.get_state() for generator in _generators(batches)],
    }


def _set_random_state(batches: Any, state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    for generator, value in zip(_generators(batches), state["batches"], strict=False):
        generator.set_state(value)


def _set_epoch(batches: Any, epoch: int) -> None:
    for holder in (batches, getattr(batches, "sampler", None)):
        set_epoch = getattr(holder, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: _to_device(item, device) for name, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to_device(item, device) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_to_device(item, device) for item in batch)
    return batch


def _listed(numbers: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items() if name != "loss")
    return f"{numbers['loss']}" + (f" ({parts})" if parts else "")


@contextmanager
def _evaluation(model: torch.nn.Module) -> Iterator[None]:
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
