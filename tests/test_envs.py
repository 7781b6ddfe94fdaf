"""Settings are read when they are used, under two prefixes."""

import pytest

from mmmedia import envs
from mmmedia.errors import InvalidSettingError

DEFAULTS = {
    "VLLM_IMAGE_FETCH_TIMEOUT": 5,
    "VLLM_VIDEO_FETCH_TIMEOUT": 30,
    "VLLM_AUDIO_FETCH_TIMEOUT": 10,
    "VLLM_MEDIA_FETCH_MAX_RETRIES": 3,
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": True,
    "VLLM_MEDIA_CACHE": "",
    "VLLM_MEDIA_CACHE_MAX_SIZE_MB": 5120,
    "VLLM_MEDIA_CACHE_TTL_HOURS": 24.0,
    "VLLM_MEDIA_LOADING_THREAD_COUNT": 8,
    "VLLM_VIDEO_LOADER_BACKEND": "opencv",
    "VLLM_MEDIA_CONNECTOR": "http",
    "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB": 256,
    "VLLM_MAX_IMAGE_PIXELS": 178956970,
    "VLLM_MAX_AUDIO_DECODE_DURATION_S": 600,
    "VLLM_MAX_AUDIO_DECODE_BYTES": 268435456,
    "VLLM_MAX_EMBED_DECODE_BYTES": 2147483648,
    "VLLM_MAX_VIDEO_DECODE_BYTES": 4294967296,
    "VLLM_MEDIA_EGRESS_BLOCK_PRIVATE": False,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    """Without an environment each setting has the value that its documentation gives."""
    assert getattr(envs, name) == DEFAULTS[name]


def test_every_setting_is_listed_and_documented() -> None:
    """The table of settings is whole, `dir` shows it, and each entry says what it means."""
    assert set(DEFAULTS) <= set(envs.SETTINGS)
    assert set(envs.SETTINGS) <= set(dir(envs))
    for setting in envs.SETTINGS.values():
        assert setting.meaning
        assert setting.expected


@pytest.mark.parametrize("name", DEFAULTS)
def test_read_at_the_time_of_use_under_both_prefixes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the environment counts at once; `MMMEDIA_` wins over `VLLM_`; empty is not set."""
    own = "MMMEDIA_" + name.removeprefix("VLLM_")
    monkeypatch.setenv(name, "1")
    assert getattr(envs, name) == type(DEFAULTS[name])(1)
    monkeypatch.setenv(own, "0" if isinstance(DEFAULTS[name], bool) else "2")
    assert getattr(envs, name) == type(DEFAULTS[name])(0 if isinstance(DEFAULTS[name], bool) else 2)
    assert getattr(envs, own) == getattr(envs, name)
    monkeypatch.setenv(own, " ")
    assert getattr(envs, name) == type(DEFAULTS[name])(1)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("VLLM_VIDEO_FETCH_TIMEOUT", "soon", "a positive number"),
        ("VLLM_VIDEO_FETCH_TIMEOUT", "nan", "a positive number"),
        ("VLLM_VIDEO_FETCH_TIMEOUT", "-1", "a positive number"),
        ("VLLM_MEDIA_CACHE_TTL_HOURS", "inf", "a finite number"),
        ("VLLM_MAX_IMAGE_PIXELS", "1e6", "an integer"),
        ("MMMEDIA_MAX_IMAGE_PIXELS", "many", "an integer"),
        ("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "maybe", "0 or 1"),
        ("VLLM_MEDIA_FETCH_MAX_RETRIES", "x" * 500, "an integer"),
        ("MMMEDIA_COMPAT", "0.19", "0.20 or 0.33"),
    ],
)
def test_unreadable_values(variable: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable as it was set, its value, and what is expected."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(InvalidSettingError, match=f"{variable}='{text[:60]}.*expected {expected}") as caught:
        getattr(envs, variable)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200


def test_counts_are_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero attempts or workers would never do anything."""
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "0")
    monkeypatch.setenv("VLLM_MEDIA_LOADING_THREAD_COUNT", "-3")
    assert envs.VLLM_MEDIA_FETCH_MAX_RETRIES == envs.VLLM_MEDIA_LOADING_THREAD_COUNT == 1


@pytest.mark.parametrize("text", ["1", "true", "YES", "on", "0", "False", "no", "OFF"])
def test_switches(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches understand the usual words in any case."""
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", text)
    assert envs.VLLM_MEDIA_EGRESS_BLOCK_PRIVATE is (text.lower() in ("1", "true", "yes", "on"))


@pytest.mark.parametrize("name", ["VLLM_NO_SUCH_SETTING", "MMMEDIA_NO_SUCH_SETTING", "PATH"])
def test_unknown_settings(name: str) -> None:
    """What is no setting is no attribute either."""
    with pytest.raises(AttributeError, match=name):
        getattr(envs, name)


def test_what_a_fetch_goes_by_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of the moment it was read, and the next is of the next."""
    before = envs.fetch_settings()
    assert before == (3, True, 256 * 1024 * 1024, False, False)
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "7")
    monkeypatch.setenv("MMMEDIA_MEDIA_URL_ALLOW_REDIRECTS", "0")
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "-1")
    monkeypatch.setenv("VLLM_MEDIA_CACHE_REVALIDATE", "1")
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    assert envs.fetch_settings() == (7, False, float("inf"), True, True)
    assert before.attempts == 3
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "some")
    with pytest.raises(InvalidSettingError, match="VLLM_MEDIA_FETCH_MAX_RETRIES='some'"):
        envs.fetch_settings()


@pytest.mark.parametrize(("text", "value"), [("0.20", "0.20"), (" 0.33 ", "0.33"), ("", "")])
def test_compat_is_a_setting_of_ours_alone(text: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which release's results are wanted is asked under one prefix; nobody else knows the name."""
    monkeypatch.setenv("VLLM_COMPAT", "0.20")
    assert envs.MMMEDIA_COMPAT == ""
    monkeypatch.setenv("MMMEDIA_COMPAT", text)
    assert value == envs.MMMEDIA_COMPAT


@pytest.mark.parametrize(
    ("setting", "limit", "held"), [("1", 5, 5), ("1", 2 << 20, 1 << 20), ("0", 5, 5), ("1", None, 1 << 20)]
)
def test_the_lower_limit_of_a_download_holds(
    setting: str, limit: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What loads a file may take less than the setting admits."""
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", setting)
    assert envs.fetch_settings().held_to(limit).max_download_bytes == held


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MMMEDIA_VIDEO_DECODE_FOR", "latency or throughput"),
        ("MMMEDIA_SPARSE_FETCH", "auto, never or always"),
    ],
)
def test_a_word_that_is_none_of_those(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "sometimes")
    with pytest.raises(InvalidSettingError, match=f"{name}='sometimes': expected {expected}"):
        getattr(envs, name)


def test_what_is_assigned_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of engines assign to names of this module; what is read together heeds that too."""
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "7")
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "2")
    monkeypatch.setitem(vars(envs), "VLLM_MEDIA_FETCH_MAX_RETRIES", 9)
    assert envs.fetch_settings()[:3] == (9, True, 2 << 20)
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "3")
    assert envs.cache_settings() == ("", 5120 << 20, 24 * 3600, 3 << 20)
    monkeypatch.setitem(vars(envs), "VLLM_MEDIA_CACHE", "/somewhere")
    assert envs.cache_settings() == ("/somewhere", 5120 << 20, 24 * 3600, 3 << 20)
