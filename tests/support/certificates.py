"""Certificates that nobody else trusts."""

import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(directory: Path, name: str) -> Path:
    """Make a certificate for a name, `good.pem`, and return a file of it and its key, if openssl is there."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    arguments = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
    arguments += f" -addext subjectAltName=DNS:{name} -keyout key.pem -out good.pem"
    subprocess.run([program, *arguments.split()], cwd=directory, check=True, capture_output=True)
    both = directory / "both.pem"
    both.write_bytes((directory / "key.pem").read_bytes() + (directory / "good.pem").read_bytes())
    return both
