"""A million sites and more: fingerprint, energy, uncertainty and selection, in blocks that can be done anywhere.

The sites asked for are parted into blocks. What a block holds follows from its number and the seed alone, so that it
does not matter which process, machine or shard works it out, nor how often a worker dies meanwhile: each block is done
when its file is there, whole, and counts once. A site is a row of element numbers by slot (uint8); symmetric copies are
one site with a count. What is kept of the blocks is reduced to one columnar file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from catalysis.energies.by_geometry import GeometryPosterior, TeacherPosterior
from catalysis.energies.teacher import Teacher
from catalysis.fingerprints import GRID, all_bars, curves_of, site_digraph
from catalysis.path_homology import DigraphTemplate
from catalysis.structure.elements import arrow_order, bond_cutoff
from catalysis.structure.templates import Template, smallest_copy
from catalysis.studies.activity import Target
from catalysis.studies.composition import elements_drawn
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

BLOCK = 8192
"""Sites in a block; see `block_size_for`."""

MOST_BLOCKS, FEWEST_BLOCKS = 4096, 16

HISTOGRAM_EV = np.round(np.arange(-4.0, 4.0 + 1e-9, 0.05), 2)
"""Edges of the histograms of energies; what lies beyond counts in the outermost bins."""

_PLAN, _SUMMARY = b"interpretkit.plan", b"interpretkit.summary"
_COLUMNS = ["template", "occupation", "copies", "energy_ev", "deviation_ev", "probability", "betti_curves"]
_SUMMED = (
    "drawn", "distinct", "selected", "inside", "expected", "histogram", "curves", "curves_selected",
)  # fmt: skip
_RESTARTS = 3  # of a pool of processes of which one has died
_COMPRESSION = "zstd"

Keep = Literal["selected", "all"]


@dataclass(frozen=True)
class Plan:
    """What is screened: everything that a block depends on, besides its number.

    Attributes
    ----------
    n
        How many sites are drawn.
    seed
        Of the draws.
    elements, shares
        The alloy, elements in whose order occupations number them.
    templates
        Facet and key of each template; a block draws from all equally often.
    target_ev, window_ev
        The window, in eV.
    least_probability
        A site is selected if its energy lies in the window with at least this probability.
    keep
        Which rows are kept: `"selected"` or `"all"`.
    teacher
        Digest of the energy model.
    block_size
        Sites in a block but the last.
    """

    n: int
    seed: int
    elements: tuple[str, ...]
    shares: tuple[float, ...]
    templates: tuple[tuple[str, str], ...]
    target_ev: float
    window_ev: float
    least_probability: float
    keep: Keep
    teacher: str
    block_size: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"--n: {self.n}; expected at least 1")
        if not 0 < self.least_probability <= 1:
            raise InputError(f"--least: {self.least_probability}; expected a probability above 0, up to 1")
        if self.keep not in ("selected", "all"):
            raise InputError(f"--keep {self.keep}: expected selected or all")

    @property
    def target(self) -> Target:
        """The window."""
        return Target(self.target_ev, self.window_ev)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.n // self.block_size)

    def sizes(self, block: int) -> np.ndarray:
        """Return how many sites of each template a block draws, (templates,)."""
        size = min(self.block_size, self.n - block * self.block_size)
        count = len(self.templates)
        sizes = np.full(count, size // count)
        # Who gets one more changes from block to block.
        sizes[(block + np.arange(size % count)) % count] += 1
        return sizes

    def blocks(self, shards: int = 1, shard: int = 0) -> range:
        """Return the blocks of a shard: every `shards`-th, beginning with number `shard`."""
        if shards < 1:
            raise InputError(f"--shards: {shards}; expected at least 1")
        if not 0 <= shard < shards:
            raise InputError(f"--shard: {shard}; expected 0 to {shards - 1}")
        if shards > self.n_blocks:
            raise InputError(
                f"--shards: {shards}; {self.n} sites are {self.n_blocks} blocks, expected no more shards"
            )
        return range(shard, self.n_blocks, shards)

    def text(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), sort_keys=True)


class SiteTemplate:
    """A template ready to be screened: elements in slots to Betti curves, mean and deviation."""

    def __init__(self, template: Template, elements: Sequence[str], energies: GeometryPosterior) -> None:
        self.facet, self.key = template.facet, template.key
        self.permutations = template.permutations
        self.energies = energies
        self.contacts = template.contacts
        self._template, self._elements = template, tuple(elements)
        self._digraph, self._ranks = _digraph_of(template, elements)

    def canonical(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct sites among occupations (n, slots), each in its smallest copy, and how often each occurs.

        In lexicographic order.
        """
        rows = np.ascontiguousarray(smallest_copy(table, self.permutations))
        keys = rows.view(f"V{rows.shape[1]}").ravel()
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
        return rows[first], counts

    def curves(self, table: np.ndarray) -> np.ndarray:
        """Return the Betti curves of occupations (n, slots), directed by elements, (n, 3, g).

        As `catalysis.fingerprints.fingerprints` gives them of the decorated template.
        """
        if self._digraph is not None:
            ranks = np.hstack([self._ranks[table], np.tile(self._of_adsorbate, (len(table), 1))])
            return self._digraph.persistence(ranks, n_threads=1).betti_curves(GRID)
        # Some of these elements are so large that the bonds depend on what is where.
        names = np.array(self._elements)
        sites = [self._template.decorate(names[row].tolist()) for row in table]
        return (
            curves_of(all_bars(sites, "elements", n_threads=1)) if sites else np.zeros((0, 3, len(GRID)), int)
        )

    @property
    def _of_adsorbate(self) -> np.ndarray:
        return self._ranks[len(self._elements) :]


