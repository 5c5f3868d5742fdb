"""Options of the catalyst commands, checked before anything heavy is loaded: by names, paths and headers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catalysis.potentials.calculators import get_potential
from interpretkit.errors import InputError

BUNDLED = "bundled"
ENERGY_KEY = "adsorption_energy_eV"
KINDS = ("top", "bridge", "hollow")
GROUPINGS = ("slab_id", "site_id", "site_class", "facet")
SUMMARIES = ("entropy", "silhouette", "landscape")
MOST_DESIGNS = 10_000
"""As many points are searched at first; more designs than points cannot come of it."""
VERIFIER = "chgnet"
"""The potential that labelled the bundled data, and verifies designs where no other is named."""


def check_sites(
    source: str, option: str, *, energy_key: str = ENERGY_KEY, facet: str = "", kind: str = ""
) -> None:
    """Refuse sites that are not there, and options of reading where nothing is read.

    Raises
    ------
    InputError
        If there is no such file or folder, a kind is unknown, or an option is given with the bundled sites, which have
        energies, facets and kinds of their own.
    """
    if kind and kind not in KINDS:
        raise InputError(f"--kind {kind}: expected one of {', '.join(KINDS)}")
    if not energy_key.strip():
        raise InputError(f"--energy-key {energy_key!r}: expected the name of an entry of info")
    if source == BUNDLED:
        given = {"--energy-key": energy_key != ENERGY_KEY and energy_key, "--facet": facet, "--kind": kind}
        for name, value in given.items():
            if value:
                raise InputError(
                    f"{name} {value}: does nothing to the bundled sites; expected sites of your own"
                )
    elif not source.strip():
        raise InputError(f"{option} {source!r}: is no name; expected a file, a folder, or 'bundled'")
    elif not Path(source).exists():
        raise InputError(f"{option} {source}: no such file or folder; expected what ASE reads, or 'bundled'")


def check_share(value: float, option: str) -> None:
    """Refuse what is no share between 0 and 1, neither of them included."""
    if not 0 < value < 1:
        raise InputError(f"{option}: {value}; expected a share between 0 and 1")


def check_numbers(text: str, option: str, *, low: float, high: float) -> list[float]:
    """Return the numbers between commas, each once.

    Raises
    ------
    InputError
        If there is none, or one is no number, 0, or not between `low` and `high`.
    """
    found = []
    for part in (part.strip() for part in text.split(",")):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and value != 0):
            raise InputError(f"{option} {part!r}: expected numbers from {low:g} to {high:g}, none of them 0")
        found.append(value)
    return list(dict.fromkeys(found))


def check_label(structures: str, calculator: str, kinds: str) -> None:
    """Refuse what cannot be labelled, or be labelled with."""
    if structures != BUNDLED:
        check_sites(structures, "SITES")
    some_of(KINDS, kinds, "--kinds")
    get_potential(calculator)


def check_evaluate(test: str, *, folds: int, group_by: str, split: str = "slab", jobs: int) -> None:
    """Refuse foldings that cannot be, or that a test set makes needless."""
    if folds < 2:
        raise InputError(f"folds {folds}: expected at least 2")
    if group_by not in GROUPINGS:
        raise InputError(f"group_by {group_by}: expected one of {', '.join(GROUPINGS)}")
    if test and (folds != 5 or group_by != "slab_id"):
        raise InputError(
            "--test: sites of their own are measured on; expected neither --folds nor --group-by"
        )
    if test and split != "slab":
        raise InputError(f"--split {split}: --test names the sites to measure on; expected one of them")
    if split != "slab" and (folds != 5 or group_by != "slab_id"):
        raise InputError(
            f"--split {split}: leaves out one {split} after the other; expected no --folds or --group-by"
        )
    if jobs < 0:
        raise InputError(f"--jobs: {jobs}; expected 0 (one per core) or more")
    if test and jobs not in (0, 1):
        raise InputError("--test: there is one fold only; expected no --jobs")


def check_design(
    data: str,
    model: str,
    *,
    target_ev: float,
    window_ev: float,
    n: int,
    facets: str | None,
    elements: str | None,
    training: Mapping[str, Any],
    verify: int = 0,
    calculator: str = "",
    max_price: float | None = None,
) -> None:
    """Refuse designs that cannot be asked for.

    Parameters
    ----------
    data, model : str
        The options of these names.
    target_ev, window_ev : float
        In eV.
    n : int
        How many designs.
    facets, elements : str or None
        Names between commas; None if nothing was asked for.
    training : mapping of str to Any
        From an option that serves training alone to its value where it was given; else to something false.
    verify : int
        How many designs a potential judges; 0 for none.
    calculator : str
        Which potential; empty if none was asked for.
    max_price : float or None
        What a site's metals may cost.
    """
    check_window(target_ev, window_ev)
    if not 1 <= n <= MOST_DESIGNS:
        raise InputError(f"--n: {n}; expected at least 1 and at most {MOST_DESIGNS}")
    if not 0 <= verify <= n:
        raise InputError(f"--verify: {verify}; expected 0 to {n}, as many as there are designs")
    if calculator and not verify:
        raise InputError(
            f"--calculator {calculator}: does nothing; expected --verify with a number of designs"
        )
    if verify:
        get_potential(calculator or VERIFIER)
    if max_price is not None and not (math.isfinite(max_price) and max_price > 0):
        raise InputError(f"--max-price: {max_price}; expected US dollars per mole of metal, above 0")
    check_model(data, model, facets=facets, elements=elements, training=training)


def check_window(target_ev: float, window_ev: float) -> None:
    """Refuse a window of energies that is none."""
    if not math.isfinite(target_ev):
        raise InputError(f"--target-ev: {target_ev}; expected a finite energy in eV")
    if not (math.isfinite(window_ev) and window_ev > 0):
        raise InputError(f"--window-ev: {window_ev}; expected a half-width above 0 eV")


def check_model(
    data: str, model: str, *, facets: str | None, elements: str | None, training: Mapping[str, Any]
) -> None:
    """Refuse a model that is not there, two sources of one, and facets and elements that it does not know.

    Parameters
    ----------
    data, model, facets, elements, training
        As for `check_design`.
    """
    if model and data != BUNDLED:
        raise InputError("--model and --data: expected one of them, a trained model or sites to train on")
    trained = bool(model) or data == BUNDLED
    for option, value in training.items():
        if trained and value:
            shown = "" if value is True else f" {value}"
            raise InputError(
                f"{option}{shown}: nothing is trained or read; expected --data with sites of your own"
            )
    known = _knowledge(Path(model) if model else None) if trained else None
    for option, text in (("--elements", elements), ("--facets", facets)):
        if text is None:
            continue
        names = element_names(text) if option == "--elements" else facet_names(text)
        for name in names if known else ():
            if known and name not in known[option]:
                what = "does not know" if option == "--elements" else "knows no facet"
                raise InputError(
                    f"{option}: the model {what} {name}; expected some of {', '.join(sorted(known[option]))}"
                )


def bounds_of(text: str) -> dict[str, tuple[float, float]]:
    """Return the shares that `--bounds` allows, such as `Pt=10-60,Ru=0-20` in at%, by element.

    Raises
    ------
    InputError
        If a part has another form, a metal is unknown or named twice, or a range is none within 0 and 100 at%.
    """
    from catalysis.structure.elements import require_metal

    found: dict[str, tuple[float, float]] = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        matched = re.fullmatch(r"([A-Z][a-z]?)=(\d+\.?\d*)-(\d+\.?\d*)", part)
        if not matched:
            raise InputError(f"--bounds {part!r}: expected an element and its at%, such as Pt=10-60")
        element, low, high = matched[1], float(matched[2]), float(matched[3])
        if require_metal(element, "--bounds") in found:
            raise InputError(f"--bounds: {element} is named twice; expected each element once")
        if not low <= high <= 100:
            raise InputError(f"--bounds {part!r}: expected the lower at% first, and at most 100")
        found[element] = (low / 100, high / 100)
    return found


def prices_of(text: str) -> dict[str, float]:
    """Return the prices that `--prices` names, in US dollars per gram, by element.

    Either such as `Pt=31,Ru=14`, or the name of a CSV file with an element and its price in each line; a first line of
    headings, empty lines and what follows a `#` are passed over.

    Raises
    ------
    InputError
        If there is no such file, a part has another form, or a metal is unknown or named twice.
    """
    from catalysis.structure.elements import require_metal

    if not text.strip():
        return {}
    path = Path(text)
    if path.is_file():
        parts, form = _table_lines(path), r"([A-Z][a-z]?)\s*[,;\t]\s*(\d+\.?\d*)"
        expected = "expected an element and its US dollars per gram in each line, such as Pt,31"
    elif "=" not in text and (path.suffix or len(path.parts) > 1):
        raise InputError(f"--prices {text}: no such file; expected a table, or prices such as Pt=31,Ru=14")
    else:
        parts = [(repr(part.strip()), part.strip()) for part in text.split(",") if part.strip()]
        form = r"([A-Z][a-z]?)=(\d+\.?\d*)"
        expected = "expected an element and its US dollars per gram, such as Pt=31"
    found: dict[str, float] = {}
    for where, part in parts:
        matched = re.fullmatch(form, part)
        if not matched:
            raise InputError(f"--prices {where}: {expected}")
        if require_metal(matched[1], "--prices") in found:
            raise InputError(f"--prices: {matched[1]} is named twice; expected each element once")
        found[matched[1]] = float(matched[2])
    if not found:
        raise InputError(f"--prices {text}: holds no price; {expected}")
    return found


def _table_lines(path: Path) -> list[tuple[str, str]]:
    """Return where each line of a small table stands, and the line, without headings and comments."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prices {path}: cannot be read ({error}); expected a CSV table") from error
    told = [
        (f"{path}, line {number}", line.partition("#")[0].strip())
        for number, line in enumerate(lines, start=1)
    ]
    told = [(where, line) for where, line in told if line]
    # Only a heading may do without a number.
    return told[1:] if told and not re.search(r"\d", told[0][1]) else told


