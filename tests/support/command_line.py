"""The command line, in this process or as the program that people start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from mmmedia.cli import app

PROGRAM = (sys.executable, "-W", "error", "-m", "mmmedia")


def run(*arguments: object, stdin: bytes | None = None) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(app, [*map(str, arguments)], input=stdin, env={"COLUMNS": None})


def report(*arguments: object) -> Any:
    """Run a command that succeeds, and return the JSON that it prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


def program(
    *arguments: object, stdin: bytes | None = None, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the program itself."""
    without_columns = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        input=stdin,
        cwd=cwd,
        env={**without_columns, **environment},
        capture_output=True,
        timeout=100,
        check=False,
    )
