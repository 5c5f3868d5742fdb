import json
import os
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest

from interpretkit import __version__
from interpretkit.commandline import doctor as interpretkit_doctor
from interpretkit.commandline.terminal import show
from interpretkit.commands.doctor import doctor
from interpretkit.runs import environment as installed

MINE = """
[interpretkit.commands]
broken = broken_front_end.cli:app
good = good_front_end.commands
odd = broken_front_end:not_an_app
absent = no_such_module.cli:app
"""
GOOD = {
    "__init__": '"Two commands in a group."',
    "good/__init__": '"""A front end that works."""',
    "good/one": '''
import sys
print("imported", file=sys.stderr)
from interpretkit.commandline import Finding, command

@command(example="interpretkit good one")
def one() -> Finding:
    """Do one thing."""
    return Finding("One").number("one", 1)
''',
    "good/two": '''
from interpretkit.commandline import Finding, command

@command(example="interpretkit good two")
def two() -> Finding:
    """Do another."""
    return Finding("Two")
''',
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables for a process in which further front ends are installed."""
    info = tmp_path / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(MINE)
    broken = {"__init__": "not_an_app = 3\n", "cli": '"""Breaks."""\nraise OSError("no such device")\n'}
    good = {f"commands/{name}": text for name, text in GOOD.items()} | {"__init__": ""}
    for name, files in (("good", good), ("broken", broken)):
        for file, text in files.items():
            path = tmp_path / f"{name}_front_end" / f"{file}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    # A width at which no line of help is broken.
    return {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200", "TERMINAL_WIDTH": "200"}


def interpretkit(*arguments: str, env: dict[str, str], code: int = 0) -> tuple[str, str]:
    script = "from interpretkit.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_help_lists_the_front_ends_without_importing_them(environment: dict[str, str]):
    stdout, stderr = interpretkit("--help", env=environment)
    assert re.search(r"good\s+A front end that works\.", stdout)
    assert re.search(r"broken\s+Breaks\.", stdout)
    assert "absent" in stdout
    assert "doctor" in stdout
    assert stderr == ""


def test_a_front_end_is_loaded_when_called(environment: dict[str, str]):
    stdout, stderr = interpretkit("good", "one", "--json", env=environment)
    assert json.loads(stdout)["one"] == 1
    assert "imported" in stderr
    assert "Do one thing." in interpretkit("good", "--help", env=environment)[0]
    assert "interpretkit good --help" in interpretkit("good", "three", env=environment, code=2)[1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "OSError: no such device"),
        ("odd", "is 3, not a typer application"),
        ("absent", "No module named 'no_such_module'"),
    ],
)
def test_a_front_end_that_does_not_load_is_one_line(environment: dict[str, str], name: str, reason: str):
    stdout, stderr = interpretkit(name, env=environment, code=1)
    assert stdout == ""
    line = stderr.splitlines()[-1]
    assert line.startswith(f"Error: loading the front end '{name}': ")
    assert reason in line
    assert "Traceback" not in stderr
    assert "Traceback" in interpretkit(name, "--debug", env=environment, code=1)[1]


def test_requirements_are_those_of_this_python_with_the_extra_that_brings_each(
    monkeypatch: pytest.MonkeyPatch,
):
    lines = [
        "numpy<3,>=1.26",
        "tomli; python_version < '3'",
        "h5py>=3; extra == 'data'",
        "Dask[array]>=2024; (python_version > '3') and extra == 'cluster'",
    ]
    described = Message()
    for extra in ("data", "cluster"):
        described["Provides-Extra"] = extra
    monkeypatch.setattr(installed.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(installed.metadata, "metadata", lambda name: described)
    installed.requirements.cache_clear()
    try:
        found = [(r.name, r.specifier, r.extra) for r in installed.requirements()]
        assert installed.extra_of("dask.array") == "cluster"
        assert installed.extra_of("numpy") is None
    finally:
        installed.requirements.cache_clear()
    assert found == [("numpy", "<3,>=1.26", None), ("h5py", ">=3", "data"), ("Dask", ">=2024", "cluster")]


def test_doctor_reports_on_everything_and_imports_no_front_end(environment: dict[str, str]):
    script = (
        "import sys\n"
        "from interpretkit.cli import main\n"
        "try: main(['doctor', '--json'])\n"
        "finally: assert not {'catalysis', 'cnn_interp', 'good_front_end'} & set(sys.modules), sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout.splitlines()[-1])
    assert findings["interpretkit"] == __version__
    assert findings["imports"]["torchvision"] == {"loads": True, "error": None}
    packages = {package["name"]: package for package in findings["packages"]}
    assert packages["numpy"]["installed"]
    assert packages["chgnet"]["extra"] == "mlip"
    assert packages["chgnet"]["install"] == 'pip install -c constraints.txt ".[mlip]"'
    assert findings["device"]["threads"] >= 1
    found = {front_end["name"]: front_end["found"] for front_end in findings["front_ends"]}
    assert found["good"]
    assert not found["absent"]
    assert any("no_such_module" in line for line in findings["advice"])
    assert not findings["ok"]
    assert "pip install interpretkit" not in done.stdout


def test_doctor_names_the_weights_at_hand_and_says_where_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    advice = [line for line in interpretkit_doctor.examine()["advice"] if "no pretrained weights" in line]
    assert len(advice) == 1
    assert "see interpretkit weights list" in advice[0]
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("resnet18-f37072fd.pth", "my_own.pth", "notes.txt"):
        (checkpoints / name).touch()
    seen = interpretkit_doctor.examine()
    assert [file["model"] for file in seen["weights"]["files"]] == ["my_own", "resnet18"]
    assert not any("no pretrained weights" in line for line in seen["advice"])


def test_doctor_speaks_to_people_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    seen = {
        "ok": False,
        "python": "3.11",
        "interpretkit": __version__,
        "packages": [
            {"name": "numpy", "wanted": ">=1.26", "installed": "2.0", "extra": None},
            {"name": "chgnet", "wanted": ">=0.4", "installed": None, "extra": "mlip"},
        ],
        "imports": {
            "torch": {"loads": True, "error": None},
            "torchvision": {"loads": False, "error": "no [ops]"},
        },
        "device": {"kind": "cpu", "name": "A processor", "threads": 2},
        "weights": {"folder": "/hub", "files": [{"model": "resnet18", "file": "resnet18-f37072fd.pth"}]},
        "front_ends": [{"name": "catalyst", "module": "catalysis.cli", "found": True}],
        "advice": ['run: pip install -c constraints.txt ".[mlip]"'],
    }
    monkeypatch.setattr(interpretkit_doctor, "examine", lambda: seen)
    show(doctor(), {})
    shown = capsys.readouterr().out
    for part in ("cpu: A processor, 2 threads", "missing", "no [ops]", "resnet18", "catalyst", '".[mlip]"'):
        assert part in shown
    assert "something is missing" in shown


def test_version():
    assert interpretkit("--version", env=dict(os.environ))[0] == f"interpretkit {__version__}\n"


def test_import_is_fast_and_light():
    script = (
        "import time, sys; start = time.perf_counter(); import interpretkit; took = time.perf_counter() - start\n"
        "print(took); assert not {'numpy', 'torch', 'typer', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3


def test_the_shell_completes_commands_and_options_and_the_module_is_the_command():
    def offered(typed: str) -> list[str]:
        last = str(len(typed.split()) - 1)
        asked = {"COMP_WORDS": typed, "COMP_CWORD": last, "_INTERPRETKIT_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-m", "interpretkit"],
            env=os.environ | asked,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert "design" in offered("interpretkit catalyst d")
    assert "--facets" in offered("interpretkit catalyst design --fa")
