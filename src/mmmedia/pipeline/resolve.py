"""Content parts to decoded media: everything at once, in part order, the first failure ends the rest."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError
from mmmedia.pipeline.parts import ContentPart, Modality
from mmmedia.pipeline.sizes import check_positive

if TYPE_CHECKING:
    from mmmedia.media.connector import MediaConnector

_FETCHERS = {
    "image_url": "fetch_image",
    "video_url": "fetch_video",
    "audio_url": "fetch_audio",
    "input_audio": "fetch_audio",
    "image_embeds": "fetch_image_embedding",
    "video_embeds": "fetch_video_embedding",
    "audio_embeds": "fetch_audio_embedding",
}


@dataclass(frozen=True, eq=False)
class ResolvedPart:
    """A content part and what it holds.

    Attributes:
        part: the content part.
        media: the text; the image (`MediaWithBytes`); frames and metadata of a clip; waveform and rate of a
            sound; the tensor of precomputed embeddings.
    """

    part: ContentPart
    media: Any = field(repr=False)

    @property
    def modality(self) -> Modality:
        """What kind of media it is, or `text`."""
        return self.part.modality


def resolve_parts(
    parts: Sequence[ContentPart],
    connector: "MediaConnector | None" = None,
    *,
    max_concurrency: int | None = None,
) -> list[ResolvedPart]:
    """Fetch and decode the media of all parts side by side, on threads.

    Args:
        parts: as `parse_messages` returns them.
        connector: what fetches; by default a new `MediaConnector`.
        max_concurrency: how many are fetched at a time; by default `VLLM_MM_FETCH_CONCURRENCY`.

    Returns:
        The resolved parts, in the order of `parts`.

    Raises:
        PartError: the first failure, also of the type that the connector raised, naming message and part.
            What has not begun then never does; what is on its way is not waited for.
        InvalidArgumentError: (a `ValueError`) `max_concurrency` is not a positive integer.

    >>> from mmmedia.pipeline import parse_messages
    >>> [part.media for part in resolve_parts(parse_messages([{"role": "user", "content": "hello"}]))]
    ['hello']
    """
    workers, connector = _limit(max_concurrency), connector or _new_connector()
    calls = [(index, call) for index, part in enumerate(parts) if (call := _fetch_call(part, connector, ""))]
    media: list[Any] = [_media_at_hand(part) for part in parts]
    if calls:
        pool = ThreadPoolExecutor(min(workers, len(calls)), thread_name_prefix="mmmedia-resolve")
        failed = threading.Event()
        try:
            futures = {pool.submit(_fetch, parts[index], call, failed): index for index, call in calls}
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in sorted(done, key=lambda future: (future.exception() is None, futures[future])):
                media[futures[future]] = future.result()  # the failures come first
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [ResolvedPart(part, item) for part, item in zip(parts, media, strict=True)]


async def resolve_parts_async(
    parts: Sequence[ContentPart],
    connector: "MediaConnector | None" = None,
    *,
    max_concurrency: int | None = None,
) -> list[ResolvedPart]:
    """Fetch and decode the media of all parts side by side; see `resolve_parts`.

    The first failure, and cancelling this call, cancels all transfers that are still on their way.
    """
    slots, connector = asyncio.Semaphore(_limit(max_concurrency)), connector or _new_connector()
    failed = asyncio.Event()

    async def fetch(part: ContentPart, call: Callable[[], Awaitable[Any]]) -> Any:
        async with slots:
            if failed.is_set():  # the slot of the one that failed is free before the others are cancelled
                return None
            try:
                return await call()
            except Exception as error:
                failed.set()
                raise part.error(error) from error

    calls = [
        (index, call) for index, part in enumerate(parts) if (call := _fetch_call(part, connector, "_async"))
    ]
    media: list[Any] = [_media_at_hand(part) for part in parts]
    tasks = {asyncio.create_task(fetch(parts[index], call)): index for index, call in calls}
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in sorted(done, key=lambda task: (task.exception() is None, tasks[task])):
                media[tasks[task]] = task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [ResolvedPart(part, item) for part, item in zip(parts, media, strict=True)]


def _limit(max_concurrency: int | None) -> int:
    if max_concurrency is None:
        return envs.VLLM_MM_FETCH_CONCURRENCY
    check_positive(max_concurrency=max_concurrency)
    return max_concurrency


def _new_connector() -> "MediaConnector":
    from mmmedia.media.connector import MediaConnector

    return MediaConnector()


def _media_at_hand(part: ContentPart) -> Any:
    """Return what needs no fetching: text, and embeddings that came as a tensor or an array."""
    if part.is_embedding and isinstance(part.content, np.ndarray):
        import torch

        try:
            return torch.from_numpy(part.content)
        except (TypeError, ValueError) as error:
            raise part.error(
                InvalidArgumentError(f"An array of {part.content.dtype} is no embedding.")
            ) from error
    return part.content


def _fetch_call(part: ContentPart, connector: "MediaConnector", suffix: str) -> Callable[[], Any] | None:
    """Return the connector's method and its argument; `None` where nothing is to be fetched."""
    name = _FETCHERS.get(part.type)
    if name is None or (part.content is not None and not isinstance(part.content, str)):
        return None
    if part.content is None:
        raise part.error(
            InvalidArgumentError(
                f"nothing is known under the uuid {str(part.uuid)[:64]!r}: expected the content."
            )
        )
    method: Callable[[str], Any] = getattr(connector, name + suffix)
    content: str = part.content
    return lambda: method(content)


def _fetch(part: ContentPart, call: Callable[[], Any], failed: threading.Event) -> Any:
    if failed.is_set():
        return None
    try:
        return call()
    except Exception as error:
        failed.set()
        raise part.error(error) from error
