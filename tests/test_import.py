"""Importing is light: what is heavy is loaded when it is first used."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "cv2", "av", "librosa", "soundfile", "scipy", "aiohttp", "requests", "numba")

# The 1 x 1 picture that a data URL is tried with.
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


def loaded_by(code: str) -> set[str]:
    """Return which of the heavy modules a fresh interpreter has loaded after running `code`."""
    code += f"\nimport sys; print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split("LOADED")[-1].split())


def test_the_probe_sees_what_is_loaded() -> None:
    """Were something heavy loaded, these tests would notice."""
    assert "requests" in loaded_by("import requests")


@pytest.mark.parametrize(
    "code",
    [
        "import mmmedia",
        "import mmmedia; dir(mmmedia); mmmedia.__version__",
        "import mmmedia.envs, mmmedia.errors, mmmedia.registry, mmmedia.urls, mmmedia.cache, mmmedia.tensors",
        "import mmmedia.media; dir(mmmedia.media)",
        "from mmmedia import MediaIO, ImageMediaIO, ImageEmbeddingMediaIO, MediaError",
    ],
)
def test_import_loads_nothing_heavy(code: str) -> None:
    """Names are there at once, what stands behind them is not."""
    assert loaded_by(code) == set()


def test_an_image_loads_nothing_heavy() -> None:
    """Decoding a picture takes Pillow and NumPy, and no more."""
    text = PICTURE.partition(",")[2]
    code = f"import mmmedia.media as m; assert m.ImageMediaIO().load_base64('', {text!r}).size == (1, 1)"
    assert loaded_by(code) == set()


def test_an_image_from_a_data_url_loads_no_torch_cv2_or_librosa() -> None:
    """An engine's first image request does not wait for modules that images don't need."""
    code = f"import mmmedia.media as m; assert m.MediaConnector().fetch_image({PICTURE!r}).size == (1, 1)"
    assert not loaded_by(code) & {"torch", "cv2", "av", "librosa", "soundfile", "scipy", "numba"}
