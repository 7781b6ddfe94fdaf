"""What people type, and what they are told."""

import pytest
import typer

from mmmedia.cli import app
from mmmedia.cli.words import amount, file_name, moment, numbers, span
from support.command_line import run


@pytest.mark.parametrize("text", ["", "a", "-1", "1:60", "1:2:3:4", "1.5:00", "nan", "inf", "1:-2"])
def test_no_times(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError):
        moment(text)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5-3", "-1", "1-", "1.5"])
def test_no_numbers(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError):
        numbers(text)


def test_amounts_and_spans() -> None:
    """In units that people read."""
    assert [amount(size) for size in (0, 999, 1000, 2e9)] == ["0 bytes", "999 bytes", "1.0 kB", "2.0 GB"]
    assert [span(seconds) for seconds in (0, 59, 59.9, 60, 3600, 86400, 90061)] == [
        "0 s", "59 s", "59.9 s", "1 min", "1 h", "1 d", "1 d 1 h",
    ]  # fmt: skip


def test_names_of_files_lead_nowhere() -> None:
    """Long ones end as they did, control characters and separators are gone."""
    long = file_name("https://h/" + "é" * 300 + ".mp4")
    assert long.endswith(".mp4")
    assert len(long.encode()) <= 200
    for url in ("https://h/%2e%2e", "https://h/a%00b%0a", "https://h/%5c..%5cx", "https://h", "s3://b/k/"):
        name = file_name(url)
        assert name
        assert not {"/", "\\", "\0", "\n"} & set(name)
        assert name not in {".", ".."}


@pytest.mark.parametrize(
    "command",
    ["inspect", "frames", "sheet", "audio", "excerpt", "fetch", "bench", "demo", "config", "cache",
     "cache ls", "cache stats", "cache prune", "cache clear", "cache check"],
)  # fmt: skip
def test_help(command: str) -> None:
    """Each option of each command says what it is for."""
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    assert [parameter.name for parameter in found.params if not parameter.help] == []
