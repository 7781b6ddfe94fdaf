"""What users write has the types that they expect, by mypy and by pyright, both strict."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mmmedia

USER = Path(__file__).parent / "typed" / "user.py"
WRONG = [number for number, line in enumerate(USER.read_text().splitlines(), 1) if line.endswith("# wrong")]
SOURCE = Path(mmmedia.__file__).parent.parent


def test_there_are_lines_that_must_be_errors() -> None:
    """Or a checker that sees nothing would pass."""
    assert len(WRONG) == 13


@pytest.mark.timeout(600)
def test_mypy_sees_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    """In strict mode; a misspelt option is an error, `metadata["fps"]` a float."""
    pytest.importorskip("mypy")
    pytest.importorskip("torch")
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nstrict = true\nfollow_imports = silent\n")
    command = [
        sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(tmp_path / "cache"),
        "--no-error-summary", str(USER),
    ]  # fmt: skip
    # What is installed is found by itself, and may not be named.
    path = {} if SOURCE.name == "site-packages" else {"MYPYPATH": str(SOURCE)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=path)
    lines = sorted({int(found) for found in re.findall(r"user\.py:(\d+): error", result.stdout)})
    assert lines == WRONG, result.stdout + result.stderr


@pytest.mark.timeout(600)
def test_pyright_sees_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    """Likewise, where it is installed."""
    program = shutil.which("basedpyright") or shutil.which(
        str(Path(sys.executable).with_name("basedpyright"))
    )
    if program is None:
        pytest.skip("basedpyright is not installed")
    pytest.importorskip("torch")
    settings = {
        "typeCheckingMode": "strict",
        "include": [str(USER)],
        "extraPaths": [str(SOURCE)],
        "pythonVersion": "3.11",
        # What others' packages lack is not ours to answer for.
        "reportMissingTypeStubs": False,
        "reportUnknownMemberType": False,
        "reportUnusedExpression": False,
        "reportUnknownVariableType": False,
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    command = [program, "--project", str(project), "--pythonpath", sys.executable, "--outputjson"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    found = json.loads(result.stdout)["generalDiagnostics"]
    lines = sorted({each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"})
    assert lines == WRONG, json.dumps(found, indent=1)