def _digraph_of(template: Template, elements: Sequence[str]) -> tuple[DigraphTemplate | None, np.ndarray]:
    """Return the template's digraph whose directions follow ranks, and the ranks of elements and adsorbate's atoms.

    None where the elements decide which metals are bonded.
    """
    graph = site_digraph(template.site, "geometry")
    slots = len(template)
    molecule = len(graph.labels) - slots
    place = np.empty(len(graph.labels), int)  # of the site's metals among the slots
    place[template.order] = np.arange(slots)
    place[slots:] = np.arange(slots, len(graph.labels))
    arrows = place[graph.arrows]
    order = np.argsort([arrow_order(element)[0] * 100 + arrow_order(element)[1] for element in elements])
    ranks = np.empty(len(elements) + molecule)
    ranks[order] = np.arange(len(elements))
    # Arrows lead from the contacts to the binding atom, and inwards along the adsorbate.
    ranks[len(elements)] = len(elements)
    depth = {slots: 0}
    inner = [(int(tail), int(head)) for tail, head in arrows if tail >= slots]
    while len(depth) < molecule:
        depth |= {tail: depth[head] + 1 for tail, head in inner if head in depth and tail not in depth}
    for atom, steps in depth.items():
        if steps:
            ranks[len(elements) + atom - slots] = -steps
    distances = np.linalg.norm(template.positions[:, None] - template.positions[None], axis=-1)
    cutoffs = [bond_cutoff(a, b) for a in elements for b in elements]
    off_diagonal = ~np.eye(slots, dtype=bool)
    bonds = [
        np.array_equal((distances <= c) & off_diagonal, template.bonds) for c in (min(cutoffs), max(cutoffs))
    ]
    if not all(bonds):
        return None, ranks
    pairs, first = np.unique(np.sort(arrows, axis=1), axis=0, return_index=True)
    return DigraphTemplate(len(graph.labels), pairs, graph.lengths[first]), ranks


