"""The front end: its commands are listed without the packages they need, and found when they are called."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from cnn_interp.cli import ELSEWHERE, Elsewhere, app


def test_help_comes_without_torch() -> None:
    code = (
        "import sys\n"
        "from typer.main import get_command\n"
        "from cnn_interp.cli import app\n"
        "try:\n    get_command(app).main(['--help'])\n"
        "except SystemExit:\n    print('torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    for name in ("visualize", "layers", *ELSEWHERE):
        assert name in done.stdout


@pytest.mark.parametrize("name", ELSEWHERE)
def test_commands_of_other_modules_describe_and_load_themselves(name: str) -> None:
    deferred = Elsewhere(name, ELSEWHERE[name])
    assert deferred.describe()
    loaded = deferred.load()
    assert name == "diagnose" or loaded.name == name
    assert not isinstance(loaded, Elsewhere)


@pytest.mark.parametrize("name", ["visualize", "layers", *ELSEWHERE])
def test_every_command_has_help_with_an_example(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        get_command(app).main([name, "--help"])
    assert not ended.value.code
    shown = capfd.readouterr().out
    assert "interpretkit cnn" in shown or name == "diagnose"


def test_unknown_commands_are_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        get_command(app).main(["visualise"])
    assert ended.value.code == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_examples_use_options_that_exist() -> None:
    examined = 0
    for name in (
        "cnn_interp.diagnosis.cli",
        "cnn_interp.metrics_cli",
        "cnn_interp.weights_cli",
        "cnn_interp.cli",
    ):
        group: Any = get_command(importlib.import_module(name).app)
        for command in group.commands.values():
            known = {option for parameter in command.params for option in parameter.opts}
            used = re.findall(r"(?<!\S)--[a-z][\w-]*", command.epilog or "")
            assert set(used) <= known, command.name
            examined += len(used)
    assert examined > 20
