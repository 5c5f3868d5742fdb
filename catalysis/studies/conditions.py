"""What designs must be: on some facets, of some classes, of some metals, not too dear."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import softmax

from catalysis.structure.surfaces import facet_name, parse_facet
from catalysis.studies.prices import PRICES_USD_PER_G, usd_per_mol
from interpretkit.errors import InputError


@dataclass(frozen=True)
class Conditions:
    """Conditions on sites, each empty or None where nothing is asked for.

    Attributes
    ----------
    facets, site_classes : tuple of str
        The only ones that are wanted.
    elements, without : tuple of str
        The only metals that may occur, and metals that may not.
    prices : mapping of str to float
        US dollars per gram by metal, in place of those of `PRICES_USD_PER_G`.
    max_price : float or None
        What a site's metals may cost, in US dollars per mole of atoms.
    """

    facets: tuple[str, ...] = ()
    site_classes: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict)
    max_price: float | None = None

    @property
    def facet_names(self) -> set[str]:
        """The facets in the house's spelling."""
        return {facet_name(parse_facet(facet, "facets")) for facet in self.facets}

    def allows(self, facet: str, site_class: str) -> bool:
        """Tell whether a class of a facet is wanted."""
        return (not self.facets or facet in self.facet_names) and (
            not self.site_classes or site_class in self.site_classes
        )

    def allowed(self, known: Sequence[str]) -> tuple[str, ...]:
        """Return those of the known metals that may occur, in their order."""
        return tuple(e for e in known if (not self.elements or e in self.elements) and e not in self.without)

    def usd_per_mol(self, elements: Sequence[str]) -> np.ndarray:
        """Return what a mole of each metal costs, in US dollars, (elements,); NaN where no price is known."""
        return usd_per_mol(elements, {**PRICES_USD_PER_G, **self.prices})

    def check(self, *, known_elements: Collection[str], known_classes: Collection[tuple[str, str]]) -> None:
        """Refuse conditions that name what is unknown, that nothing can meet, or that do nothing.

        Parameters
        ----------
        known_elements
            Of the model.
        known_classes
            Facets and classes of the model.

        Raises
        ------
        InputError
            In one line that names the condition.
        """
        self._check_sites(known_classes)
        self._check_metals(sorted(known_elements))
        self._check_prices(self.allowed(sorted(known_elements)))

    def _check_sites(self, known: Collection[tuple[str, str]]) -> None:
        facets, classes = {facet for facet, _ in known if facet}, {name for _, name in known}
        for name in sorted(self.facet_names - facets):
            some = ", ".join(sorted(facets)) or "none"
            raise InputError(f"facets: the model knows no facet {name}; expected some of {some}")
        for name in self.site_classes:
            if name not in classes:
                some = ", ".join(sorted(classes))
                raise InputError(f"site_classes: the model knows no class {name}; expected some of {some}")
            if not any(self.allows(*pair) for pair in known if pair[1] == name):
                raise InputError(
                    f"site_classes: {name} is on none of the facets {', '.join(sorted(self.facet_names))}"
                )
        for name in sorted(self.facet_names) if self.site_classes else ():
            if not any(self.allows(*pair) for pair in known if pair[0] == name):
                raise InputError(f"facets: {name} has none of the classes {', '.join(self.site_classes)}")

    def _check_metals(self, known: Sequence[str]) -> None:
        for option, named in (("elements", self.elements), ("without", self.without)):
            for symbol in named:
                if symbol not in known:
                    raise InputError(
                        f"{option}: the model does not know {symbol}; expected some of {', '.join(known)}"
                    )
        for symbol in self.without:
            if self.elements and symbol not in self.elements:
                raise InputError(
                    f"without: {symbol} is not among the allowed metals {', '.join(self.elements)} anyhow"
                )
        if not self.allowed(known):
            raise InputError(f"without: {', '.join(self.without)} leaves no metal; expected to leave one")

    def _check_prices(self, metals: Sequence[str]) -> None:
        for symbol in self.prices:
            if symbol not in metals:
                raise InputError(
                    f"prices: designs hold no {symbol} anyhow; expected some of {', '.join(metals)}"
                )
        if self.max_price is None:
            return
        costs = self.usd_per_mol(metals)
        if np.isnan(costs).any():
            missing = metals[int(np.flatnonzero(np.isnan(costs))[0])]
            raise InputError(f"max_price: no price of {missing} is known; give it as `prices` {missing}=USD")
        lowest, highest = float(costs.min()), float(costs.max())
        if not self.max_price >= lowest:
            raise InputError(
                f"max_price: {self.max_price:g} USD/mol; expected at least {lowest:.4g}, the price of "
                f"{metals[int(costs.argmin())]}"
            )
        if self.max_price >= highest:
            raise InputError(
                f"max_price: {self.max_price:g} USD/mol does nothing; expected less than {highest:.4g}, the price "
                f"of {metals[int(costs.argmax())]}, the dearest of the allowed metals"
            )

    def composition(self, known: Sequence[str]) -> dict[str, float]:
        """Return the composition of largest mixing entropy that costs no more than it may, by allowed metal."""
        metals = self.allowed(known)
        equal = dict.fromkeys(metals, 1 / len(metals))
        if self.max_price is None:
            return equal
        costs = self.usd_per_mol(metals)
        limit = self.max_price
        if costs.mean() <= limit:
            return equal
        scale = float(np.ptp(costs))

        def shares(strength: float) -> np.ndarray:
            return softmax(-strength * costs / scale)

        # Beyond any strength that is needed, all is of the cheapest metal.
        low, high = 0.0, 1e3
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if shares(middle) @ costs > limit else (low, middle)
        found = shares(high)
        return dict(zip(metals, (found / found.sum()).tolist(), strict=True))
