"""A person and the patterns of a network's layer: which to ask about next, what was said, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cnn_interp.diagnosis.linear_head import DEFAULT_L2, Scaling, fit_head
from cnn_interp.disentangling.concepts import Method
from cnn_interp.disentangling.explanatory_graph import Patch, patch_box
from cnn_interp.disentangling.features import LayerMaps, trunk_features
from cnn_interp.images.batches import network_inputs
from cnn_interp.images.sets import Images, LabelledImages
from cnn_interp.middle_to_end.answers import number_of
from cnn_interp.middle_to_end.network_edit import Base, LinearLayer, NetworkEdit, last_linear
from cnn_interp.middle_to_end.patterns import Kind, Patterns, Towards, find_patterns, strongest
from cnn_interp.networks.network import Network
from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer, instrumented
from interpretkit.networks.recording import layer_outputs
from interpretkit.networks.truncated import From

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
REFIT_L2 = 0.03
_FOLDS = 5
# Values of the layer, or of patterns, that are held at once, about 64 MB: each portion costs a pass of the network too.
_VALUES_AT_ONCE = 1 << 24


class Above:
    """What follows a layer of a network, as a function of the layer's maps.

    Parameters
    ----------
    network : Network
        Stays as it is.
    layer : str
        The layer's dotted name.
    inputs : Tensor, (n, 3, size, size)
        A few images as the network takes them, on which it is seen that the outputs follow from the layer's maps.

    Raises
    ------
    InputError
        If there is no such layer, or the outputs depend on more than it.
    """

    def __init__(self, network: Network, layer: str, inputs: Tensor) -> None:
        blank = network.normalise(torch.full((1, 3, network.size, network.size), 0.5))
        self.network, self.layer = network, layer
        self.module = From(network.module, layer, blank)
        outputs, maps = layer_outputs(network.module, inputs, [layer])
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise InputError(f"network {network.name!r}: expected one tensor of scores, (images, categories)")
        if maps[layer].ndim != 4:
            raise InputError(f"layer {layer!r}: gives no maps; expected one that does")
        with instrumented(network.module, 0):
            self.module.expect_the_same(maps[layer], outputs)

    @cached_property
    def last(self) -> str:
        """The name of the linear layer that gives the outputs."""
        return last_linear(self.network)

    def outputs(self, maps: LayerMaps, change: Callable[[Tensor], Tensor] | None = None) -> Floats:
        """Return the outputs ``(n, outputs)`` for maps, after a change to them if one is given."""
        return self._run(maps, change, None)

    def features(self, maps: LayerMaps, change: Callable[[Tensor], Tensor] | None = None) -> Floats:
        """Return what the last linear layer is given, ``(n, d)``, for maps after a change to them."""
        return self._run(maps, change, find_layer(self.network.module, self.last))

    def _run(
        self, maps: LayerMaps, change: Callable[[Tensor], Tensor] | None, watched: nn.Module | None
    ) -> Floats:
        seen: list[Tensor] = []
        handle = (
            None
            if watched is None
            else watched.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        )
        found = []
        try:
            with instrumented(self.network.module, 0), torch.no_grad():
                at_once = max(1, _VALUES_AT_ONCE // int(np.prod(maps.maps.shape[1:])))
                for start in range(0, len(maps), at_once):
                    values = maps.tensor(slice(start, start + at_once), self.network.device)
                    seen.clear()
                    outputs = self.module(values if change is None else change(values))
                    found.append((outputs if watched is None else seen[-1]).double().cpu().numpy())
        finally:
            if handle is not None:
                handle.remove()
        return np.concatenate(found)

    def head(self) -> LinearLayer:
        """Return the last linear layer."""
        own = find_layer(self.network.module, self.last)
        assert isinstance(own, nn.Linear)
        bias = torch.zeros(own.out_features) if own.bias is None else own.bias.detach().cpu()
        return LinearLayer(self.last, own.weight.detach().cpu(), bias)


@dataclass(frozen=True, eq=False)
class Effect:
    """What an edit does to a network on some images.

    Attributes
    ----------
    labels : ndarray of int, (n,)
        The images' categories.
    before, after : ndarray of int, (n,)
        The category that the network gives before and after; −1 where its answer is none of them.
    names : tuple of str
        What the categories are called.
    """

    labels: Integers
    before: Integers
    after: Integers
    names: tuple[str, ...]

    @property
    def accuracy(self) -> tuple[float, float]:
        """Share of right answers before and after."""
        return float((self.before == self.labels).mean()), float((self.after == self.labels).mean())

    @property
    def changed(self) -> Integers:
        """The numbers of the images whose answer changes."""
        return np.flatnonzero(self.before != self.after)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each category that is among the images: accuracy before and after, and what changes."""
        found = []
        for number, name in enumerate(self.names):
            own = self.labels == number
            if not own.any():
                continue
            right = (self.before[own] == number), (self.after[own] == number)
            found.append(
                {
                    "category": name,
                    "images": int(own.sum()),
                    "before": float(right[0].mean()),
                    "after": float(right[1].mean()),
                    "change": float(right[1].mean() - right[0].mean()),
                    "mended": int((~right[0] & right[1]).sum()),
                    "spoiled": int((right[0] & ~right[1]).sum()),
                    "answered": int((self.after == number).sum() - (self.before == number).sum()),
                }
            )
        return found


