"""`mmmedia doctor`: what it says, what it does not say, and what it warns of."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmmedia import __version__
from mmmedia.cli import app
from mmmedia.media import doctor
from mmmedia.work.isolated import forker

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux")


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


def test_it_says_versions_codecs_isolation_settings_cache_and_network() -> None:
    text = run()
    assert f"mmmedia {__version__}" in text
    words = (
        "libavcodec", "libsndfile", "libjpeg_turbo", "OpenCV", "hevc", "rlimits", "VLLM_MAX_IMAGE_PIXELS",
        "not installed:", "none (VLLM_MEDIA_CACHE)", "proxies: none", "problems",
    )  # fmt: skip
    for word in words:
        assert word in text, word


def test_json_holds_all_of_it() -> None:
    found = json.loads(run("--json"))
    assert found["versions"]["mmmedia"] == __version__
    assert "h264" in found["codecs"]["av"]["video"]
    assert found["isolation"]["is_possible"] is True
    assert set(found["isolation"]["layers"]) | set(found["isolation"]["lacking"]) == {
        "rlimits", "capabilities", "landlock", "seccomp"
    }  # fmt: skip
    assert found["settings"]["VLLM_MAX_IMAGE_PIXELS"]["value"] == 178956970
    assert found["problems"] == []


def test_what_is_set_is_named_with_the_variable_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMMEDIA_MAX_IMAGE_PIXELS", "1000")
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://me:s3cret@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "3")
    text = run()
    assert "VLLM_MAX_IMAGE_PIXELS = 1000 (by MMMEDIA_MAX_IMAGE_PIXELS)" in text
    assert "3 processes" in text
    assert "https: http://proxy.example:3128" in text
    assert "not for 10.0.0.0/8" in text
    assert "s3cret" not in text
    assert str(tmp_path) in text.replace("\n", "").replace(" ", "")
    assert "s3cret" not in run("--json")


def test_what_can_not_work_is_a_problem_and_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "many")
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
    monkeypatch.setenv("http_proxy", "socks5://proxy.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    monkeypatch.setattr(forker, "IS_POSSIBLE", False)
    found = json.loads(run("--json", status=1))
    problems = " ".join(found["problems"])
    for word in ("VLLM_MAX_IMAGE_PIXELS='many'", "need Linux", "http_proxy", "REQUESTS_CA_BUNDLE"):
        assert word.removeprefix("need ") in problems, word
    assert found["settings"]["VLLM_MAX_IMAGE_PIXELS"]["value"] is None
    assert "none can be started here" in run(status=1)


def test_a_package_that_is_broken_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(doctor, "_ffmpeg", broken)
    found = doctor.report()
    assert found["codecs"]["av"] is None
    assert found["codecs"]["pillow"]["formats"]
    assert found["problems"] == ["av can't be used: no such library."]


def test_layers_that_are_lacking_are_a_problem_where_decoding_goes_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmmedia.work.isolated.pool.trial", lambda: ("rlimits", "seccomp"))
    assert doctor.report()["problems"] == []
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
    assert doctor.report()["problems"] == [
        "Decode processes do without capabilities, landlock, which this system lacks."
    ]


def test_a_cache_that_can_not_be_written_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", "/proc/mmmedia")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert doctor.report()["problems"] == ["The cache directory /proc/mmmedia can't be written."]


def test_settings_that_can_not_be_read_do_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", "/tmp")
    monkeypatch.setenv("VLLM_MEDIA_CACHE_TTL_HOURS", "many")
    found = doctor.report()
    assert found["cache"] == {"directory": None}
    assert any("VLLM_MEDIA_CACHE_TTL_HOURS" in problem for problem in found["problems"])
