"""The decoders that the keyword `backend` of a loader names, and the options of each."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError
from mmmedia.gpu_ipc_memory import PYNVVIDEOCODEC_DEFAULT_HW_DECODERS

PYNVVIDEOCODEC_VIDEO_BACKEND: Final = "pynvvideocodec"
VideoDecoderBackend = Literal["opencv", "pyav", "torchcodec", "pynvvideocodec", "deepstream"]

BACKEND_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "opencv": {},
    "pyav": {},
    "torchcodec": {"num_ffmpeg_threads": 0, "seek_mode": "exact", "device": "cpu"},
    PYNVVIDEOCODEC_VIDEO_BACKEND: {
        "hw_decoders": PYNVVIDEOCODEC_DEFAULT_HW_DECODERS,
        "max_width": None,
        "max_height": None,
    },
    "deepstream": {"pool_size": None, "timeout_sec": 120.0},
}
"""By decoder, its options and their defaults."""

GPU_BACKENDS: Final = frozenset({"pynvvideocodec", "deepstream"})
"""Those that need an NVIDIA GPU. torchcodec can use one, but doesn't need it."""

STARTUP_OPTIONS: Final = frozenset({"hw_decoders", "max_width", "max_height", "pool_size", "device"})
"""What sizes a pool or picks a device: for who starts an engine, never for a request."""


def incompatible_backend_options(old_backend: str | None, new_backend: str | None) -> set[str]:
    """Return the options of one decoder that another doesn't have; none of one that there isn't.

    >>> sorted(incompatible_backend_options("torchcodec", "opencv"))
    ['device', 'num_ffmpeg_threads', 'seek_mode']
    """
    return set(BACKEND_OPTIONS.get(old_backend or "", {})).difference(
        BACKEND_OPTIONS.get(new_backend or "", {})
    )


def resolve_video_backend_kwargs(
    backend: str | None, kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell apart the keywords of a sampler from the options of a decoder.

    Args:
        backend: the decoder; None: "opencv".
        kwargs: both together.

    Returns:
        The sampler's, and all options of the decoder, those not given at their defaults.

    Raises:
        InvalidArgumentError: (a `ValueError`) an unknown decoder, or an option of another one.

    >>> resolve_video_backend_kwargs("deepstream", {"max_frames": 8, "pool_size": 2})
    ({'max_frames': 8}, {'pool_size': 2, 'timeout_sec': 120.0})
    """
    name = backend or "opencv"
    if name not in BACKEND_OPTIONS:
        raise InvalidArgumentError(
            f"Unknown video backend {backend!r:.64}; there are: {', '.join(BACKEND_OPTIONS)}."
        )
    others = (incompatible_backend_options(other, name) for other in BACKEND_OPTIONS)
    foreign = sorted(set().union(*others).intersection(kwargs))
    if foreign and envs.MMMEDIA_COMPAT != "0.20":
        raise InvalidArgumentError(
            f"{', '.join(foreign)} is not supported by the {name!r} backend, but by another decoder."
        )
    known = BACKEND_OPTIONS[name]
    given = {option: kwargs[option] for option in known if kwargs.get(option) is not None}
    return {key: value for key, value in kwargs.items() if key not in known}, {**known, **given}