@dataclass(frozen=True, eq=False)
class Pull:
    """What each pattern adds to the outputs of a network, on some images.

    Attributes
    ----------
    totals : ndarray of float, (n, patterns, categories)
        Summed over positions, to first order; see :meth:`Patterns.pull`.
    answers : ndarray of int, (n,)
        Which of the categories has the largest output.
    overlap : ndarray of float, (n, patterns)
        Cosine of where the pattern speaks for that answer, and where all else does: 1 at the same positions in the same
        measure, 0 at different ones.
    """

    totals: Floats
    answers: Integers
    overlap: Floats

    @property
    def margins(self) -> Floats:
        """How much each adds to the answer more than to the mean of the other categories, ``(n, patterns)``."""
        own = self.totals[np.arange(len(self.answers)), :, self.answers]
        return own - (self.totals.sum(axis=2) - own) / max(self.totals.shape[2] - 1, 1)


@dataclass(frozen=True)
class Candidate:
    """A pattern, and why one should ask about it.

    Attributes
    ----------
    number : int
        Its number.
    category : int
        To which it adds most, against the mean of the others, in the images where it matters.
    influence : float
        How much it adds to that category in the images where it is strongest: the mean of the largest tenth.
    blame : float
        How much it adds to the wrong answers more than to the right ones, summed over the images with wrong answers and
        divided by the number of all images.
    overlap : float
        How far it speaks from where all else does that speaks for the same answer; see :class:`Pull`.
    suspicion : float
        By which candidates are ordered: blame, and influence apart from all else, each over the largest there is.
    """

    number: int
    category: int
    influence: float
    blame: float
    overlap: float
    suspicion: float

    @property
    def apart(self) -> float:
        """How much it adds where nothing else speaks for the same answer."""
        return self.influence * (1 - self.overlap)


