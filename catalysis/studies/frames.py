"""Users' own frames in any number: read, fingerprinted and predicted in portions."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalysis.energies.by_geometry import GeometryPosterior, TeacherPosterior
from catalysis.energies.protocol import Prediction
from catalysis.energies.teacher import Teacher
from catalysis.fingerprints import GRID, all_bars
from catalysis.path_homology.batch import BatchBarcodes
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.reading import ENERGY_KEY, Structure
from catalysis.structure.sites import Site
from catalysis.structure.user_sites import site_from_structure
from catalysis.studies.activity import Target
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

PORTION = 1000
"""Frames that are worked on at a time."""

PORTION_DESCRIBED = 128
"""So many where a potential describes each, which takes some tenths of a second."""

_SEEN = b"interpretkit.seen"
_ENOUGH = 3000  # sites of one geometry repay a table of their own


class Judge:
    """A teacher for many sites: geometries that come often get a posterior of their own, sixty times as fast.

    Attributes
    ----------
    seen
        How many sites there were of each geometry, by facet and key: which of the two ways a site is judged follows
        from it, and with it the last bits of its energy.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self._posterior: TeacherPosterior | None = None
        self._parts: dict[tuple[str, str], GeometryPosterior] = {}
        self.seen: dict[tuple[str, str], int] = {}

    def resume(self, seen: Iterable[tuple[str, str, int]]) -> None:
        """Go on as if so many sites of each geometry had been judged."""
        self.seen = {(facet, key): number for facet, key, number in seen}

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
            self.seen[key] = self.seen.get(key, 0) + len(rows)
            if self.seen[key] < _ENOUGH:
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

    def of_sites(self, sites: Sequence[Site]) -> tuple[Prediction, np.ndarray]:
        """Return mean and standard deviation in eV, and which sites were matched to a template, (n,)."""
        if self.teacher.geometry == "relaxed":  # places count, so that no table by slot can stand for it
            data = self.teacher.occupations(sites, jobs=0)
            return self.teacher.predict_occupations(data), data.aligned
        data = occupations(sites, self.teacher.elements)
        return self(data), data.aligned


@dataclass(frozen=True, eq=False)
class ScreenedFrames:
    """What became of frames.

    Attributes
    ----------
    table
        The rows in the order of the frames, without Betti curves.
    likeliest
        Row and site of those that lie in the window with the largest probability, the likeliest first.
    """

    table: pa.Table
    likeliest: tuple[tuple[int, Site], ...]


