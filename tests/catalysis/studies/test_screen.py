from __future__ import annotations

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from catalysis.data import load_bundled
from catalysis.energies.by_geometry import TeacherPosterior
from catalysis.energies.teacher import Teacher
from catalysis.fingerprints import fingerprints
from catalysis.models.site_model import SHIPPED
from catalysis.potentials import embeddings
from catalysis.structure.reading import iterate_structures
from catalysis.structure.templates import Template, class_templates
from catalysis.structure.user_sites import read_sites, write_sites
from catalysis.studies import frames
from catalysis.studies.activity import Target
from catalysis.studies.frames import ScreenedFrames, screen_frames
from catalysis.studies.screen import (
    Screen,
    SiteTemplate,
    block_path,
    block_size_for,
    do_blocks,
    likeliest,
    prepared,
    reduced,
    symbols_of,
)
from interpretkit.cli import main
from interpretkit.errors import InputError

TARGET = Target(0.1, 0.1)
ALLOY = {"Pt": 0.9, "Ru": 0.1}


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(SHIPPED / "teacher.safetensors")


@pytest.fixture(scope="module")
def templates() -> list[Template]:
    return [class_templates("100", "100_bridge")[0], class_templates("111", "111_bridge")[0]]


@pytest.fixture(scope="module")
def screen(teacher: Teacher, templates: list[Template]) -> Screen:
    return prepared(teacher, templates, ALLOY, TARGET, 950, seed=3, keep="all", block_size=200)