class Screen:
    """A plan with what its blocks are worked out with; goes to other processes as it is."""

    def __init__(self, plan: Plan, templates: Sequence[SiteTemplate]) -> None:
        self.plan = plan
        self.templates = list(templates)

    def block(self, number: int) -> bytes:
        """Return a block as the bytes of a Parquet file: the rows kept, and a summary of all in its metadata.

        The same bits on whatever process of one machine it is worked out.
        """
        plan = self.plan
        tables, summaries = [], []
        with threadpool_limits(1):
            for k, (template, size) in enumerate(zip(self.templates, plan.sizes(number), strict=True)):
                generator = np.random.default_rng([plan.seed, number, k])
                slots = template.permutations.shape[1]
                drawn = elements_drawn(np.array(plan.shares), (int(size), slots), generator)
                table, summary = self._screened(k, *template.canonical(drawn))
                tables.append(table)
                summaries.append(summary)
        table = pa.concat_tables(tables).replace_schema_metadata(
            {_PLAN: plan.text(), _SUMMARY: json.dumps({"block": number, "templates": summaries})}
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression=_COMPRESSION)
        return sink.getvalue().to_pybytes()

    def _screened(
        self, k: int, occupations: np.ndarray, copies: np.ndarray
    ) -> tuple[pa.Table, dict[str, Any]]:
        template, target = self.templates[k], self.plan.target
        mean, deviation = template.energies.predict(occupations)
        probability = target.probability(mean, deviation)
        inside = target.holds(mean)
        curves = template.curves(occupations).reshape(len(occupations), 3 * len(GRID))
        bins = np.clip(np.digitize(mean, HISTOGRAM_EV) - 1, 0, len(HISTOGRAM_EV) - 2)
        selected = probability >= self.plan.least_probability
        summary = {
            "drawn": int(copies.sum()),
            "distinct": len(occupations),
            "selected": int(copies[selected].sum()),
            "inside": int(copies[inside].sum()),
            "expected": float(copies @ probability),
            "histogram": np.bincount(bins, copies, len(HISTOGRAM_EV) - 1).astype(int).tolist(),
            "curves": (copies @ curves).tolist(),
            "curves_selected": (copies[selected] @ curves[selected]).tolist(),
        }
        rows = np.flatnonzero(selected) if self.plan.keep == "selected" else np.arange(len(occupations))
        return _table(
            k,
            template,
            occupations[rows],
            copies[rows],
            mean[rows],
            deviation[rows],
            probability[rows],
            curves[rows],
        ), summary


def _table(
    k: int,
    template: SiteTemplate,
    occupations: np.ndarray,
    copies: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    probability: np.ndarray,
    curves: np.ndarray,
) -> pa.Table:
    n, slots = occupations.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * slots)
    content = pa.py_buffer(np.ascontiguousarray(occupations).tobytes())
    return pa.table(
        {
            "template": pa.array(np.full(n, k, np.int16)),
            "occupation": pa.Array.from_buffers(pa.binary(), n, [None, offsets.buffers()[1], content]),
            "copies": pa.array(copies.astype(np.int64)),
            "energy_ev": pa.array(mean.astype(np.float32)),
            "deviation_ev": pa.array(deviation.astype(np.float32)),
            "probability": pa.array(probability.astype(np.float32)),
            "betti_curves": pa.FixedSizeListArray.from_arrays(
                pa.array(curves.astype(np.uint16).ravel()), 3 * len(GRID)
            ),
        }
    )