def screen_frames(
    frames: Iterable[Structure | Site],
    teacher: Teacher,
    target: Target,
    file: Path,
    *,
    facet: str = "",
    kind: str = "",
    energy_key: str = ENERGY_KEY,
    shown: int = 0,
    kept: Path | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> ScreenedFrames:
    """Fingerprint and judge sites as they come, and write them to a Parquet file.

    Parameters
    ----------
    frames
        Any number, such as `catalysis.structure.reading.iterate_structures` yields them; one portion at a time is in
        memory.
    teacher
        Judges them, by class and elements or by what else it looks at.
    target
        The window.
    file
        To write, whole or not at all: site, slab, class, contacts, energy, deviation, probability, whether the site
        was matched to a template, Betti curves directed by elements.
    facet, kind, energy_key
        Of frames that are not sites yet, see `catalysis.structure.sites.read_sites`.
    shown
        How many of the likeliest sites are returned.
    kept
        A folder for portions. Those that it holds already, of the same frames, teacher and window, are passed over
        with the same result, to the bit, as if they were worked out again.
    advance
        Called with the number of sites after each portion.

    Raises
    ------
    InputError
        If there is no site, a frame is no site, or one has another adsorbate or a metal that the teacher does not
        know; the message names file and frame.
    """
    with contextlib.ExitStack() as stack:
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        judge = Judge(teacher)
        portions: list[Path] = []
        best: list[tuple[float, int, Site]] = []
        count, source = 0, iter(frames)
        size = PORTION_DESCRIBED if teacher.embeddings else PORTION
        while portion := list(islice(source, size)):
            path = folder / f"portion-{len(portions):06d}.parquet"
            sites = _Sites(portion, teacher, facet or None, kind or None, energy_key)
            if path.is_file():
                seen, probability = _worked_out(path)
                judge.resume(seen)
            else:
                table = _judged(sites.all(), judge, target)
                seen = json.dumps([[*key, number] for key, number in sorted(judge.seen.items())])
                with atomic_path(path) as hidden:
                    pq.write_table(table.replace_schema_metadata({_SEEN: seen}), hidden, compression="zstd")
                probability = table["probability"].to_numpy()
            order = np.argsort(-probability, kind="stable")[:shown].tolist()
            best += [(-float(probability[row]), count + row, sites.one(row)) for row in order]
            best = sorted(best, key=lambda entry: entry[:2])[:shown]
            portions.append(path)
            count += len(portion)
            advance(len(portion))
        if not portions:
            raise InputError("frames: none read; expected at least one site")
        return ScreenedFrames(_together(portions, file), tuple((row, site) for _, row, site in best))


class _Sites:
    """The sites of a portion of frames, each cut out when it is asked for."""

    def __init__(
        self,
        frames: Sequence[Structure | Site],
        teacher: Teacher,
        facet: str | None,
        kind: str | None,
        energy_key: str,
    ) -> None:
        self._frames, self._teacher = frames, teacher
        self._reading: dict[str, Any] = {"facet": facet, "kind": kind, "energy_key": energy_key}
        self._sites: dict[int, Site] = {}

    def all(self) -> list[Site]:
        return [self.one(row) for row in range(len(self._frames))]

    def one(self, row: int) -> Site:
        if row not in self._sites:
            self._sites[row] = self._cut_out(self._frames[row])
        return self._sites[row]

    def _cut_out(self, frame: Structure | Site) -> Site:
        if isinstance(frame, Site):
            site, where = frame, frame.site_id
        else:
            where = frame.where
            site = site_from_structure(frame.atoms, where=where, **self._reading)
            site = replace(site, site_id=site.site_id or frame.label, slab_id=site.slab_id or frame.slab)
        teacher = self._teacher
        if site.adsorbate != teacher.adsorbate:
            raise InputError(
                f"{where}: adsorbate {site.adsorbate}; the energy model knows {teacher.adsorbate}"
            )
        if unknown := set(site.symbols) - set(teacher.elements):
            raise InputError(
                f"{where}: metal {min(unknown)}; the energy model knows {', '.join(teacher.elements)}"
            )
        return site


def _worked_out(portion: Path) -> tuple[list[tuple[str, str, int]], np.ndarray]:
    """Return what the judge had seen after a portion, and its probabilities, (n,)."""
    try:
        seen = json.loads(pq.read_schema(portion).metadata[_SEEN])
        return seen, pq.read_table(portion, columns=["probability"])["probability"].to_numpy()
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{portion}: cannot be read ({reason}); expected it removed, to begin anew"
        ) from error


def _together(portions: Sequence[Path], file: Path) -> pa.Table:
    """Write portions into one file, a row group each; return the rows without the curves."""
    short = []
    with atomic_path(file) as hidden:
        writer: pq.ParquetWriter | None = None
        try:
            for path in portions:
                table = pq.read_table(path).replace_schema_metadata(None)
                writer = writer or pq.ParquetWriter(hidden, table.schema, compression="zstd")
                writer.write_table(table)
                short.append(table.drop_columns(["betti_curves"]))
        finally:
            if writer is not None:
                writer.close()
    return pa.concat_tables(short)


def _judged(sites: Sequence[Site], judge: Judge, target: Target) -> pa.Table:
    (mean, deviation), matched = judge.of_sites(sites)
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
            "matched": pa.array(matched),
            "betti_curves": pa.FixedSizeListArray.from_arrays(
                pa.array(curves.astype(np.uint16).ravel()), 3 * len(GRID)
            ),
        }
    )