def with_plan(screen: Screen, **changes: object) -> Screen:
    return Screen(replace(screen.plan, **changes), screen.templates)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def serial(screen: Screen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial")
    do_blocks(screen, screen.plan.blocks(), folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_site_is_in_one_block_of_one_shard_and_templates_come_equally_often(screen: Screen) -> None:
    plan = replace(screen.plan, templates=(("a", "a"), ("b", "b"), ("c", "c")))
    sizes = np.array([plan.sizes(block) for block in plan.blocks()])
    assert sizes.sum() == 950
    assert sizes.sum(1).tolist() == [200, 200, 200, 200, 150]
    assert np.ptp(sizes.sum(0)) <= 2
    for shards in (1, 2, 3, 5):
        done = [block for shard in range(shards) for block in plan.blocks(shards, shard)]
        assert sorted(done) == list(range(5))
    for shards, shard in ((2, 2), (0, 0), (6, 0)):
        with pytest.raises(InputError, match="--shard"):
            plan.blocks(shards, shard)
    assert [block_size_for(n) for n in (10, 8192, 50_000, 10**6, 10**9)] == [256, 512, 3125, 8192, 244141]


@pytest.mark.parametrize("adsorbate", ["O", "OOH"])
def test_fingerprints_are_those_of_the_decorated_template(teacher: Teacher, adsorbate: str) -> None:
    template = class_templates("211", "211_edge", adsorbate)[0]
    elements = ("Ir", "Pd", "Pt", "Ru")
    ready = SiteTemplate(template, elements, TeacherPosterior(teacher).of(template.geometry, elements))
    table = np.random.default_rng(0).integers(0, 4, (6, len(template))).astype(np.uint8)
    sites = [template.decorate([elements[code] for code in row]) for row in table]
    assert np.array_equal(ready.curves(table), fingerprints(sites).path_homology)


def test_where_elements_decide_what_is_bonded_fingerprints_follow_them(teacher: Teacher) -> None:
    template = class_templates("111", "111_bridge")[0]
    elements = ("Pt", "Y")
    ready = SiteTemplate(template, elements, TeacherPosterior(teacher).of(template.geometry, elements))
    table = np.random.default_rng(0).integers(0, 2, (4, len(template))).astype(np.uint8)
    sites = [template.decorate([elements[code] for code in row]) for row in table]
    expected = fingerprints(sites).path_homology
    assert np.array_equal(ready.curves(table), expected)
    # The template's own bonds, those of platinum, are not theirs.
    assert all(site.bonds.sum() > template.site.bonds.sum() for site in sites)


def test_symmetric_copies_are_one_site_with_a_count(screen: Screen) -> None:
    ready = screen.templates[1]
    assert len(ready.permutations) > 1
    table = np.random.default_rng(0).integers(0, 2, (40, ready.permutations.shape[1])).astype(np.uint8)
    copies = np.concatenate([table[:, permutation] for permutation in ready.permutations] + [table[:7]])
    distinct, counts = ready.canonical(copies)
    assert len(distinct) == len(ready.canonical(table)[0]) == 40
    assert counts.sum() == len(copies)
    assert set(counts.tolist()) == {len(ready.permutations), len(ready.permutations) + 1}
    assert np.array_equal(ready.canonical(distinct)[0], distinct)


def test_rows_are_what_teacher_and_fingerprints_say(
    teacher: Teacher, templates: list[Template], screen: Screen, serial: Path, tmp_path: Path
) -> None:
    result = reduced([serial], tmp_path / "sites.parquet")
    rows = pq.read_table(result.file).to_pylist()
    # All are kept: with their copies they are all that were drawn, each distinct one once.
    assert sum(row["copies"] for row in rows) == result.drawn.sum() == 950
    assert len({(row["template"], row["occupation"]) for row in rows}) == len(rows) == result.kept
    assert result.kept < 950  # nine in ten atoms are platinum, so that some sites come again
    some = rows[::23]
    sites = [templates[row["template"]].decorate(symbols_of(row["occupation"], result.plan)) for row in some]
    expected = teacher.predict(sites)
    assert [row["energy_ev"] for row in some] == pytest.approx(expected.mean_ev, abs=1e-5)
    assert [row["deviation_ev"] for row in some] == pytest.approx(expected.std_ev, rel=2e-3)
    probability = TARGET.probability(*expected)
    assert [row["probability"] for row in some] == pytest.approx(probability, abs=5e-3)
    curves = np.array([row["betti_curves"] for row in some]).reshape(len(some), 3, -1)
    assert np.array_equal(curves, fingerprints(sites).path_homology)
    shares = Counter(symbol for site in sites for symbol in site.symbols)
    assert shares["Ru"] / shares.total() == pytest.approx(0.1, abs=0.05)
    # What the blocks add up to is what the rows add up to.
    for k in range(2):
        mine = [row for row in rows if row["template"] == k]
        copies = np.array([row["copies"] for row in mine])
        chance = np.array([row["probability"] for row in mine])
        assert result.expected[k] == pytest.approx(copies @ chance, rel=1e-5)
        assert result.selected[k] == copies[chance >= 0.5].sum()
        assert result.histogram[k].sum() == result.drawn[k] == copies.sum()
        mean = copies @ np.array([row["betti_curves"] for row in mine]) / copies.sum()
        assert result.curves[k].ravel() == pytest.approx(mean)
    best = likeliest(result, 5).to_pylist()
    assert [row["probability"] for row in best] == sorted((r["probability"] for r in rows), reverse=True)[:5]


def test_only_selected_rows_are_kept_and_nothing_else_changes(
    screen: Screen, serial: Path, tmp_path: Path
) -> None:
    chosen = with_plan(screen, keep="selected")
    do_blocks(chosen, chosen.plan.blocks(), tmp_path / "blocks")
    few = reduced([tmp_path / "blocks"], tmp_path / "few.parquet")
    everything = reduced([serial], tmp_path / "all.parquet")
    assert 0 < few.kept < everything.kept
    rows = pq.read_table(few.file)
    assert np.all(rows["probability"].to_numpy() >= 0.5)
    whole = pq.read_table(everything.file)
    assert rows.equals(whole.filter(whole["probability"].to_numpy() >= np.float32(0.5)))
    assert few.expected.tolist() == everything.expected.tolist()
    assert few.curves.tolist() == everything.curves.tolist()


def test_killed_and_resumed_the_result_has_the_same_bits(
    screen: Screen, serial: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    done = []

    def dies() -> None:
        done.append(1)
        if len(done) == 2:
            raise Killed

    with pytest.raises(Killed):
        do_blocks(screen, screen.plan.blocks(), tmp_path, advance=dies)
    assert len(list(tmp_path.glob("block-*"))) == 2
    # What a kill in the midst of writing leaves behind is no block.
    (tmp_path / ".block-000002.parquet.torn").write_bytes(block_path(serial, 2).read_bytes()[:50])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("block-*")}
    do_blocks(screen, screen.plan.blocks(), tmp_path)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    found = {name: content for name, content in files_of(tmp_path).items() if not name.startswith(".")}
    assert found == files_of(serial)
    assert (
        reduced([tmp_path], tmp_path / "a").file.read_bytes()
        == reduced([serial], tmp_path / "b").file.read_bytes()
    )


def test_shards_reduced_together_are_the_whole(screen: Screen, serial: Path, tmp_path: Path) -> None:
    folders = [tmp_path / str(shard) for shard in range(3)]
    for shard, folder in enumerate(folders):
        do_blocks(screen, screen.plan.blocks(3, shard), folder)
    whole = reduced([serial], tmp_path / "whole.parquet")
    merged = reduced(folders[::-1], tmp_path / "merged.parquet")
    assert merged.file.read_bytes() == whole.file.read_bytes()
    assert merged.expected.tolist() == whole.expected.tolist()
    part = reduced(folders[:1], tmp_path / "part.parquet", whole=False)
    assert part.drawn.sum() == 400
    with pytest.raises(InputError, match="blocks are missing"):
        reduced(folders[:2], tmp_path / "x.parquet")
    with pytest.raises(InputError, match="already"):
        reduced([*folders, folders[0]], tmp_path / "x.parquet")
    other = with_plan(screen, seed=4)
    do_blocks(other, [0], tmp_path / "other")
    with pytest.raises(InputError, match="another screen"):
        reduced([folders[1], tmp_path / "other"], tmp_path / "x.parquet")
    with pytest.raises(InputError, match="holds no blocks"):
        reduced([tmp_path / "absent"], tmp_path / "x.parquet")
    block_path(tmp_path / "other", 0).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="expected a block"):
        reduced([tmp_path / "other"], tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_damaged_blocks_are_refused(screen: Screen, serial: Path, tmp_path: Path) -> None:
    for path in serial.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    block = block_path(tmp_path, 1)
    whole = block.read_bytes()
    table = pq.read_table(block)
    told = dict(table.schema.metadata)
    summary = json.loads(told[b"interpretkit.summary"])

    def damaged(**changes: object) -> None:
        metadata = {**told, b"interpretkit.summary": json.dumps({**summary, **changes}).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), block)

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            reduced([tmp_path], tmp_path / "x.parquet")
        assert str(caught.value).startswith(str(block))
        assert not (tmp_path / "x.parquet").exists()

    block.write_bytes(whole[: len(whole) // 2])
    refused("cannot be read .*expected a block")
    block.write_bytes(whole[:80] + bytes(200) + whole[280:])  # of the rows; what is said of them is whole
    refused("cannot be read .*expected a block")
    for changes in ({"block": 77}, {"block": "one"}, {"templates": []}, {"templates": [{}, {}]}):
        damaged(**changes)
        refused("says nothing of what was screened; expected a block")
    pq.write_table(table.drop_columns(["occupation"]), block)
    refused("expected a block")


def test_fewer_sites_than_classes_are_screened(
    teacher: Teacher, templates: list[Template], tmp_path: Path
) -> None:
    one = prepared(teacher, templates, ALLOY, TARGET, 1, keep="all")
    do_blocks(one, one.plan.blocks(), tmp_path / "blocks")
    assert reduced([tmp_path / "blocks"], tmp_path / "sites.parquet").drawn.sum() == 1


def test_another_seed_draws_other_sites(screen: Screen, serial: Path) -> None:
    assert with_plan(screen, seed=4).block(0) != block_path(serial, 0).read_bytes()


def test_a_process_that_dies_is_replaced_and_nothing_is_lost(
    screen: Screen, serial: Path, tmp_path: Path
) -> None:
    killed = []

    def kill_one() -> None:
        if not killed:
            victim = multiprocessing.active_children()[0]
            killed.append(victim.pid)
            victim.kill()
            victim.join(20)

    do_blocks(screen, screen.plan.blocks(), tmp_path, workers=2, advance=kill_one)
    assert killed
    assert files_of(tmp_path) == files_of(serial)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # What nobody has asked after is there still, though it has ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # it ended between the two, or this system has no /proc
        return not Path("/proc/self").exists()


def test_processes_end_with_the_command_that_is_killed() -> None:
    script = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from catalysis.studies.screen import _adopt
if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), _adopt, (None,)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        worker = int(command.stdout.readline())
        command.kill()
    until = time.monotonic() + 60
    while is_alive(worker):
        if time.monotonic() > until:
            os.kill(worker, signal.SIGKILL)
            pytest.fail("the worker lives on")
        time.sleep(0.1)


def test_a_dask_worker_that_dies_is_replaced_and_nothing_is_lost_or_counted_twice(
    screen: Screen, serial: Path, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    counted, killed = [], []
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def kill_one() -> None:
            counted.append(1)
            if not killed:
                victim = next(iter(client.run(os.getpid).values()))
                killed.append(victim)
                os.kill(victim, signal.SIGKILL)

        do_blocks(screen, screen.plan.blocks(), tmp_path, client=client, advance=kill_one)
    assert killed
    assert len(counted) == screen.plan.n_blocks
    assert files_of(tmp_path) == files_of(serial)


def test_what_cannot_be_screened_is_refused(teacher: Teacher, templates: list[Template]) -> None:
    with pytest.raises(InputError, match="does not know Ni"):
        prepared(teacher, templates, {"Ni": 1.0}, TARGET, 10)
    with pytest.raises(InputError, match="templates: none"):
        prepared(teacher, [], ALLOY, TARGET, 10)
    with pytest.raises(InputError, match="--n"):
        prepared(teacher, templates, ALLOY, TARGET, 0)


@pytest.mark.parametrize("enough", [30, 10**6])
def test_frames_of_ones_own_get_what_fingerprints_and_teacher_give(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: int
) -> None:
    # Of so many sites a geometry gets a table of its own, which changes nothing but the time.
    monkeypatch.setattr(frames, "_ENOUGH", enough)
    sites = load_bundled()[::12]
    sizes: list[int] = []
    screened = screen_frames(iter(sites), teacher, TARGET, tmp_path / "sites.parquet", advance=sizes.append)
    table = screened.table
    assert sum(sizes) == len(table) == len(sites)
    rows = pq.read_table(tmp_path / "sites.parquet")
    assert rows["site_id"].to_pylist() == [site.site_id for site in sites]
    some = list(range(0, len(sites), 10))
    expected = teacher.predict([sites[k] for k in some])
    assert rows["energy_ev"].to_numpy()[some] == pytest.approx(expected.mean_ev, abs=1e-5)
    assert rows["deviation_ev"].to_numpy()[some] == pytest.approx(expected.std_ev, rel=2e-3)
    curves = fingerprints([sites[k] for k in some]).path_homology.reshape(len(some), -1)
    assert np.array_equal(np.array([rows["betti_curves"][k].as_py() for k in some]), curves)
    assert rows["matched"].to_numpy(zero_copy_only=False).all()


def test_frames_killed_and_resumed_give_the_same_bits(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(frames, "PORTION", 30)
    monkeypatch.setattr(frames, "_ENOUGH", 40)  # the second portion is judged otherwise than the first
    sites = [site for site in load_bundled() if site.site_class == "111_bridge"][:100]
    write_sites(tmp_path / "sites.extxyz", sites)
    done: list[int] = []

    def dies(count: int) -> None:
        done.append(count)
        if len(done) == 2:
            raise Killed

    def screened(name: str, **options: Any) -> ScreenedFrames:
        found = iterate_structures(tmp_path / "sites.extxyz")
        return screen_frames(found, teacher, TARGET, tmp_path / name, shown=5, **options)

    whole = screened("whole.parquet")
    (tmp_path / "kept").mkdir()
    with pytest.raises(Killed):
        screened("x.parquet", kept=tmp_path / "kept", advance=dies)
    assert not (tmp_path / "x.parquet").exists()
    worked_out = sorted((tmp_path / "kept").iterdir())
    assert len(worked_out) == 2
    before = [path.stat().st_mtime_ns for path in worked_out]
    resumed = screened("resumed.parquet", kept=tmp_path / "kept")
    assert [path.stat().st_mtime_ns for path in worked_out] == before
    assert (tmp_path / "resumed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    # The likeliest are the same sites, also of portions that were not worked out again.
    order = np.argsort(-whole.table["probability"].to_numpy(), kind="stable")[:5]
    for found in (whole, resumed):
        assert [row for row, _ in found.likeliest] == order.tolist()
        assert [site.site_id for _, site in found.likeliest] == [sites[row].site_id for row in order]
        assert [site.contact_elements for _, site in found.likeliest] == [
            sites[row].contact_elements for row in order
        ]


def test_frames_are_judged_by_a_teacher_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PORTION", 30)
    sites = load_bundled()[::40]
    placed = Teacher(geometry="relaxed").fit(sites)
    found = screen_frames(iter(sites), placed, TARGET, tmp_path / "sites.parquet").table
    expected = placed.predict(sites)
    assert found["energy_ev"].to_numpy() == pytest.approx(expected.mean_ev, abs=1e-5)
    assert found["deviation_ev"].to_numpy() == pytest.approx(expected.std_ev, rel=2e-3)
    assert np.abs(placed.predict_mean(placed.occupations(sites)) - expected.mean_ev).max() < 1e-9


def test_a_frame_that_is_none_is_named_by_file_and_number(teacher: Teacher, tmp_path: Path) -> None:
    sites = load_bundled()[:3]
    for bad, message in (
        (
            replace(sites[0], symbols=("Ni", *sites[0].symbols[1:])),
            "frame 2: metal Ni; the energy model knows",
        ),
        (
            replace(sites[0], adsorbate_positions=np.full((2, 3), np.nan)),
            "frame 2: positions that are not finite",
        ),
        (replace(sites[0], adsorbate_symbols=("O", "O")), "frame 2: adsorbate"),
    ):
        write_sites(tmp_path / "sites.extxyz", [*sites[:2], bad, sites[2]])
        with pytest.raises(InputError, match=re.escape("sites.extxyz, ") + message):
            screen_frames(
                iterate_structures(tmp_path / "sites.extxyz"), teacher, TARGET, tmp_path / "x.parquet"
            )
    assert not (tmp_path / "x.parquet").exists()


def test_frames_are_looked_at_before_a_potential_describes_what_is_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("chgnet", reason="needs the extra mlip")
    monkeypatch.setattr(embeddings, "embed", lambda *_, **__: pytest.fail("sites were described"))
    write_sites(tmp_path / "sites.extxyz", load_bundled()[:30])
    (tmp_path / "frames.extxyz").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("catalyst", "screen", "--frames", str(tmp_path / "frames.extxyz")),
                *("--data", str(tmp_path / "sites.extxyz"), "--embeddings", "chgnet"),
                *("--out", str(tmp_path / "out"), "--quiet"),
            ]
        )
    assert ended.value.code == 2
    assert "frames.extxyz: an empty file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_likeliest_frames_are_shown_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = [replace(site, site_id=("a", "b")[k % 2]) for k, site in enumerate(load_bundled()[:7])]
    write_sites(tmp_path / "sites.extxyz", sites)
    words = ["--frames", tmp_path / "sites.extxyz", "--target-ev", "-0.6", "--window-ev", "0.4", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["catalyst", "screen", *map(str, words), "--out", str(tmp_path / "out")])
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    with (tmp_path / "out" / "selected.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert 0 < len(rows) == told["n_selected"] < told["n_sites"] == 7
    chances = [float(row["probability"]) for row in rows]
    assert chances == sorted(chances, reverse=True)
    # A name that comes again is told apart, so that each row opens its own structure.
    names = [row["site_id"] for row in rows]
    assert len(set(names)) == len(names)
    shown = read_sites(tmp_path / "out" / "likeliest.extxyz")
    assert [site.site_id for site in shown] == names
    assert [site.contact_elements for site in shown] == [row["contacts"] for row in rows]
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'data-opens="instrument-1"' in page
    assert page.count('class="open-row"') == len(rows)


def test_frames_that_the_teacher_cannot_judge_are_refused(teacher: Teacher, tmp_path: Path) -> None:
    other = replace(load_bundled()[0], adsorbate="O", site_id="mine")
    with pytest.raises(InputError, match="mine: adsorbate O"):
        screen_frames(iter([other]), teacher, TARGET, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="none read"):
        screen_frames(iter([]), teacher, TARGET, tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_a_plan_is_read_back_from_a_block(screen: Screen, serial: Path) -> None:
    from catalysis.studies.screen import read_plan

    assert read_plan(serial) == screen.plan
    assert json.loads(screen.plan.text())["n"] == 950
