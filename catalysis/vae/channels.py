"""What a network knows of sites, and the two channels in which it sees one: coordination and ligands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from catalysis.fingerprints import GRID, coordination_curves
from catalysis.structure.occupations import Occupations, filled
from catalysis.structure.templates import Geometry, Template, find_template


class Channels(NamedTuple):
    """Sites as the network sees them.

    Attributes
    ----------
    curves : Tensor
        Betti curves, shape (n, 3, g).
    site_class : Tensor
        Index of the class, (n,), -1 if unknown.
    ligands : Tensor
        Element index by slot, (n, slots), -1 where empty.
    """

    curves: Tensor
    site_class: Tensor
    ligands: Tensor

    def some(self, rows: np.ndarray | Tensor | slice) -> Channels:
        """Return some of the sites."""
        return Channels(*(part[rows] for part in self))

    def __add__(self, other: Channels) -> Channels:  # type: ignore[override]
        """Return these sites, then the others."""
        return Channels(*(torch.cat([a, b]) for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class ClassEntry:
    """A class that a model knows: where its template is, and which of the model's slots it fills.

    Attributes
    ----------
    key : str
        Class and variant.
    facet, site_class : str
    variant : int
        Those of the template.
    slots : tuple of int
        `slots[k]` is the model's slot of the template's slot k.
    """

    key: str
    facet: str
    site_class: str
    variant: int
    slots: tuple[int, ...]

    def template(self, adsorbate: str) -> Template | None:
        """Return the template of the class, None where its facet is unknown or has no such class."""
        return find_template(self.facet, self.site_class, self.variant, adsorbate)


@dataclass(frozen=True)
class VAEConfig:
    """Everything but the weights.

    Attributes
    ----------
    elements : tuple of str
    adsorbate : str
    classes : tuple of ClassEntry
        What the model knows.
    columns : tuple of int
        Which columns of `catalysis.structure.occupations.Occupations.table` are its slots.
    grid : tuple of float
        Thresholds of the Betti curves in Å.
    coordination_latent, ligand_latent, hidden : int
        Widths.
    """

    elements: tuple[str, ...]
    adsorbate: str
    classes: tuple[ClassEntry, ...]
    columns: tuple[int, ...]
    grid: tuple[float, ...] = tuple(float(t) for t in GRID)
    coordination_latent: int = 8
    ligand_latent: int = 128
    hidden: int = 384

    @classmethod
    def of(
        cls,
        data: Occupations,
        adsorbate: str,
        *,
        coordination_latent: int = 8,
        ligand_latent: int = 128,
        hidden: int = 384,
    ) -> Self:
        """Return the configuration for some sites: their classes, elements and slots.

        Parameters
        ----------
        data : Occupations
            The sites.
        adsorbate : str
            What stands on them.
        coordination_latent, ligand_latent, hidden : int
            Widths.
        """
        classes: dict[str, Geometry] = {}
        columns: set[int] = set()
        for _, geometry in data.by_geometry():
            columns.update(geometry.columns.tolist())
            # The geometry with the most slots speaks for a class without template.
            if geometry.key not in classes or len(geometry.columns) > len(classes[geometry.key].columns):
                classes[geometry.key] = geometry
        order = sorted(columns)
        entries = tuple(
            ClassEntry(
                key, g.facet, g.site_class, g.variant, tuple(order.index(c) for c in g.columns.tolist())
            )
            for key, g in sorted(classes.items())
        )
        return cls(
            data.elements,
            adsorbate,
            entries,
            tuple(order),
            coordination_latent=coordination_latent,
            ligand_latent=ligand_latent,
            hidden=hidden,
        )

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Return the configuration that a file holds, as `dataclasses.asdict` writes it."""
        values = {name: plain[name] for name in cls.__dataclass_fields__}
        values["classes"] = tuple(
            ClassEntry(**{**entry, "slots": tuple(entry["slots"])}) for entry in values["classes"]
        )
        for name in ("elements", "columns", "grid"):
            values[name] = tuple(values[name])
        return cls(**values)

    @property
    def templates(self) -> list[Template | None]:
        """The template of each class with the adsorbate on it, None where there is none."""
        return [entry.template(self.adsorbate) for entry in self.classes]

    def channels(self, data: Occupations, curves: np.ndarray, device: torch.device | str = "cpu") -> Channels:
        """Return sites as the network sees them.

        Parameters
        ----------
        data : Occupations
            The sites, of symmetric copies the smallest, with the elements of this configuration.
        curves : ndarray
            Their Betti curves, (n, 3, g).
        device : torch.device or str
            Where they are to be.
        """
        index = {entry.key: k for k, entry in enumerate(self.classes)}
        numbers = np.array([index.get(geometry.key, -1) for geometry in data.geometries])
        return Channels(
            torch.as_tensor(curves, dtype=torch.float32, device=device),
            torch.as_tensor(numbers[data.geometry], dtype=torch.long, device=device),
            torch.as_tensor(data.table[:, self.columns].astype(np.int64), dtype=torch.long, device=device),
        )

    def ideal_curves(self, data: Occupations) -> np.ndarray:
        """Return the Betti curves of occupied templates, (n, 3, g): the same for all sites of one geometry.

        Raises
        ------
        InputError
            If a geometry is of no template.
        """
        sites = [geometry.template(self.adsorbate).site for geometry in data.geometries]
        return coordination_curves(sites, np.array(self.grid))[data.geometry]

    def ideal_sites(self) -> Occupations:
        """Return one site of each class that has a template, all of its slots filled with the first element."""
        geometries = [template.geometry for template in self.templates if template is not None]
        contents = np.zeros(sum(len(geometry.columns) for geometry in geometries), int)
        return filled(geometries, np.arange(len(geometries)), self.elements, contents)