class EditingSession:
    """The patterns of a layer on a user's images, and an edit that grows by what is said.

    It is apart from any face: a terminal, a script, a page or a simulated person says lines to it. All of its state
    is in `edit`.

    Parameters
    ----------
    network : Network
        Stays as it is.
    edit : NetworkEdit
        Of this network.
    images : LabelledImages
        With labels from 0.
    targets : array_like of int, (categories,)
        The network's outputs for the images' categories.
    maps : LayerMaps
        Of the patterns' layer, for these images.

    Raises
    ------
    InputError
        If the edit is of another network or layer, or a label or output is out of range.
    """

    def __init__(
        self, network: Network, edit: NetworkEdit, images: LabelledImages, targets: ArrayLike, maps: LayerMaps
    ) -> None:
        edit.base.expect(network)
        if maps.layer != edit.patterns.layer or len(maps) != len(images):
            raise InputError(
                f"maps of {len(maps)} images at {maps.layer!r}: expected those of {len(images)} images at "
                f"{edit.patterns.layer!r}"
            )
        self.network, self.edit, self.images, self.maps = network, edit, images, maps
        self.targets = np.asarray(targets, dtype=np.int64)
        self.names = tuple(
            images.category_names[number] if images.category_names else str(number)
            for number in range(len(self.targets))
        )
        if not len(images) or images.labels.min() < 0 or images.labels.max() >= len(self.targets):
            raise InputError(f"{images.name}: labels out of range; expected 0 to {len(self.targets) - 1}")
        first = range(min(2, len(images)))
        self.above = Above(network, maps.layer, network_inputs(network, images, first))
        self._plain = self.above.outputs(maps)
        if self.targets.max() >= self._plain.shape[1] or len(set(self.targets.tolist())) < len(self.targets):
            raise InputError(
                f"targets {self.targets.tolist()}: expected different ones of {self._plain.shape[1]} outputs"
            )
        self._pulls: dict[tuple[int, ...], Pull] = {}
        self._crossed: tuple[NetworkEdit, Floats] | None = None

    @classmethod
    def begin(
        cls,
        network: Network,
        base: Base,
        images: LabelledImages,
        targets: ArrayLike,
        layer: str,
        kind: Kind = "concepts",
        *,
        count: int | None = None,
        method: Method = "nmf",
        towards: Towards = "mean",
        folder: Path | None = None,
        seed: int = 0,
        quiet: bool = True,
    ) -> EditingSession:
        """Find the patterns of a layer in a user's images, and begin.

        See :func:`~cnn_interp.middle_to_end.patterns.find_patterns`; in `folder` maps are kept.
        """
        features = trunk_features(network, images, [layer], folder, quiet=quiet)
        patterns = find_patterns(
            features, layer, kind, count=count, method=method, towards=towards, seed=seed, quiet=quiet
        )
        return cls(network, NetworkEdit(base, patterns), images, targets, features[layer])

    @classmethod
    def unlabelled(
        cls,
        network: Network,
        base: Base,
        images: Images,
        layer: str,
        kind: Kind = "concepts",
        *,
        edit: NetworkEdit | None = None,
        folder: Path | None = None,
        seed: int = 0,
        quiet: bool = True,
    ) -> EditingSession:
        """Begin with images of which nobody said what they are: what the network says now stands for it.

        Accuracy is then the share of answers that stay, and no answer is wrong to begin with.

        Parameters
        ----------
        network, base, images, layer, kind, folder, seed, quiet
            See :meth:`begin`.
        edit : NetworkEdit, optional
            One to go on from, with its patterns.

        Raises
        ------
        InputError
            If the outputs of the network do not follow from the layer's maps.
        """
        features = trunk_features(network, images, [layer], folder, quiet=quiet)
        above = Above(network, layer, network_inputs(network, images, range(min(2, len(images)))))
        targets, labels = np.unique(above.outputs(features[layer]).argmax(axis=1), return_inverse=True)
        known = network.categories
        told = LabelledImages(
            name=images.name,
            ids=images.ids,
            load=images.load,
            load_size=images.load_size,
            source=images.source,
            labels=labels,
            category_names=tuple(known[number] if known else str(number) for number in targets),
        )
        if edit is None:
            edit = NetworkEdit(base, find_patterns(features, layer, kind, seed=seed, quiet=quiet))
        return cls(network, edit, told, targets, features[layer])

    @property
    def measured_on_learned(self) -> bool:
        """Whether the edit has a layer that may have been trained on the very images that its effect is measured on."""
        return self.edit.refit is not None and (self._crossed is None or self._crossed[0] is not self.edit)

    @property
    def patterns(self) -> Patterns:
        """The patterns."""
        return self.edit.patterns

    # ------------------------------------------------------------------------------------------ what is said

    def say(self, *lines: str) -> Effect:
        """Take what a person says, and return what the network does now; see :mod:`cnn_interp.middle_to_end.answers`.

        Raises
        ------
        InputError
            If a line makes no sense; nothing of it is taken then.
        """
        self.edit = self.edit.said(*lines)
        return self.effect()

    def undo(self) -> Effect:
        """Take back what was said last."""
        self.edit = self.edit.undone()
        return self.effect()

    def refit(self, l2: float = REFIT_L2) -> Effect:
        """Train the network's last linear layer anew on these images, without the patterns that were dropped.

        What is learned is a correction of the layer's weights for the images' categories, kept small by `l2`; other
        outputs stay as they are. The effect on an image is that of a layer that was trained without it, in five parts,
        so that nothing is measured on what was learned from.
        """
        features = self.above.features(self.maps, self._change())
        labels, head = self.images.labels, self.above.head()
        edit = replace(self.edit, refit=refitted(head, features, labels, self.targets, l2))
        # Categories take turns, so that every part has its share of each.
        part = np.empty(len(labels), dtype=np.intp)
        part[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % _FOLDS
        outputs = np.empty((len(labels), len(head.bias)))
        for number in np.unique(part):
            out = part == number
            if out.all():
                raise InputError(f"{self.images.name}: {len(labels)} image; expected two to train a layer on")
            layer = refitted(head, features[~out], labels[~out], self.targets, l2)
            outputs[out] = layer.outputs(features[out])
        self.edit, self._crossed = edit, (edit, outputs)
        return self.effect()

    # ------------------------------------------------------------------------------------------ what follows

    def outputs(self, maps: LayerMaps | None = None) -> Floats:
        """Return the outputs of the edited network for these images, or for others by their maps, ``(n, outputs)``."""
        some = self.maps if maps is None else maps
        refit = self.edit.refit
        if refit is None:
            return self.above.outputs(some, self._change())
        return refit.outputs(self.above.features(some, self._change()))

    def effect(self) -> Effect:
        """Return what the edit does on these images; see :meth:`refit`."""
        plain = self._plain
        # An edit is the same object as long as nothing was said or undone.
        crossed = self._crossed is not None and self._crossed[0] is self.edit
        edited = self._crossed[1] if crossed and self._crossed is not None else self.outputs()
        return Effect(self.images.labels, self._told(plain), self._told(edited), self.names)

    def _told(self, outputs: Floats) -> Integers:
        by_output = np.full(outputs.shape[1], -1)
        by_output[self.targets] = np.arange(len(self.targets))
        return by_output[outputs.argmax(axis=1)]

    def _change(self) -> Callable[[Tensor], Tensor] | None:
        dropped = self.edit.dropped
        return None if not dropped else lambda values: self.patterns.without(values, dropped)

    def pull(self) -> Pull:
        """Return what each pattern adds to the outputs of the network as it is edited now."""
        dropped = self.edit.dropped
        if dropped not in self._pulls:
            self._pulls = {dropped: self._measured()}
        return self._pulls[dropped]

    def _measured(self) -> Pull:
        count, categories = len(self.patterns), len(self.targets)
        cells = self.maps.shape[0] * self.maps.shape[1]
        at_once = max(1, _VALUES_AT_ONCE // (max(count * categories, self.maps.units) * cells))
        change = self._change()
        device = self.network.device
        rest = self.patterns.rest.to(device)[:, None, None]
        totals, answers, overlaps = [], [], []
        with instrumented(self.network.module, 0):
            for start in range(0, len(self.maps), at_once):
                values = self.maps.tensor(slice(start, start + at_once), device)
                values = (values if change is None else change(values)).detach().requires_grad_()
                outputs = self.above.module(values)[:, torch.as_tensor(self.targets, device=device)]
                pulls, every = [], []
                for category in range(categories):
                    (gradient,) = torch.autograd.grad(
                        outputs[:, category].sum(), values, retain_graph=category + 1 < categories
                    )
                    with torch.no_grad():
                        pulls.append(self.patterns.pull(values, gradient))
                        every.append((gradient * (values - rest)).sum(dim=1, keepdim=True))
                with torch.no_grad():
                    told = outputs.argmax(dim=1)
                    pull, whole = torch.stack(pulls, dim=1), torch.stack(every, dim=1)
                    totals.append(pull.sum(dim=(3, 4)).transpose(1, 2).double().cpu().numpy())
                    answers.append(told.cpu().numpy())
                    overlaps.append(
                        _overlap(_margin(pull, told), _margin(whole, told)).double().cpu().numpy()
                    )
        return Pull(np.concatenate(totals), np.concatenate(answers), np.concatenate(overlaps))

    def candidates(self) -> list[Candidate]:
        """Return all patterns that there are and are not dropped, the most suspicious first."""
        now, pull = self.edit.standing, self.pull()
        dropped = set(now.dropped)
        wrong = pull.answers != self.images.labels
        found = []
        for number, members in now.members.items():
            if dropped.intersection(members):
                continue
            own = pull.totals[:, list(members)].sum(axis=1)
            against = own - (own.sum(axis=1, keepdims=True) - own) / max(own.shape[1] - 1, 1)
            top = max(1, len(own) // 10)
            strongest_pulls = np.sort(against, axis=0)[-top:].mean(axis=0)
            category = int(strongest_pulls.argmax())
            rows = np.arange(len(own))
            towards_wrong = own[rows, pull.answers] - own[rows, self.images.labels]
            margin = np.maximum(pull.margins[:, list(members)].sum(axis=1), 0)
            overlap = pull.overlap[:, list(members)].mean(axis=1)
            weight = float(margin.sum())
            apart = 1 - float((overlap * margin).sum()) / weight if weight > 0 else 0.0
            influence, blame = float(strongest_pulls[category]), float(towards_wrong[wrong].sum() / len(own))
            found.append(Candidate(number, category, influence, blame, 1 - apart, 0.0))
        # Two signs of one thing in different units: each counts over the largest there is.
        most_blame = max([one.blame for one in found if one.blame > 0], default=1.0)
        most_apart = max([one.apart for one in found if one.apart > 0], default=1.0)
        found = [
            replace(one, suspicion=max(one.blame, 0.0) / most_blame + max(one.apart, 0.0) / most_apart)
            for one in found
        ]
        return sorted(found, key=lambda one: (-one.suspicion, one.number))

    def numbered(self, word: str) -> int:
        """Return the number of a pattern that a person calls by number or name.

        Raises
        ------
        InputError
            If there is none, or not any more.
        """
        return number_of(word, self.edit.standing, len(self.patterns))

    def question(self) -> int | None:
        """Return the most suspicious pattern that was not judged yet; None when all were."""
        judged = self.edit.standing.judged
        return next((one.number for one in self.candidates() if one.number not in judged), None)

    # ------------------------------------------------------------------------------------------ what is shown

    @cached_property
    def _strongest(self) -> tuple[Floats, Integers]:
        return strongest(self.patterns, self.maps)

    def patches(self, number: int, count: int = 8) -> list[Patch]:
        """Return the images in which a pattern is strongest, and where; the strongest first.

        Of a merged pattern, the members' in turn.
        """
        values, places = self._strongest
        members = self.edit.standing.members[number]
        found: dict[int, Patch] = {}
        orders = {member: np.argsort(-values[:, member], kind="stable") for member in members}
        for rank in range(len(values)):
            for member in members:
                image = int(orders[member][rank])
                if len(found) < count and values[image, member] > 0 and image not in found:
                    row, column = self.maps.grid.centres(places[image, member])
                    position = (float(row), float(column))
                    box = patch_box(self.maps.grid, position)
                    found[image] = Patch(number, image, float(values[image, member]), position, box)
        return list(found.values())


def _margin(pull: Tensor, told: Tensor) -> Tensor:
    """Return what is added to the answer more than to the mean of the others, ``(n, patterns, h, w)``."""
    own = pull[torch.arange(len(pull)), told]
    return own - (pull.sum(dim=1) - own) / max(pull.shape[1] - 1, 1)


def _overlap(own: Tensor, every: Tensor) -> Tensor:
    """Return the cosine of patterns' maps ``(n, patterns, h, w)`` with all else ``(n, 1, h, w)``, positive parts."""
    one, other = own.clamp_min(0).flatten(2), (every - own).clamp_min(0).flatten(2)
    length = one.norm(dim=2) * other.norm(dim=2)
    return (one * other).sum(dim=2) / length.clamp_min(1e-12)


def refitted(
    head: LinearLayer,
    features: Floats,
    labels: NDArray[np.integer],
    targets: NDArray[np.integer],
    l2: float = REFIT_L2,
) -> LinearLayer:
    """Return a linear layer with a correction of its rows for some outputs, trained on features ``(n, d)``.

    The correction is the one with the least cross-entropy among the outputs named, plus l2/2 · its squared length on
    features that are centred and scaled as :class:`~cnn_interp.diagnosis.linear_head.Scaling` does.
    """
    scaling = Scaling.of(features)
    weight, bias = head.weight.double().numpy().copy(), head.bias.double().numpy().copy()
    rows = np.asarray(targets)
    offset = features @ weight[rows].T + bias[rows]
    found = fit_head(scaling(features), labels, classes=len(rows), l2=l2, offset=offset).weights
    change = found[:, :-1] / scaling.length
    weight[rows] += change
    bias[rows] += found[:, -1] - change @ scaling.mean
    return LinearLayer(head.name, torch.from_numpy(weight).float(), torch.from_numpy(bias).float())


def trained_head(
    name: str, features: Floats, labels: NDArray[np.integer], classes: int, l2: float = DEFAULT_L2
) -> LinearLayer:
    """Return a linear layer trained on what the last one of a network is given, ``(n, d)``."""
    scaling = Scaling.of(features)
    found = fit_head(scaling(features), labels, classes=classes, l2=l2).weights
    weight = found[:, :-1] / scaling.length
    return LinearLayer(
        name, torch.from_numpy(weight).float(), torch.from_numpy(found[:, -1] - weight @ scaling.mean).float()
    )
