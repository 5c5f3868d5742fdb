"""Statistics of units over data of any length, in bounded memory: quantiles, largest values, overlaps with concepts.

Each can be added to in any portions, merged with one of other data, and written down as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interpretkit.errors import InputError

State = Mapping[str, NDArray[np.generic]]
CAPACITY = 4096
_UNITS_AT_ONCE = 64


class UpperQuantiles:
    """The upper quantiles of many units' values, with a bound of the error that holds for certain.

    The largest values are kept as they are. Of the others every second one is kept and counts twice, of those
    that overflow again every second one counts four times, and so on. A quantile whose tail fits into `capacity`
    values is therefore exact, and farther down the error grows with the distance from the top. This is the
    relative-error sketch of Cormode and others with alternating instead of random choices.

    Parameters
    ----------
    units : int
        How many; each gets as many values as the others.
    capacity : int
        How many values each level keeps for certain; it holds up to twice as many. The memory is
        ``8 · units · capacity`` bytes for each of about log₂(values ÷ capacity) levels.

    Attributes
    ----------
    count : int
        How many values each unit has been given.

    References
    ----------
    Cormode, Karnin, Liberty, Thaler, Veselý: Relative Error Streaming Quantiles, PODS 2021.
    """

    def __init__(self, units: int, *, capacity: int = CAPACITY) -> None:
        if units < 1 or capacity < 1:
            raise InputError(f"{units} units, capacity {capacity}: expected at least 1 of each")
        self.units = units
        self.capacity = capacity
        self.count = 0
        self._levels: list[Tensor] = [torch.empty(units, 0)]
        # How often each level has overflowed, and the largest value of each unit that was thinned out there.
        self._thinnings: list[int] = [0]
        self._thinned_up_to: list[Tensor] = [torch.full((units,), -torch.inf)]

    def add(self, values: Tensor) -> None:
        """Add values ``(units, m)``.

        Raises
        ------
        InputError
            If the shape does not fit, or a value is NaN.
        """
        if values.ndim != 2 or len(values) != self.units:
            raise InputError(f"values of shape {tuple(values.shape)}; expected ({self.units}, m)")
        if bool(values.isnan().any()):
            raise InputError("values: some are NaN; expected numbers")
        if self.count == 0:
            self._levels = [level.to(values) for level in self._levels]
            self._thinned_up_to = [bound.to(values) for bound in self._thinned_up_to]
        room = 2 * self.capacity
        for start in range(0, values.shape[1], room):
            portion = values[:, start : start + room]
            self.count += portion.shape[1]
            self._levels[0] = torch.cat([self._levels[0], portion], dim=1)
            self._thin()

    def threshold(self, share: float) -> Tensor:
        """Return the smallest value of each unit above which lie at most a share of its values, ``(units,)``.

        Parameters
        ----------
        share : float
            In 0 … 1. For 0.005 a two-hundredth of the values, or a little less, is larger than the result.

        Raises
        ------
        InputError
            If nothing has been added, or `share` is not in 0 … 1.
        """
        if not 0 <= share < 1:
            raise InputError(f"share {share}: expected 0 or more and less than 1")
        if self.count == 0:
            raise InputError("quantiles of no values; expected at least one")
        weights = torch.cat(
            [torch.full((level.shape[1],), 2**depth) for depth, level in enumerate(self._levels)]
        ).to(self._levels[0].device)
        # A share of 0.29 of 100 values is 29 of them, whatever the product is in binary.
        allowed = int(np.floor(share * self.count * (1 + 1e-12)))
        thresholds = []
        # Sorting takes several times the memory of what is sorted, which for all units at once is the whole sketch.
        for some in zip(*(level.split(_UNITS_AT_ONCE) for level in self._levels), strict=True):
            ordered, order = torch.cat(some, dim=1).sort(dim=1, descending=True)
            heavier = weights[order].cumsum(dim=1) > allowed
            # A thinned level may weigh a little less than what it stands for, so that nothing is heavy enough.
            first = torch.where(heavier.any(1), heavier.int().argmax(dim=1), ordered.shape[1] - 1)
            thresholds.append(ordered.gather(1, first[:, None])[:, 0])
        return torch.cat(thresholds)

    def rank_error(self, values: Tensor) -> Tensor:
        """Return how far the share of a unit's values above `values` may be from the sketch's, at most.

        Parameters
        ----------
        values : Tensor, (units,)
            Such as :meth:`threshold` gives.

        Returns
        -------
        Tensor, (units,)
            A share of all values; 0 where the sketch is exact.
        """
        error = torch.zeros(self.units, dtype=torch.float64, device=values.device)
        for depth, (times, bound) in enumerate(zip(self._thinnings, self._thinned_up_to, strict=True)):
            error += torch.where(values < bound, float(times * 2**depth), 0.0)
        return error / max(self.count, 1)

    def merge(self, other: Self) -> None:
        """Add what another sketch of the same units holds.

        Raises
        ------
        InputError
            If it has other units or another capacity.
        """
        if (self.units, self.capacity) != (other.units, other.capacity):
            raise InputError(
                f"sketches of {self.units} and {other.units} units, capacities {self.capacity} and "
                f"{other.capacity}; expected the same"
            )
        if other.count == 0:
            return
        if self.count == 0:
            self._levels = [level.to(other._levels[0]) for level in self._levels]
        like = self._levels[0]
        for depth, (level, times, bound) in enumerate(
            zip(other._levels, other._thinnings, other._thinned_up_to, strict=True)
        ):
            self._reach(depth)
            self._levels[depth] = torch.cat([self._levels[depth], level.to(like)], dim=1)
            self._thinnings[depth] += times
            self._thinned_up_to[depth] = torch.maximum(self._thinned_up_to[depth].to(like), bound.to(like))
        self.count += other.count
        self._thin()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all that the sketch knows as arrays."""
        arrays: dict[str, NDArray[np.generic]] = {
            "units": np.array(self.units),
            "capacity": np.array(self.capacity),
            "count": np.array(self.count),
            "thinnings": np.array(self._thinnings),
        }
        for depth, (level, bound) in enumerate(zip(self._levels, self._thinned_up_to, strict=True)):
            arrays[f"level_{depth}"] = level.cpu().numpy()
            arrays[f"thinned_up_to_{depth}"] = bound.cpu().numpy()
        return arrays

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Return the sketch that :meth:`state` wrote down."""
        sketch = cls(int(state["units"]), capacity=int(state["capacity"]))
        sketch.count = int(state["count"])
        sketch._thinnings = [int(times) for times in state["thinnings"]]
        depths = range(len(sketch._thinnings))
        sketch._levels = [torch.tensor(state[f"level_{depth}"]) for depth in depths]
        sketch._thinned_up_to = [torch.tensor(state[f"thinned_up_to_{depth}"]) for depth in depths]
        return sketch

    def _reach(self, depth: int) -> None:
        while len(self._levels) <= depth:
            self._levels.append(self._levels[0].new_empty(self.units, 0))
            self._thinnings.append(0)
            self._thinned_up_to.append(self._levels[0].new_full((self.units,), -torch.inf))

    def _thin(self) -> None:
        """Let every level that is over full pass every second one of its smaller values to the next."""
        depth = 0
        while depth < len(self._levels):
            level = self._levels[depth]
            surplus = level.shape[1] - self.capacity
            if level.shape[1] > 2 * self.capacity:
                surplus -= surplus % 2
                ordered = _sorted(level)
                lower = ordered[:, :surplus]
                self._reach(depth + 1)
                kept = lower[:, self._thinnings[depth] % 2 :: 2]
                self._levels[depth] = ordered[:, surplus:].clone()
                self._levels[depth + 1] = torch.cat([self._levels[depth + 1], kept], dim=1)
                self._thinned_up_to[depth] = torch.maximum(self._thinned_up_to[depth], lower[:, -1])
                self._thinnings[depth] += 1
            depth += 1


def _sorted(values: Tensor) -> Tensor:
    # NumPy sorts several times faster than torch on a CPU.
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


class LargestValues:
    """The largest values of many units, with the items that gave them and the place within the item.

    Memory does not grow with the number of items. Of equal values those of the items with the smaller numbers are
    kept, and come first.

    Parameters
    ----------
    units : int
        How many.
    k : int
        How many values to keep of each.

    Attributes
    ----------
    values : Tensor, (units, m)
        Falling; m is `k`, or the number of items if there were fewer.
    items : Tensor of int64, (units, m)
        The items' numbers.
    places : Tensor of int64, (units, m)
        Where in the item the value is, such as a position on a map; 0 where none was given.
    count : int
        How many items each unit has been given.
    """

    def __init__(self, units: int, k: int) -> None:
        if units < 1 or k < 1:
            raise InputError(f"{units} units, k = {k}: expected at least 1 of each")
        self.units = units
        self.k = k
        self.count = 0
        self.values: Tensor = torch.empty(units, 0)
        self.items: Tensor = torch.empty(units, 0, dtype=torch.int64)
        self.places: Tensor = torch.empty(units, 0, dtype=torch.int64)

    def add(self, values: Tensor, items: Tensor, places: Tensor | None = None) -> None:
        """Add one value of each unit for each item.

        Parameters
        ----------
        values : Tensor, (units, m)
            The values.
        items : Tensor of int64, (m,)
            The items' numbers.
        places : Tensor of int64, (units, m), optional
            Where in its item each value is.

        Raises
        ------
        InputError
            If a shape does not fit, or a value is NaN.
        """
        places = torch.zeros(values.shape, dtype=torch.int64) if places is None else places
        if values.shape != (self.units, len(items)) or places.shape != values.shape:
            raise InputError(
                f"values and places of shapes {tuple(values.shape)} and {tuple(places.shape)}; "
                f"expected ({self.units}, {len(items)})"
            )
        if bool(values.isnan().any()):
            raise InputError("values: some are NaN; expected numbers")
        self._keep(values, items.expand(self.units, -1), places)
        self.count += len(items)

    def merge(self, other: Self) -> None:
        """Add what another one of the same units holds; its items must be other ones.

        Raises
        ------
        InputError
            If it has other units, or keeps another number of values.
        """
        if (self.units, self.k) != (other.units, other.k):
            raise InputError(
                f"largest {self.k} of {self.units} units and {other.k} of {other.units}; expected the same"
            )
        self._keep(other.values, other.items, other.places)
        self.count += other.count

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all that is kept as arrays."""
        return {
            "k": np.array(self.k),
            "count": np.array(self.count),
            "values": self.values.cpu().numpy(),
            "items": self.items.cpu().numpy(),
            "places": self.places.cpu().numpy(),
        }

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Return what :meth:`state` wrote down."""
        kept = cls(len(state["values"]), int(state["k"]))
        kept.count = int(state["count"])
        kept.values, kept.items, kept.places = (
            torch.tensor(state[name]) for name in ("values", "items", "places")
        )
        return kept

    def _keep(self, values: Tensor, items: Tensor, places: Tensor) -> None:
        values = torch.cat([self.values.to(values), values], dim=1)
        items = torch.cat([self.items.to(values.device), items.to(values.device)], dim=1)
        places = torch.cat([self.places.to(values.device), places.to(values.device)], dim=1)
        by_item = items.argsort(dim=1)
        by_value = values.gather(1, by_item).argsort(dim=1, descending=True, stable=True)[:, : self.k]
        order = by_item.gather(1, by_value)
        self.values, self.items, self.places = (kept.gather(1, order) for kept in (values, items, places))


@dataclass(frozen=True, eq=False)
class ShownConcepts:
    """What an image shows, as :class:`Overlaps` takes it; the same for all layers.

    Attributes
    ----------
    concepts : ndarray of int, (c,)
        The concepts that it shows, counted from 0, ascending.
    masks : Tensor of float32, (c, pixels)
        Where they are: 1, elsewhere 0.
    """

    concepts: NDArray[np.int64]
    masks: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> Self:
        """Return what labels show.

        Parameters
        ----------
        labels : Tensor of int64, (k, pixels)
            Concepts, where 1 stands for the first and 0 for none; in k layers, since a pixel can show several.
        """
        # Counting is much faster than the sorting behind torch.unique.
        present = labels.flatten().bincount(minlength=1)[1:].nonzero()[:, 0] + 1
        masks = (labels[None] == present[:, None, None]).any(dim=1).float()
        return cls(present.cpu().numpy() - 1, masks)


class Overlaps:
    """How much the masks of units and of concepts overlap, over many images.

    A unit's area counts against a concept only in images that contain some concept of the same category, for
    where a category has not been labelled nothing is known of it.

    Parameters
    ----------
    units : int
        How many.
    category_of : sequence of int, (concepts,)
        The number of each concept's category, from 0.
    """

    def __init__(self, units: int, category_of: Sequence[int] | ArrayLike) -> None:
        self.units = units
        self.category_of = np.asarray(category_of, dtype=np.int64)
        if (
            units < 1
            or self.category_of.ndim != 1
            or len(self.category_of) == 0
            or self.category_of.min() < 0
        ):
            raise InputError(f"{units} units, categories {self.category_of}: expected at least one of each")
        categories = int(self.category_of.max()) + 1
        self.intersection = np.zeros((units, len(self.category_of)), dtype=np.int64)
        self.unit_area = np.zeros((units, categories), dtype=np.int64)
        self.concept_area = np.zeros(len(self.category_of), dtype=np.int64)

    def add(self, active: Tensor, masks: Tensor, shown: ShownConcepts) -> None:
        """Add one image.

        Parameters
        ----------
        active : Tensor of int64, (m,)
            The units that have a mask in it, each once; the masks of the others are empty.
        masks : Tensor of bool, (m, pixels)
            Their masks.
        shown : ShownConcepts
            The concepts in it.
        """
        concepts = shown.concepts
        if len(concepts) == 0:
            return
        units = active.cpu().numpy()
        # Sums of zeros and ones: exact in single precision up to 16 million pixels.
        self.concept_area[concepts] += shown.masks.sum(dim=1).long().cpu().numpy()
        if len(units):
            weighed = masks.float()
            common = (weighed @ shown.masks.T).round().long().cpu().numpy()
            self.intersection[np.ix_(units, concepts)] += common
            categories = np.unique(self.category_of[concepts])
            self.unit_area[np.ix_(units, categories)] += weighed.sum(dim=1).long().cpu().numpy()[:, None]

    def iou(self) -> NDArray[np.float64]:
        """Return intersection over union of each unit and concept, ``(units, concepts)``; 0 where both are empty."""
        union = self.unit_area[:, self.category_of] + self.concept_area - self.intersection
        return np.divide(
            self.intersection, union, out=np.zeros(self.intersection.shape), where=union > 0, dtype=np.float64
        )

    def merge(self, other: Self) -> None:
        """Add the counts of other images.

        Raises
        ------
        InputError
            If they are of other units or concepts.
        """
        if self.units != other.units or not np.array_equal(self.category_of, other.category_of):
            raise InputError("overlaps of other units or concepts; expected the same")
        self.intersection += other.intersection
        self.unit_area += other.unit_area
        self.concept_area += other.concept_area

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all counts as arrays."""
        return {
            "category_of": self.category_of,
            "intersection": self.intersection,
            "unit_area": self.unit_area,
            "concept_area": self.concept_area,
        }

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Return the counts that :meth:`state` wrote down."""
        counts = cls(len(state["intersection"]), state["category_of"])
        counts.intersection = state["intersection"].astype(np.int64)
        counts.unit_area = state["unit_area"].astype(np.int64)
        counts.concept_area = state["concept_area"].astype(np.int64)
        return counts
