"""Which options belong to which decoder."""

import pytest

from mmmedia.errors import InvalidArgumentError
from mmmedia.video.codecs.options import BACKEND_OPTIONS, resolve_video_backend_kwargs


@pytest.mark.parametrize("backend", BACKEND_OPTIONS)
def test_options_of_another_decoder_are_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only another decoder knows is a mistake; what none knows is the sampler's."""
    own = BACKEND_OPTIONS[backend]
    assert resolve_video_backend_kwargs(backend, {"max_frames": 3}) == ({"max_frames": 3}, own)
    for options in BACKEND_OPTIONS.values():
        for foreign in options.keys() - own.keys():
            with pytest.raises(InvalidArgumentError, match=f"{foreign} is not supported"):
                resolve_video_backend_kwargs(backend, {foreign: 1})
            with monkeypatch.context() as patched:
                patched.setenv("MMMEDIA_COMPAT", "0.20")
                assert resolve_video_backend_kwargs(backend, {foreign: 1}) == ({foreign: 1}, own)


def test_given_options_win_over_defaults() -> None:
    """`None` counts as not given."""
    sampler, options = resolve_video_backend_kwargs("torchcodec", {"device": "cuda", "seek_mode": None})
    assert (sampler, options["device"], options["seek_mode"]) == ({}, "cuda", "exact")
    assert resolve_video_backend_kwargs(None, {}) == ({}, {})


def test_unknown_decoders_are_named() -> None:
    with pytest.raises(InvalidArgumentError, match="'vhs'; there are: opencv, pyav, torchcodec"):
        resolve_video_backend_kwargs("vhs", {})
