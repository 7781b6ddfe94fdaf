"""Broken media without end: no crash, no hang, no more than 1 GB, no error but this library's own.

`nox -s fuzz` takes `FUZZ_SECONDS` (20 minutes unless set) in all. Every finding is printed with the command
that runs its case again; `FUZZ_SEED` repeats a session.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import fuzz_worker

KINDS = sorted(fuzz_worker.CORPORA)
SEED = os.environ.get("FUZZ_SEED") or str(random.SystemRandom().randrange(10**6))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "1200"))


def run(kind: str, seed: str, first: int, seconds: float, directory: Path) -> tuple[int, str, int]:
    """Run cases in a process of their own; returns the next one's number, what was found, the peak memory."""
    status = directory / "status"
    status.write_bytes(b"%20d" % first)
    arguments = [kind, seed, str(first), str(seconds), str(status)]
    with (directory / "errors").open("wb") as errors_file:
        worker = subprocess.Popen(
            [sys.executable, fuzz_worker.__file__, *arguments], stdout=subprocess.PIPE, stderr=errors_file
        )
    try:
        output, _ = worker.communicate(timeout=seconds + 3 * fuzz_worker.HANG_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        output, _ = worker.communicate()
    if worker.returncode == 0:
        result = json.loads(output)
        return result["next"], result["finding"], result["memory"]
    number = int(status.read_bytes())
    errors = (directory / "errors").read_bytes()[-4000:].decode(errors="replace")
    return number + 1, f"The process ended with {worker.returncode}.\n{errors}", 0


def session(kind: str, seed: str, seconds: float, directory: Path) -> tuple[int, list[str]]:
    """Run cases until the time is up; returns how many, and the findings with how to repeat each."""
    end = time.monotonic() + seconds
    number, findings, peak = 0, [], 0
    while (left := end - time.monotonic()) > 0 and len(findings) < 20:
        number, finding, memory = run(kind, seed, number, left, directory)
        peak = max(peak, memory)
        if finding:
            command = f"python tests/support/fuzz_worker.py {kind} {seed} {number - 1} 0 /dev/null"
            findings.append(f"{command}\n{finding}")
    sys.stdout.write(
        f"\n{kind}: {number} cases of seed {seed}, {peak >> 20} MiB at most, {len(findings)} findings\n"
    )
    return number, findings


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_broken_media_end_in_media_or_in_an_error_of_ours(kind: str, tmp_path: Path) -> None:
    cases, findings = session(kind, SEED, SECONDS / len(KINDS), tmp_path)
    assert not findings, "\n\n".join(findings)
    assert cases > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_cases_of_a_fixed_seed(kind: str, tmp_path: Path) -> None:
    """So that the session itself keeps working."""
    if kind == "embedding":
        pytest.importorskip("torch")
    _, finding, memory = run(kind, "0", 0, 0.5, tmp_path)
    assert not finding
    assert 0 < memory < fuzz_worker.MAX_BYTES


def test_what_kills_the_process_is_a_finding(tmp_path: Path) -> None:
    """An unknown kind does so."""
    number, finding, _ = run("nothing", "0", 7, 0, tmp_path)
    assert number == 8
    assert "KeyError" in finding
