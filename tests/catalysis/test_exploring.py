"""Sites to be explored: a person finds one, sees it, and takes it along."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pages import PATIENCE_MS, View
from PIL import Image

from catalysis.data import load_bundled
from catalysis.exploring import explorer_of
from catalysis.figures import ELEMENT_COLOURS
from catalysis.structure.sites import Site
from catalysis.structure.user_sites import read_sites
from interpretkit.visualization import Report
from interpretkit.visualization.instruments import AtomValues, Property


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return load_bundled()[::120]


@pytest.fixture(scope="module")
def file(sites: list[Site], tmp_path_factory: pytest.TempPathFactory) -> Path:
    energies = [site.energy_ev for site in sites]
    explorer = explorer_of(
        sites,
        {
            "energy_ev": Property("energy", energies, "eV", "Strongest binding", "Weakest binding"),
            "number": Property("number", list(range(len(sites)))),
            "half": Property("known of some", [None, *range(1, len(sites))]),
        },
        x="number",
        y="energy_ev",
        colour="site_class",
        groups=["design"] * 3 + ["data"] * (len(sites) - 3),
        marked="design",
        atom_values={
            "part_ev": AtomValues("part", [np.linspace(-1, 1, len(s)).tolist() for s in sites], "eV")
        },
    )
    report = Report("Sites", "To be explored.")
    report.add_section("Explore").add_instrument(explorer)
    report.add_table(
        [{"site": name, "energy (eV)": e} for name, e in zip(explorer.names, energies, strict=True)],
        opens=True,
    )
    path = tmp_path_factory.mktemp("sites") / "report.html"
    report.save(path)
    return path


@pytest.fixture
def page(file: Path, view: Callable[..., View]) -> View:
    return view(file)


def _weakest(sites: list[Site]) -> Site:
    return max(sites, key=lambda site: site.energy_ev or 0.0)


@pytest.mark.browser
def test_the_site_that_binds_weakest_is_seen_and_taken_within_three_clicks(
    page: View, sites: list[Site], tmp_path: Path
) -> None:
    weakest = _weakest(sites)
    page.page.get_by_role("button", name="Weakest binding").click()
    page.page.wait_for_selector(f".viewer[data-shows='{weakest.site_id}'] canvas")
    # The atoms are on the canvas, not only in the list.
    drawn = page.page.locator(".viewer").screenshot()
    pixels = np.asarray(Image.open(BytesIO(drawn)).convert("RGB")).reshape(-1, 3).astype(int)
    assert (pixels.min(1) < 200).mean() > 0.1
    with page.page.expect_download() as saving:
        page.page.get_by_role("button", name="Save this one as extxyz").click()
    saving.value.save_as(tmp_path / "site.extxyz")
    (read,) = read_sites(tmp_path / "site.extxyz")
    assert (read.site_id, read.site_class, read.contacts) == (
        weakest.site_id,
        weakest.site_class,
        weakest.contacts,
    )
    assert sorted(read.symbols) == sorted(weakest.symbols)
    assert read.energy_ev == pytest.approx(weakest.energy_ev, abs=1e-4)
    assert page.said == []


@pytest.mark.browser
def test_atoms_keep_their_places_and_values(page: View, sites: list[Site], tmp_path: Path) -> None:
    from ase.io import iread

    with page.page.expect_download() as saving:
        page.page.get_by_role("button", name=f"Save the {len(sites)} shown").click()
    saving.value.save_as(tmp_path / "sites.extxyz")
    found = list(iread(tmp_path / "sites.extxyz", ":"))
    for atoms, site in zip(found, sites, strict=True):
        given = site.to_atoms()
        assert atoms.get_chemical_symbols() == given.get_chemical_symbols()
        np.testing.assert_allclose(atoms.positions, given.positions, atol=1.1e-3)
        np.testing.assert_allclose(
            atoms.arrays["part_ev"][: len(site)], np.linspace(-1, 1, len(site)), atol=1e-5
        )
        assert not np.isfinite(atoms.arrays["part_ev"][len(site) :]).any()


@pytest.mark.browser
def test_what_is_shown_is_chosen(page: View, sites: list[Site]) -> None:
    status = page.page.locator(".status")
    total = len(sites)
    page.page.locator("[data-choice=group]").select_option("design")
    assert status.text_content().startswith(f"3 of {total} shown")
    page.page.locator("[data-choice=group]").select_option("")
    page.page.locator("[data-choice=filter]").select_option("number")
    page.page.locator("[data-choice=from]").fill("2")
    page.page.locator("[data-choice=to]").fill("5")
    assert status.text_content().startswith(f"4 of {total} shown")
    page.page.locator("[data-choice=filter]").select_option("facet")
    page.page.locator("[data-choice=word]").select_option("211")
    assert status.text_content().startswith(f"{sum(s.facet == '211' for s in sites)} of {total} shown")
    page.page.locator("[data-choice=filter]").select_option("")
    page.page.locator("[data-choice=x]").select_option("half")
    assert "1 have no such values" in status.text_content()
    page.page.locator("[data-choice=search]").fill(sites[4].site_id.upper())
    assert status.text_content().startswith("1 of")


def until(happened: Callable[[], bool], seconds: float = PATIENCE_MS / 1000) -> None:
    """Wait for something that a busy machine may take its time for."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end


