"""Progress: on a terminal, once something takes its time, and never elsewhere."""

import threading

import pytest

import mmmedia.cli.progress as module


def test_counts_and_bytes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Things and bytes are shown as they are told."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0)
    with module.progress("Working") as report:
        report.counted(1, 3)
        for _ in range(1000):
            if "1 of 3" in (shown := capsys.readouterr().err):
                break
            threading.Event().wait(0.02)
        assert "Working" in shown
        report.fetched(2_500_000, None)
        for _ in range(1000):
            if "2.5 MB" in (shown := capsys.readouterr().err):
                break
            threading.Event().wait(0.02)
        assert "Fetching" in shown


def test_nobody_looks_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a pipe nothing is written."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0)
    with module.progress("Working") as report:
        report.counted(1, 3)
        report.fetched(1, None)
    assert capsys.readouterr() == ("", "")
