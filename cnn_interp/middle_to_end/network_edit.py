"""An edit of a network: patterns of a layer taken out, as a small thing that is saved, shared, undone and replayed.

The network that it is applied to stays as it is: the edited one is a second network that has its weights in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_interp.disentangling.features import network_hash
from cnn_interp.middle_to_end.answers import Answer, Standing, parse_answer, replayed, standing
from cnn_interp.middle_to_end.patterns import Patterns, patterns_from
from cnn_interp.networks.checks import EDIT
from cnn_interp.networks.loading import load_network
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer, instrumented
from interpretkit.networks.replaced import with_replaced
from interpretkit.runs.files import atomic_path, dump_json, sha256

FORMAT, VERSION = "interpretkit-edit", 1
TENSORS = "edit.safetensors"


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A linear layer that stands for the one of a network.

    Attributes
    ----------
    name : str
        The layer's dotted name.
    weight, bias : Tensor
        ``(outputs, inputs)`` and ``(outputs,)``.
    """

    name: str
    weight: Tensor
    bias: Tensor

    def outputs(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return its outputs ``(n, outputs)`` for inputs ``(n, d)``, in double precision."""
        found = np.asarray(features, dtype=np.float64) @ self.weight.double().numpy().T
        return found + self.bias.double().numpy()

    def module(self, like: Tensor) -> nn.Linear:
        """Return it as a module, of the device and precision of a tensor, frozen."""
        # Drawing the weights that are replaced would move the caller's random numbers.
        with torch.random.fork_rng(), torch.no_grad():
            layer = nn.Linear(
                self.weight.shape[1], self.weight.shape[0], device=like.device, dtype=like.dtype
            )
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)
        return layer.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Base:
    """The network that an edit is of, by what it is loaded by.

    Attributes
    ----------
    model, weights : str
        As :func:`~cnn_interp.networks.loading.load_network` takes them.
    digest : str
        Of the network, its weights and its code.
    categories : tuple of str
        Its outputs' names.
    seed : int
        Of random weights.
    head : LinearLayer or None
        One that was trained on it, in place of its own last linear layer.
    learned : tuple of str
        What the images are told by that the head was trained on, such as the hashes of their files.
    """

    model: str
    weights: str
    digest: str
    categories: tuple[str, ...] = ()
    seed: int = 0
    head: LinearLayer | None = None
    learned: tuple[str, ...] = ()

    @classmethod
    def of(cls, network: Network, model: str = "", weights: str = "pretrained", seed: int = 0) -> Self:
        """Return what tells a network from all others; `model`, its name by default, is what it was loaded by."""
        return cls(model or network.name, weights, network_hash(network), network.categories, seed)

    def with_head(
        self, network: Network, head: LinearLayer, categories: Sequence[str], learned: Sequence[str] = ()
    ) -> tuple[Network, Base]:
        """Return this network with another last linear layer, and what tells it from all others."""
        headed = with_head(network, head, categories)
        told = replace(self, digest=network_hash(headed), categories=tuple(categories))
        return headed, replace(told, head=head, learned=tuple(learned))

    def load(self, device: str | torch.device = "cpu") -> Network:
        """Return the network.

        Raises
        ------
        InputError
            If it cannot be had, or is not the one that it was.
        """
        network = load_network(self.model, weights=self.weights, device=device, seed=self.seed)
        if self.head is not None:
            network = with_head(network, self.head, self.categories)
        return self.expect(network)

    def expect(self, network: Network) -> Network:
        """Return a network if it is this one.

        Raises
        ------
        InputError
            If it is another one.
        """
        found = network_hash(network)
        if found != self.digest:
            raise InputError(
                f"network {network.name!r}: is not the one that the edit was made for ({found[:12]}; expected "
                f"{self.model}, {self.digest[:12]})"
            )
        return network


def last_linear(network: Network) -> str:
    """Return the name of the linear layer that gives a network's outputs.

    Raises
    ------
    InputError
        If its outputs do not come from one.
    """
    ran: list[tuple[str, Tensor]] = []

    def noting(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: ran.append((name, output))

    handles = [
        module.register_forward_hook(noting(name))
        for name, module in network.module.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with instrumented(network.module, 0), torch.no_grad():
            outputs = network.module(network.normalise(torch.full((1, 3, network.size, network.size), 0.5)))
    finally:
        for handle in handles:
            handle.remove()
    if not ran or not isinstance(outputs, Tensor) or not torch.equal(ran[-1][1], outputs):
        raise InputError(
            f"network {network.name!r}: its outputs do not come from a linear layer; expected one that classifies so"
        )
    return ran[-1][0]


def with_head(network: Network, head: LinearLayer, categories: Sequence[str]) -> Network:
    """Return a network with another last linear layer; the one given stays as it is.

    Raises
    ------
    InputError
        If it has no such layer, or one with another number of inputs.
    """
    own = find_layer(network.module, head.name)
    if not isinstance(own, nn.Linear) or own.in_features != head.weight.shape[1]:
        raise InputError(
            f"layer {head.name!r}: is not a linear layer with {head.weight.shape[1]} inputs; expected one"
        )
    module = with_replaced(network.module, {head.name: head.module(own.weight)})
    return replace(network, module=module, categories=tuple(categories))


class WithoutPatterns(nn.Module):
    """A layer that gives what it would give without some of its patterns.

    Parameters
    ----------
    layer : Module
        The layer.
    patterns : Patterns
        Its patterns.
    taken : sequence of int
        Those to take out.
    """

    def __init__(self, layer: nn.Module, patterns: Patterns, taken: Sequence[int]) -> None:
        super().__init__()
        self.layer, self.patterns, self.taken = layer, patterns, tuple(taken)
        self.runs = 0
        # Not by train(), which would set the flags of the user's modules as well.
        self.training = layer.training

    def forward(self, *given: Any, **named: Any) -> Tensor:
        """Return the layer's output without the patterns, ``(n, units, h, w)``."""
        self.runs += 1
        output = self.layer(*given, **named)
        if not isinstance(output, Tensor):
            raise InputError(
                f"layer {self.patterns.layer!r}: gives a {type(output).__name__}; expected one tensor"
            )
        return self.patterns.without(output, self.taken)

    def extra_repr(self) -> str:
        """Return what tells this one from others; a network's hash is made of it."""
        told = hashlib.sha256(dump_json(self.patterns.description()).encode())
        for name, tensor in sorted(self.patterns.tensors().items()):
            told.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return (
            f"without {list(self.taken)} of {len(self.patterns)} {self.patterns.kind} {told.hexdigest()[:16]}"
        )


@dataclass(frozen=True, eq=False)
class NetworkEdit:
    """What was said of a layer's patterns, and all that is needed to do it to the network again.

    Attributes
    ----------
    base : Base
        The network that it is of.
    patterns : Patterns
        Of one of its layers.
    answers : tuple of Answer
        What was said, in order.
    refit : LinearLayer or None
        The network's last linear layer, trained anew without the patterns; None if it stays.
    """

    base: Base
    patterns: Patterns
    answers: tuple[Answer, ...] = ()
    refit: LinearLayer | None = None

    @property
    def standing(self) -> Standing:
        """What follows from the answers."""
        return standing(self.answers, len(self.patterns))

    @property
    def dropped(self) -> tuple[int, ...]:
        """The patterns that are taken out."""
        return self.standing.dropped

    def said(self, *lines: str) -> NetworkEdit:
        """Return the edit after more was said; a linear layer trained before is forgotten with it.

        Raises
        ------
        InputError
            If a line makes no sense.
        """
        return replace(self, answers=replayed(lines, len(self.patterns), self.answers), refit=None)

    def undone(self) -> NetworkEdit:
        """Return the edit without what was said last.

        Raises
        ------
        InputError
            If nothing was said.
        """
        if not self.answers:
            raise InputError("answers: there are none to take back; expected at least one")
        return replace(self, answers=self.answers[:-1], refit=None)

    def apply(self, network: Network) -> Network:
        """Return a network with the edit, which shares its weights; the one given stays as it is.

        Raises
        ------
        InputError
            If it is not the network that the edit was made for, or the layer cannot be replaced in it.
        """
        return without_patterns(self.base.expect(network), self.patterns, self.dropped, self.refit)

    def load(self, device: str | torch.device = "cpu") -> Network:
        """Load the network that the edit was made for, and return it with the edit."""
        return self.apply(self.base.load(device))

    def save(self, folder: Path | str) -> None:
        """Write ``edit.json`` and ``edit.safetensors``, which :func:`load_edit` reads; each file atomically."""
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            with atomic_path(home / name) as hidden:
                hidden.write_bytes(content)

    def files(self) -> dict[str, bytes]:
        """Return the files of the edit by their names: all its numbers, and what was said of which network."""
        tensors = {f"patterns.{name}": tensor for name, tensor in self.patterns.tensors().items()}
        for said, layer in (("head", self.base.head), ("refit", self.refit)):
            if layer is not None:
                tensors |= {f"{said}.weight": layer.weight, f"{said}.bias": layer.bias}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        numbers = safetensors.torch.save(plain, {"format": FORMAT})
        now = self.standing
        described = {
            "format": FORMAT,
            "format_version": VERSION,
            "network": {
                "model": self.base.model,
                "weights": self.base.weights,
                "seed": self.base.seed,
                "digest": self.base.digest,
                "categories": list(self.base.categories),
                "head": None if self.base.head is None else self.base.head.name,
                "learned": list(self.base.learned),
            },
            "patterns": {**self.patterns.description(), "count": len(self.patterns)},
            "answers": [answer.line() for answer in self.answers],
            "dropped": list(self.dropped),
            "names": {str(number): name for number, name in sorted(now.names.items())},
            "refit": None if self.refit is None else self.refit.name,
            "tensors": {"file": TENSORS, "sha256": hashlib.sha256(numbers).hexdigest()},
        }
        return {TENSORS: numbers, EDIT: (dump_json(described, indent=2) + "\n").encode()}


def without_patterns(
    network: Network, patterns: Patterns, taken: Sequence[int], refit: LinearLayer | None = None
) -> Network:
    """Return a network without some patterns of a layer, which shares its weights; the one given stays as it is.

    Raises
    ------
    InputError
        If the layer cannot be replaced, or does not run once in a pass.
    """
    layer = WithoutPatterns(find_layer(network.module, patterns.layer), patterns, taken)
    replacements: dict[str, nn.Module] = {patterns.layer: layer}
    if refit is not None:
        own = find_layer(network.module, refit.name)
        assert isinstance(own, nn.Linear)
        replacements[refit.name] = refit.module(own.weight)
    module = with_replaced(network.module, replacements)
    with instrumented(module, 0), torch.no_grad():
        module(network.normalise(torch.full((1, 3, network.size, network.size), 0.5)))
    if layer.runs != 1:
        raise InputError(
            f"layer {patterns.layer!r}: runs {layer.runs} times in a pass where it is replaced; expected once"
        )
    return replace(
        network, module=module, name=f"{network.name}, edited", code=_told(network, patterns, taken)
    )


def _told(network: Network, patterns: Patterns, taken: Sequence[int]) -> str:
    """Return a hash of what a network's weights do not tell of it once patterns are taken out."""
    told = hashlib.sha256(dump_json([network.code, patterns.description(), list(taken)]).encode())
    for name, tensor in sorted(patterns.tensors().items()):
        told.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return told.hexdigest()


def load_edit(path: Path | str) -> NetworkEdit:
    """Return the edit that :meth:`NetworkEdit.save` wrote.

    Parameters
    ----------
    path : path
        The folder, or its ``edit.json``.

    Raises
    ------
    InputError
        If it is missing or damaged, or its two files do not belong together.
    """
    given = Path(path)
    file = given / EDIT if given.is_dir() else given
    if not file.is_file():
        raise InputError(f"{given}: no {EDIT} there; expected the folder of an edit")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"no 'format': '{FORMAT}'")
        if content["format_version"] != VERSION:
            raise ValueError(f"format version {content['format_version']}")
        beside = file.parent / TENSORS
        if not beside.is_file():
            raise InputError(f"{file.parent}: no {TENSORS} beside {EDIT}; expected both files of an edit")
        if sha256(beside) != content["tensors"]["sha256"]:
            raise InputError(
                f"{beside}: is not the file that {EDIT} was written with; expected both of one edit"
            )
        tensors = safetensors.torch.load_file(beside)
        told: Mapping[str, Any] = content["network"]
        base = Base(
            str(told["model"]), str(told["weights"]), str(told["digest"]), tuple(map(str, told["categories"])),
            int(told["seed"]), _linear("head", told["head"], tensors), tuple(map(str, told["learned"])),
        )  # fmt: skip
        own = {name.partition(".")[2]: one for name, one in tensors.items() if name.startswith("patterns.")}
        patterns = patterns_from(content["patterns"], own)
        answers = [parse_answer(str(line)) for line in content["answers"]]
        edit = NetworkEdit(
            base, patterns, tuple(answer for answer in answers if answer is not None),
            _linear("refit", content["refit"], tensors),
        )  # fmt: skip
        if list(edit.dropped) != content["dropped"]:
            raise ValueError("what is dropped does not follow from the answers")
        return edit
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: cannot be read as an edit ({error})") from error


def _linear(said: str, name: Any, tensors: Mapping[str, Tensor]) -> LinearLayer | None:
    if name is None:
        return None
    weight, bias = tensors[f"{said}.weight"], tensors[f"{said}.bias"]
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.is_floating_point():
        raise ValueError(f"{said} of shapes {tuple(weight.shape)} and {tuple(bias.shape)}")
    return LinearLayer(str(name), weight, bias)


def load_edited(path: str, weights: str = "pretrained") -> Network:
    """Return the network that an edit was made for, with the edit.

    Parameters
    ----------
    path : str
        The edit's ``edit.json``.
    weights : str
        A file with the network's weights, for one that is not where it was; ``pretrained`` are those that it had.

    Raises
    ------
    InputError
        If either cannot be read, or they do not belong together.
    """
    edit = load_edit(path)
    if weights != "pretrained":
        edit = replace(edit, base=replace(edit.base, weights=weights))
    return replace(edit.load(), name=path)