def prepared(
    teacher: Teacher,
    templates: Sequence[Template],
    composition: Mapping[str, float],
    target: Target,
    n: int,
    *,
    least_probability: float = 0.5,
    keep: Keep = "selected",
    seed: int = 0,
    block_size: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Screen:
    """Return a screen of random sites of an alloy.

    Parameters
    ----------
    teacher
        Judges the sites.
    templates
        Of the sites.
    composition
        Shares by element.
    target, n, least_probability, keep, seed
        See `Plan`.
    block_size
        Sites in a block; by default as `block_size_for`.
    advance
        Called after each template.

    Raises
    ------
    InputError
        If the plan is none, or the alloy holds an element that the teacher does not know.
    """
    unknown = sorted(set(composition) - set(teacher.elements))
    if unknown:
        raise InputError(
            f"--composition: the model does not know {unknown[0]}; expected some of {', '.join(teacher.elements)}"
        )
    if not templates:
        raise InputError("templates: none; expected at least one")
    elements = tuple(sorted(composition))
    plan = Plan(
        n,
        seed,
        elements,
        tuple(float(composition[element]) for element in elements),
        tuple((template.facet, template.key) for template in templates),
        target.energy_ev,
        target.window_ev,
        least_probability,
        keep,
        digest_of(teacher),
        block_size or block_size_for(n),
    )
    posterior = TeacherPosterior(teacher)
    ready = []
    for template in templates:
        ready.append(SiteTemplate(template, elements, posterior.of(template.geometry, elements).prepared()))
        advance()
    return Screen(plan, ready)


def block_size_for(n: int) -> int:
    """Return how many of n sites a block holds: `BLOCK`, unless there would be too few blocks to share, or too many."""
    return max(min(BLOCK, max(256, -(-n // FEWEST_BLOCKS))), -(-n // MOST_BLOCKS))


def digest_of(teacher: Teacher) -> str:
    """Return a digest of what a teacher predicts with."""
    found = hashlib.sha256(",".join(teacher.embeddings).encode())
    for part in (teacher.data.table, teacher.energies, *(member.prior for member in teacher.members)):
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


# ----------------------------------------------------------------------------------------- doing the blocks


def block_path(folder: Path, number: int) -> Path:
    """Return where the file of a block stands."""
    return folder / f"block-{number:06d}.parquet"


def do_blocks(
    screen: Screen,
    blocks: Iterable[int],
    folder: Path,
    *,
    workers: int = 1,
    client: Any = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Work out the blocks whose files are not there yet, and write each whole or not at all.

    Parameters
    ----------
    screen
        What to do.
    blocks
        Numbers of the blocks.
    folder
        For their files.
    workers
        Local processes; with one, this one.
    client
        A `dask.distributed.Client`; its workers then do it, wherever they are. Only this process writes files.
    advance
        Called after each block, also for those that were there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pending = []
    for number in blocks:
        if block_path(folder, number).is_file():
            advance()
        else:
            pending.append(number)
    if client is not None:
        done = _by_dask(screen, pending, client)
    elif workers > 1 and len(pending) > 1:
        done = _by_processes(screen, pending, min(workers, len(pending)))
    else:
        done = ((number, screen.block(number)) for number in pending)
    for number, content in done:
        with atomic_path(block_path(folder, number)) as hidden:
            hidden.write_bytes(content)
        advance()


_own: Screen | None = None


def _adopt(screen: Screen) -> None:
    global _own
    _own = screen
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has been killed: nobody else would ever tell it."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _block_of_own(number: int) -> tuple[int, bytes]:
    assert _own is not None
    return number, _own.block(number)


def _by_processes(screen: Screen, pending: Sequence[int], workers: int) -> Iterator[tuple[int, bytes]]:
    """Yield blocks as processes finish them; when one dies, others take over what is left."""
    left = set(pending)
    for restart in range(_RESTARTS + 1):
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_adopt, initargs=(screen,)
        ) as pool:
            try:
                queue = iter(sorted(left))
                running: set[Future[tuple[int, bytes]]] = set()
                while left:
                    # Two for each process: what is finished and not yet written is held in memory.
                    while len(running) < 2 * workers and (number := next(queue, None)) is not None:
                        running.add(pool.submit(_block_of_own, number))
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        number, content = future.result()
                        left.discard(number)
                        yield number, content
                return
            except BrokenProcessPool:
                if restart == _RESTARTS:
                    raise


def _block_on_worker(screen: Screen, number: int) -> tuple[int, bytes]:
    return number, screen.block(number)


def _itself(screen: Screen) -> Screen:
    return screen


def _by_dask(screen: Screen, pending: Sequence[int], client: Any) -> Iterator[tuple[int, bytes]]:
    """Yield blocks as the workers of a cluster finish them; the scheduler repeats what a lost worker was at."""
    from distributed import as_completed

    with warnings.catch_warnings():
        # The screen is some ten megabytes. As a task, and not as data laid out, it survives the workers that hold it.
        warnings.filterwarnings("ignore", message="Sending large graph")
        there = client.submit(_itself, screen, pure=False)
    queue = iter(pending)
    capacity = 4 * max(1, sum(client.nthreads().values()))
    first = [number for _, number in zip(range(capacity), queue, strict=False)]
    waiting = as_completed([client.submit(_block_on_worker, there, number, pure=False) for number in first])
    for future in waiting:
        result = future.result()
        future.release()
        if (number := next(queue, None)) is not None:
            waiting.add(client.submit(_block_on_worker, there, number, pure=False))
        yield result


# ---------------------------------------------------------------------------------------------- reducing


@dataclass(frozen=True, eq=False)
class Screened:
    """What the blocks of a screen add up to.

    Attributes
    ----------
    plan
        What was screened.
    drawn, distinct, selected, inside
        Per template, (templates,): sites drawn; distinct ones, symmetric copies and those of one block counted once;
        those of the drawn that are selected; those whose mean energy lies in the window.
    expected
        Sum of the probabilities of lying in the window, (templates,).
    histogram
        Energies of the sites drawn, (templates, bins), see `HISTOGRAM_EV`.
    curves, curves_selected
        Mean Betti curves of the sites drawn and of those selected, (templates, 3, g); NaN where there are none.
    kept
        Rows in the reduced file: distinct sites.
    file
        That file.
    """

    plan: Plan
    drawn: np.ndarray
    distinct: np.ndarray
    selected: np.ndarray
    inside: np.ndarray
    expected: np.ndarray
    histogram: np.ndarray
    curves: np.ndarray
    curves_selected: np.ndarray
    kept: int
    file: Path

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the expected share of each template's sites in the window, and its standard error, (templates,)."""
        share = self.expected / np.maximum(self.drawn, 1)
        # Bernoulli at worst: probabilities between 0 and 1 scatter less.
        return share, np.sqrt(share * (1 - share) / np.maximum(self.drawn, 1))


def read_plan(folder: Path) -> Plan:
    """Return the plan of a folder's blocks.

    Raises
    ------
    InputError
        If there are none, or one is no block.
    """
    files = sorted(folder.glob("block-*.parquet")) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder}: holds no blocks; expected what `catalyst screen --shards` wrote")
    return _plan_of(files[0])


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Say in one line that a block is none, or is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read ({reason[:160]}); expected a block") from error
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{file}: says nothing of what was screened; expected a block") from error


def _metadata(file: Path) -> Mapping[bytes, bytes]:
    with _reading(file):
        return pq.read_schema(file).metadata or {}


def _plan_of(file: Path) -> Plan:
    metadata = _metadata(file)
    with _reading(file):
        content = json.loads(metadata[_PLAN])
        content["templates"] = tuple((str(facet), str(key)) for facet, key in content["templates"])
        content["elements"], content["shares"] = tuple(content["elements"]), tuple(content["shares"])
        return Plan(**content)


def _summary_of(file: Path, metadata: Mapping[bytes, bytes], plan: Plan) -> tuple[int, dict[str, np.ndarray]]:
    """Return a block's number and what it says of the templates, by name, (templates, ...) each."""
    with _reading(file):
        content = json.loads(metadata[_SUMMARY])
        number, templates = int(content["block"]), content["templates"]
        if not 0 <= number < plan.n_blocks or len(templates) != len(plan.templates):
            raise ValueError(number)
        return number, {name: np.array([one[name] for one in templates]) for name in _SUMMED}


def reduced(folders: Sequence[Path], file: Path, *, whole: bool = True) -> Screened:
    """Reduce blocks to one file of distinct sites, and to what they add up to.

    Parameters
    ----------
    folders
        With blocks of one plan.
    file
        The Parquet file to write: template, occupation, copies, energy, deviation, probability, Betti curves; by
        template, then by occupation. Duplicates from several blocks become one row, their copies added.
    whole
        Whether every block of the plan must be there.

    Raises
    ------
    InputError
        If blocks are missing, double or of another plan.
    """
    plan = read_plan(folders[0])
    found: dict[int, Path] = {}
    summaries: dict[int, dict[str, np.ndarray]] = {}
    for folder in folders:
        for path in sorted(folder.glob("block-*.parquet")):
            metadata = _metadata(path)
            if metadata.get(_PLAN, b"").decode() != plan.text():
                raise InputError(
                    f"{path}: of another screen; expected blocks of one command and shards of it"
                )
            number, summary = _summary_of(path, metadata, plan)
            if number in found:
                raise InputError(f"{path}: block {number} is in {found[number]} already")
            found[number], summaries[number] = path, summary
    missing = [number for number in range(plan.n_blocks) if number not in found]
    if whole and missing:
        raise InputError(
            f"{', '.join(map(str, folders))}: {len(missing)} of {plan.n_blocks} blocks are missing, the first "
            f"{missing[0]}; expected every shard"
        )
    numbers = sorted(found)
    kept = _reduced_rows([found[number] for number in numbers], plan, file)

    def total(name: str) -> np.ndarray:
        # In the order of the blocks, so that sums of fractions have the same bits however they were shared out.
        return np.sum([summaries[number][name] for number in numbers], axis=0)

    drawn, selected = total("drawn"), total("selected")
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = total("curves") / drawn[:, None]
        of_selected = total("curves_selected") / np.where(selected > 0, selected, np.nan)[:, None]
    return Screened(
        plan,
        drawn,
        total("distinct"),
        selected,
        total("inside"),
        total("expected"),
        total("histogram"),
        curves.reshape(len(drawn), 3, -1),
        of_selected.reshape(len(drawn), 3, -1),
        kept,
        file,
    )


def _rows_of(block: Path, k: int) -> pa.Table:
    """Return the rows of a template in a block."""
    with _reading(block):
        return pq.read_table(block, columns=_COLUMNS, filters=[("template", "=", k)])


def _reduced_rows(blocks: Sequence[Path], plan: Plan, file: Path) -> int:
    """Write the distinct rows of some blocks, template by template to bound the memory; return how many."""
    kept = 0
    with atomic_path(file) as hidden:
        writer: pq.ParquetWriter | None = None
        try:
            for k in range(len(plan.templates)):
                parts = [_rows_of(path, k) for path in blocks]
                table = pa.concat_tables(part.replace_schema_metadata(None) for part in parts)
                table = table.append_column("row", pa.array(np.arange(len(table))))
                # Of equal sites the first, in the order of the blocks, stands for all.
                counted = table.group_by("occupation", use_threads=False).aggregate(
                    [("copies", "sum"), ("row", "min")]
                )
                counted = counted.sort_by([("occupation", "ascending")])
                table = table.take(counted["row_min"]).drop_columns(["row"])
                copies = table.schema.get_field_index("copies")
                table = table.set_column(copies, "copies", counted["copies_sum"].cast(pa.int64()))
                if writer is None:
                    schema = table.schema.with_metadata({_PLAN: plan.text()})
                    writer = pq.ParquetWriter(hidden, schema, compression=_COMPRESSION)
                writer.write_table(table.cast(writer.schema))
                kept += len(table)
        finally:
            if writer is not None:
                writer.close()
    return kept


def likeliest(screened: Screened, count: int) -> pa.Table:
    """Return the rows that lie in the window with the largest probability, the likeliest first."""
    columns = ["template", "occupation", "copies", "energy_ev", "deviation_ev", "probability"]
    table = pq.read_table(screened.file, columns=columns)
    order = [("probability", "descending"), ("template", "ascending"), ("occupation", "ascending")]
    return table.sort_by(order).slice(0, count)


def symbols_of(occupation: bytes, plan: Plan) -> tuple[str, ...]:
    """Return the element in each slot of a row."""
    return tuple(plan.elements[code] for code in occupation)
