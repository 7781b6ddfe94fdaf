"""`mmmedia config`: every setting, its value now, and where it comes from."""

import pytest

from mmmedia import envs
from support.command_line import report, run


def test_all_settings_with_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults, and what the environment says, under which name; ours wins."""
    monkeypatch.setenv("VLLM_IMAGE_FETCH_TIMEOUT", "7.5")
    monkeypatch.setenv("VLLM_MEDIA_CONNECTOR", "theirs")
    monkeypatch.setenv("MMMEDIA_MEDIA_CONNECTOR", "ours")
    monkeypatch.setenv("MMMEDIA_MEDIA_CACHE", "")
    rows = {row["name"]: row for row in report("config", "--json")}
    assert len(rows) == len(envs.SETTINGS)
    assert (rows["MMMEDIA_IMAGE_FETCH_TIMEOUT"]["value"], rows["MMMEDIA_IMAGE_FETCH_TIMEOUT"]["from"]) == (
        7.5, "VLLM_IMAGE_FETCH_TIMEOUT",
    )  # fmt: skip
    assert rows["MMMEDIA_MEDIA_CONNECTOR"]["from"] == "MMMEDIA_MEDIA_CONNECTOR"
    assert rows["MMMEDIA_MEDIA_CONNECTOR"]["value"] == "ours"
    assert rows["MMMEDIA_MEDIA_CACHE"]["from"] == "default"
    for setting in envs.SETTINGS.values():
        assert setting.read() in [row["value"] for row in rows.values() if row["meaning"] == setting.meaning]
    changed = run("config", "--changed").stdout.splitlines()
    assert [line.split()[0] for line in changed[1:]] == [
        "MMMEDIA_IMAGE_FETCH_TIMEOUT",
        "MMMEDIA_MEDIA_CONNECTOR",
    ]


def test_names_are_those_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set under the name that is printed, each is from there."""
    for row in report("config", "--json"):
        monkeypatch.setenv(
            row["name"], str(int(row["default"]) if row["default"] in (True, False) else row["default"])
        )
    assert {
        row["name"] for row in report("config", "--json") if row["from"] not in (row["name"], "default")
    } == set()


def test_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies are shown without passwords."""
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("MMMEDIA_MEDIA_ALLOWED_BUCKETS", "s3://key:secret@photos")
    shown = run("config").stdout
    assert "secret" not in shown
    assert "http://…@proxy:3128" in shown
    assert "localhost" in shown


def test_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that can't be read is an error, a misspelt name a hint; the table is printed all the same."""
    monkeypatch.setenv("MMMEDIA_VIDEO_DECODE", "fast")
    monkeypatch.setenv("MMMEDIA_MEDIA_CASHE", "/x")
    result = run("config")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "mmmedia: MMMEDIA_MEDIA_CASHE is no setting; did you mean MMMEDIA_MEDIA_CACHE?",
        "mmmedia: MMMEDIA_VIDEO_DECODE='fast': expected auto, sequential or seek.",
    ]
    assert len(result.stdout.splitlines()) == len(envs.SETTINGS) + 1
