"""The plug-in for an unmodified vLLM: its media fetched and decoded by this library.

vLLM calls `register` in each of its processes, by the entry point `mmmedia` of the group
`vllm.general_plugins`. From then on there are:

* the connector `mmmedia` (``VLLM_MEDIA_CONNECTOR=mmmedia``), which fetches everything and decodes pictures
  and videos: `connector`;
* the video codec `mmmedia` (``--media-io-kwargs '{"video": {"backend": "mmmedia"}}'``), which decodes for
  vLLM's own connector: `codec`;
* with ``MMMEDIA_VLLM_REPLACE_OPENCV=1`` the same codec in the place of OpenCV, for loaders that name it in
  their code.

Importing this module needs no vLLM; all others of this package do.
"""

import logging
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

from mmmedia import envs

logger = logging.getLogger(__name__)

NAME = "mmmedia"
TESTED = ((0, 32), (0, 33))
"""The releases of vLLM that it was tested with."""


def register() -> None:
    """Make this library known to the vLLM of this process.

    It raises nothing: where this vLLM is of another make, or there is none, a warning says what is missing,
    and vLLM goes on without it.
    """
    problems = list(_problems())
    if problems:
        logger.warning(
            "mmmedia's plug-in was tested with vLLM %s. Here: %s. The rest works as in vLLM alone.",
            " and ".join(f"{major}.{minor}" for major, minor in TESTED),
            "; ".join(problems),
        )


def release(version: str) -> tuple[int, int] | None:
    """Return the release that a version is of, `None` where it is of none.

    >>> release("0.33.0"), release("0.32.1+cpu"), release("dev")
    ((0, 33), (0, 32), None)
    """
    found = re.match(r"v?(\d+)\.(\d+)\b", version)
    return (int(found[1]), int(found[2])) if found else None


def _problems() -> Iterator[str]:
    """Register part by part; gives in words what is not as it was when this was tested."""
    try:
        version = str(getattr(import_module("vllm"), "__version__", "of no version"))
    except Exception as error:  # noqa: BLE001  # whatever it is, the server must start
        yield f"vLLM can't be imported ({_brief(error)})"
        return
    if release(version) not in TESTED:
        yield f"this is vLLM {version}"
    for part, add in _PARTS.items():
        try:
            add()
        except Exception as error:  # noqa: BLE001  # likewise
            yield f"there is no {part} ({_brief(error)})"


def _connectors() -> Any:
    return import_module("vllm.multimodal.media.connector").MEDIA_CONNECTOR_REGISTRY


def _add_connector() -> None:
    _connectors().register(NAME)(_make_connector)


def _make_connector(*args: Any, **kwargs: Any) -> Any:
    """Make a connector; what it takes is imported by the processes that make some, and by no others.

    Where this vLLM is too different for that, it is vLLM's own, and a warning says so once.
    """
    try:
        return import_module("mmmedia.integrations.vllm.connector").VLLMConnector(*args, **kwargs)
    except (ImportError, AttributeError, TypeError) as error:
        _warn_of_vllms_own(_brief(error))
        return _connectors().load("http", *args, **kwargs)


@cache
def _warn_of_vllms_own(why: str) -> None:
    logger.warning("mmmedia's connector does not fit this vLLM (%s), whose own fetches instead.", why)


def _add_codec() -> None:
    import_module("mmmedia.integrations.vllm.codec").add()


def _replace_opencv() -> None:
    if envs.MMMEDIA_VLLM_REPLACE_OPENCV:
        import_module("mmmedia.integrations.vllm.codec").replace_opencv()


_PARTS: dict[str, Callable[[], None]] = {
    "connector": _add_connector,
    "video codec": _add_codec,
    "replacement of OpenCV": _replace_opencv,
}


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
