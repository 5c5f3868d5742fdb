"""What is installed, and what is missing."""

from __future__ import annotations

from interpretkit.commandline import Column, Finding, command

_COLUMNS = {
    "name": Column("the package", heading="package"),
    "installed": Column("the version installed"),
    "wanted": Column("the versions accepted"),
    "extra": Column("the extra that brings it; none for what is always installed"),
}


@command(example=["interpretkit doctor", "interpretkit doctor --json"])
def doctor() -> Finding:
    """Say what is installed, which device will be used, and how to mend what is missing."""
    from interpretkit.commandline.doctor import examine

    seen = examine()
    device, weights = seen["device"], seen["weights"]
    state = "everything needed is there" if seen["ok"] else "something is missing"
    found = Finding(f"interpretkit {seen['interpretkit']} on Python {seen['python']}: {state}")
    if device is not None:
        found.number("device", f"{device['kind']}: {device['name']}, {device['threads']} threads")
    found.number(
        "imports",
        {
            name: "loads" if told["loads"] else f"fails: {told['error']}"
            for name, told in seen["imports"].items()
        },
        "import",
    )
    if weights is not None:
        present = ", ".join(file["model"] for file in weights["files"])
        found.number("weights", present or "none", note=f"in {weights['folder']}")
    front_ends = (end["name"] if end["found"] else f"{end['name']} (broken)" for end in seen["front_ends"])
    found.number("front_ends", ", ".join(front_ends) or "none", "front ends")
    packages = [{**package, "installed": package["installed"] or "missing"} for package in seen["packages"]]
    found.section("Packages").table(None, packages, _COLUMNS, shown=list(_COLUMNS), in_terminal=True)
    if seen["advice"]:
        advice = [{"what to do": line} for line in seen["advice"]]
        found.section("Advice").table(None, advice, in_terminal=True)
    # Under --json there is all of it, as it was examined.
    found.values.update(seen)
    return found
