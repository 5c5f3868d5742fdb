"""Users' own frames in any number: read, fingerprinted and predicted in portions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalysis.energies.by_geometry import GeometryPosterior, TeacherPosterior
from catalysis.energies.protocol import Prediction
from catalysis.energies.teacher import Teacher
from catalysis.fingerprints import GRID, all_bars
from catalysis.path_homology.batch import BatchBarcodes
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.reading import iterate_structures
from catalysis.structure.sites import Site
from catalysis.structure.user_sites import site_from_structure
from catalysis.studies.activity import Target
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

PORTION = 1000
"""Frames that are worked on at a time."""

_ENOUGH = 3000  # sites of one geometry repay a table of their own


class Judge:
    """A teacher for many sites: geometries that come often get a posterior of their own, sixty times as fast."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._posterior: TeacherPosterior | None = None
        self._parts: dict[tuple[str, str], GeometryPosterior] = {}
        self._seen: dict[tuple[str, str], int] = {}

    def __call__(self, data: Occupations) -> Prediction:
        """Return mean and standard deviation in eV, as `Teacher.predict_occupations`."""
        elements = self.teacher.elements
        mean, deviation = np.empty(len(data)), np.empty(len(data))
        others = np.ones(len(data), dtype=bool)
        for rows, geometry in data.by_geometry():
            key = (geometry.facet, geometry.key)
            block = data.table[np.ix_(rows, geometry.columns)]
            whole = data.aligned[rows].all() and (block >= 0).all()
            if not whole or geometry.template(self.teacher.adsorbate) is None:
                continue
            self._seen[key] = self._seen.get(key, 0) + len(rows)
            if self._seen[key] < _ENOUGH:
                continue
            if key not in self._parts:
                self._posterior = self._posterior or TeacherPosterior(self.teacher)
                self._parts[key] = self._posterior.of(geometry, elements).prepared()
            mean[rows], deviation[rows] = self._parts[key].predict(block.astype(np.uint8))
            others[rows] = False
        rest = np.flatnonzero(others)
        if len(rest):
            mean[rest], deviation[rest] = self.teacher.predict_occupations(data[rest])
        return Prediction(mean, deviation)


def sites_of(path: str, *, facet: str, kind: str, energy_key: str) -> Iterator[Site]:
    """Yield the site of each frame as it is read; see `catalysis.structure.sites.read_sites`."""
    for found in iterate_structures(path, energy_key=energy_key):
        site = site_from_structure(
            found.atoms, facet=facet or None, kind=kind or None, energy_key=energy_key, where=found.where
        )
        yield replace(site, site_id=site.site_id or found.label, slab_id=site.slab_id or found.slab)


def screen_frames(
    sites: Iterator[Site],
    teacher: Teacher,
    target: Target,
    file: Path,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Fingerprint and judge sites as they come, and write them to a Parquet file.

    Parameters
    ----------
    sites
        Any number.
    teacher
        Judges them by class and elements.
    target
        The window.
    file
        To write, whole or not at all: site, slab, class, contacts, energy, deviation, probability, whether the site
        was matched to a template, Betti curves directed by elements.
    advance
        Called with the number of sites after each portion.

    Returns
    -------
    Table
        The rows without the curves.

    Raises
    ------
    InputError
        If there is no site, or one has another adsorbate or a metal that the teacher does not know.
    """
    judge = Judge(teacher)
    short = []
    with atomic_path(file) as hidden:
        writer: pq.ParquetWriter | None = None
        try:
            while portion := list(islice(sites, PORTION)):
                table = _judged(portion, judge, target)
                writer = writer or pq.ParquetWriter(hidden, table.schema, compression="zstd")
                writer.write_table(table)
                short.append(table.drop_columns(["betti_curves"]))
                advance(len(portion))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise InputError("frames: none read; expected at least one site")
    return pa.concat_tables(short)


def _judged(sites: Sequence[Site], judge: Judge, target: Target) -> pa.Table:
    teacher = judge.teacher
    for site in sites:
        if site.adsorbate != teacher.adsorbate:
            raise InputError(
                f"{site.site_id}: adsorbate {site.adsorbate}; the energy model knows {teacher.adsorbate}"
            )
        unknown = set(site.symbols) - set(teacher.elements)
        if unknown:
            raise InputError(
                f"{site.site_id}: metal {min(unknown)}; the energy model knows {', '.join(teacher.elements)}"
            )
    data = occupations(sites, teacher.elements)
    mean, deviation = judge(data)
    bars = all_bars(sites, "elements")
    assert isinstance(bars, BatchBarcodes)
    curves = bars.betti_curves(GRID).reshape(len(sites), -1)
    return pa.table(
        {
            "site_id": pa.array([site.site_id for site in sites]),
            "slab_id": pa.array([site.slab_id for site in sites]),
            "facet": pa.array([site.facet or "" for site in sites]),
            "site_class": pa.array([site.site_class for site in sites]),
            "contacts": pa.array([site.contact_elements for site in sites]),
            "given_ev": pa.array([site.energy_ev for site in sites], pa.float64()),
            "energy_ev": pa.array(mean.astype(np.float32)),
            "deviation_ev": pa.array(deviation.astype(np.float32)),
            "probability": pa.array(target.probability(mean, deviation).astype(np.float32)),
            "matched": pa.array(data.aligned),
            "betti_curves": pa.FixedSizeListArray.from_arrays(
                pa.array(curves.astype(np.uint16).ravel()), 3 * len(GRID)
            ),
        }
    )
