"""What is installed, read from the packages' metadata: nothing is imported to find out."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata

# The distribution, and the pip line that brings one of its extras. A package index knows an unrelated project
# by the same name, so the line always starts from a checkout.
DISTRIBUTION = "interpretkit"
INSTALL_COMMAND = 'pip install -c constraints.txt "{target}"'


@dataclass(frozen=True)
class Requirement:
    """One package that the distribution asks for.

    Attributes
    ----------
    name : str
        The package's name on the index, such as ``scikit-learn``.
    specifier : str
        The versions accepted, such as ``>=1.4``; empty when any will do.
    extra : str or None
        The extra that brings it; None for what is always installed.
    """

    name: str
    specifier: str
    extra: str | None

    @property
    def install_command(self) -> str:
        """The pip line, run in the root of the checkout, that brings this package."""
        return install_command(self.extra)


def install_command(extra: str | None = None) -> str:
    """Return the pip line that installs the project from its checkout, with an extra if one is named."""
    return INSTALL_COMMAND.format(target=f".[{extra}]" if extra else ".")


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it or a word about it."""
    if package in sys.modules:
        return True
    # One that only tells of imports (`interpretkit.commandline.loading`) finds nothing, and has nothing to tell here.
    finders = [finder for finder in sys.meta_path if not getattr(finder, "only_tells", False)]
    return any(finder.find_spec(package, None) is not None for finder in finders)


@cache
def requirements() -> tuple[Requirement, ...]:
    """Return what the installed distribution asks for, in the order of its metadata.

    Returns
    -------
    tuple of Requirement
        Those of this Python and machine; empty when the package is used from a folder without having been installed.
    """
    # Only when asked: no command needs it for its help.
    from packaging import requirements as wanted

    try:
        lines = metadata.requires(DISTRIBUTION) or []
        extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return ()
    found = []
    for line in map(wanted.Requirement, lines):
        marker = line.marker
        bringing = (extra for extra in ("", *extras) if marker is None or marker.evaluate({"extra": extra}))
        extra = next(bringing, None)
        if extra is not None:
            found.append(Requirement(line.name, str(line.specifier), extra or None))
    return tuple(found)


def installed_version(name: str) -> str | None:
    """Return the installed version of a package, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def extra_of(module: str) -> str | None:
    """Return the extra that brings an importable module, or None if none does."""
    from packaging.utils import canonicalize_name

    wanted = canonicalize_name(module.partition(".")[0])
    named = (each.extra for each in requirements() if canonicalize_name(each.name) == wanted)
    return next((extra for extra in named if extra is not None), None)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on: Python, this package and what it is installed with.

    Returns
    -------
    dict
        From name to version; packages that are not installed are left out.
    """
    found = {"python": platform.python_version(), DISTRIBUTION: installed_version(DISTRIBUTION) or "unknown"}
    # The tools that check and document the code have no part in a result.
    wanted = {r.name for r in requirements() if r.extra not in ("test", "docs")}
    for name in sorted(wanted):
        version = installed_version(name)
        if version is not None:
            found[name] = version
    return found