def element_names(text: str) -> tuple[str, ...]:
    """Return the metals of `--elements`, such as `Pt,Pd,Ir` or `PtPdIr`, each once."""
    from catalysis.structure.elements import parse_elements

    return parse_elements(text, "--elements")


def facet_names(text: str) -> tuple[str, ...]:
    """Return the facets of `--facets`, such as `111,211`, each once.

    Raises
    ------
    InputError
        If there is none, or one is no Miller index, or its indices have a common factor.
    """
    from catalysis.structure.surfaces import facet_name, parse_facet

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"--facets {text!r}: names none; expected facets such as 111,211")
    found = []
    for part in parts:
        indices = parse_facet(part, "--facets")
        if part.isdigit() and math.gcd(*map(int, part)) > 1:
            raise InputError(
                f"--facets {part}: expected indices without a common factor, {facet_name(indices)}"
            )
        found.append(facet_name(indices))
    return tuple(dict.fromkeys(found))


def some_of(known: Sequence[str], text: str, option: str, *, or_none: bool = False) -> list[str]:
    """Return the names between commas, each once.

    Raises
    ------
    InputError
        If one is unknown, or there is none and that is not allowed.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not (names or or_none):
        raise InputError(f"{option}: {(unknown or [text])[0]!r}; expected any of {', '.join(known)}")
    return list(dict.fromkeys(names))


def known_to(data: str, model: str) -> tuple[set[str], set[tuple[str, str]]] | None:
    """Return the elements, and the facets and classes, that a trained model knows, from the header of its file.

    None where a model is still to be trained, or its header says nothing of it.
    """
    if not model and data != BUNDLED:
        return None
    known = _knowledge(Path(model) if model else None)
    return None if known is None else (set(known["--elements"]), set(known["classes"]))


def class_names(text: str) -> tuple[str, ...]:
    """Return the classes of `--site-classes`, such as `111_bridge,211_edge`, each once."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError(f"--site-classes {text!r}: names none; expected classes such as 111_bridge,211_edge")
    return tuple(dict.fromkeys(names))


def _knowledge(folder: Path | None) -> dict[str, set[Any]] | None:
    """Return what a model's file says that it knows, by option; None where its header says nothing of it."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"model {folder}: no such folder; expected what `interpretkit catalyst train` wrote")
    file = (folder or Path(__file__).parent / "data" / "model") / "vae.safetensors"
    if not file.is_file():
        raise InputError(f"model {folder}: holds no {file.name}; expected what `catalyst train` wrote")
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, 10_000_000)))
        config = json.loads(header["__metadata__"]["config"])
        classes = {(str(entry["facet"] or ""), str(entry["site_class"])) for entry in config["classes"]}
        return {
            "--elements": set(map(str, config["elements"])),
            "--facets": {facet for facet, _ in classes} - {""},
            "classes": classes,
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # whoever loads it will say what is wrong with it