def settled(picture: Callable[[], bytes]) -> bytes:
    """Return a picture once it is the same twice."""
    last = [picture()]

    def same() -> bool:
        last.append(picture())
        return last[-1] == last[-2]

    until(same)
    return last[-1]


@pytest.mark.browser
def test_map_and_structure_are_worked_by_the_keyboard(page: View, sites: list[Site]) -> None:
    chart = page.page.locator("canvas.map")
    chart.focus()
    # Along the numbers, which are in the order of the sites.
    for _ in range(2):
        page.page.keyboard.press("ArrowRight")
    page.page.wait_for_selector(f".viewer[data-shows='{sites[2].site_id}']")
    assert page.page.locator(".chosen").text_content() == f"{sites[2].site_id} (design)"
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    assert "2 selected" in page.page.locator(".status").text_content()
    # The structure follows when it is drawn; only then is a change the key's.
    page.page.wait_for_selector(f".viewer[data-shows='{sites[3].site_id}']")
    viewer = page.page.locator(".viewer")
    viewer.focus()
    before = settled(viewer.screenshot)
    page.page.keyboard.press("ArrowLeft")
    until(lambda: viewer.screenshot() != before)


@pytest.mark.browser
def test_a_row_opens_its_site(page: View, sites: list[Site]) -> None:
    row = page.page.locator(f".open-row[data-item='{sites[6].site_id}']")
    row.focus()
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(f".viewer[data-shows='{sites[6].site_id}']")
    assert page.page.locator("canvas.map").evaluate("map => map === document.activeElement")


@pytest.mark.browser
def test_its_page_has_no_fault(page: View, file: Path) -> None:
    assert page.faults() == []
    assert page.unreachable() == []
    assert file.stat().st_size < 1_000_000


@pytest.mark.browser
def test_without_three_dimensions_the_rest_works(browser, file: Path) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.add_init_script(
        "HTMLCanvasElement.prototype.getContext = (get => function (kind, ...rest) {"
        " return kind.includes('webgl') ? null : get.call(this, kind, ...rest); })"
        "(HTMLCanvasElement.prototype.getContext)"
    )
    page.goto(file.as_uri())
    page.get_by_role("button", name="Weakest binding").click()
    page.wait_for_selector(".viewer .missing")
    with page.expect_download():
        page.get_by_role("button", name="Save this one as extxyz").click()
    context.close()


def test_names_are_told_apart_and_lengths_must_agree(sites: list[Site]) -> None:
    twice = [sites[0], sites[0]]
    energies = {"energy_ev": Property("energy", [0.0, 1.0], "eV")}
    explorer = explorer_of(twice, energies, x="energy_ev", y="energy_ev", colour="energy_ev")
    assert explorer.names == [sites[0].site_id, f"{sites[0].site_id} (2)"]
    with pytest.raises(ValueError, match="2 items"):
        explorer_of(twice, {"e": Property("e", [1.0])}, x="e", y="e", colour="e")
    with pytest.raises(ValueError, match="no property of numbers"):
        explorer_of(twice, energies, x="facet", y="energy_ev", colour="energy_ev")


def _lab(colour: str, view: np.ndarray | None) -> np.ndarray:
    from skimage.color import rgb2lab

    rgb = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    if view is not None:
        light = view @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        light = np.clip(light, 0, 1)
        rgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb[None, None])[0, 0]


# Machado, Oliveira & Fernandes, IEEE TVCG 15, 1291 (2009): full protan-, deuter- and tritanopia, on linear RGB.
VIEWS = {
    "normal": None,
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("view", VIEWS)
def test_colours_of_elements_are_told_apart_by_everybody(view: str) -> None:
    matrix = None if VIEWS[view] is None else np.array(VIEWS[view])
    labs = {symbol: _lab(colour, matrix) for symbol, colour in ELEMENT_COLOURS.items()}
    common = ["Pt", "Pd", "Ir", "Rh", "Ru", "Cu", "Ni", "Au", "Ag", "Co", "Fe", "O", "H"]
    # A difference of 2.3 is just seen side by side.
    for group, least in ((common, 12.0), (list(labs), 8.0)):
        pairs = [(a, b) for k, a in enumerate(group) for b in group[k + 1 :]]
        nearest = min(pairs, key=lambda pair: np.linalg.norm(labs[pair[0]] - labs[pair[1]]))
        assert np.linalg.norm(labs[nearest[0]] - labs[nearest[1]]) > least, nearest
