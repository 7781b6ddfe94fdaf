"""Content parts to decoded media: everything at once, in part order, the first failure ends the rest."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError
from mmmedia.media.connector import MediaConnector
from mmmedia.pipeline.parts import ContentPart, Modality
from mmmedia.pipeline.sizes import check_positive


@dataclass(frozen=True, eq=False)
class ResolvedPart:
    """A content part and what it holds.

    Attributes:
        part: the content part.
        media: the text; the image (`MediaWithBytes`); frames and metadata of a clip; waveform and rate of a
            sound; the tensor of precomputed embeddings, or a dictionary of tensors where they came in one.
    """

    part: ContentPart
    media: Any = field(repr=False)

    @property
    def modality(self) -> Modality:
        """What kind of media it is, or `text`."""
        return self.part.modality


def resolve_parts(
    parts: Sequence[ContentPart],
    connector: MediaConnector | None = None,
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
    workers, connector = _limit(max_concurrency), connector or MediaConnector()
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
    connector: MediaConnector | None = None,
    *,
    max_concurrency: int | None = None,
) -> list[ResolvedPart]:
    """Fetch and decode the media of all parts side by side; see `resolve_parts`.

    The first failure, and cancelling this call, cancels all transfers that are still on their way.
    """
    slots, connector = asyncio.Semaphore(_limit(max_concurrency)), connector or MediaConnector()
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


def _media_at_hand(part: ContentPart) -> Any:
    """Return what needs no fetching: text, and embeddings that came as a tensor or an array."""
    return _tensor(part, part.content) if part.is_embedding else part.content


def _tensor(part: ContentPart, value: Any) -> Any:
    """Return the tensor of an array or of lists of numbers; anything else as it is.

    Whole numbers become int64, others float64, as engines read such lists.
    """
    if isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise part.error(InvalidArgumentError(f"Lists of numbers that are no tensor: {error}")) from error
        value = value.astype(np.int64 if value.dtype.kind in "biu" else np.float64)
    if not isinstance(value, np.ndarray):
        return value
    import torch

    try:
        return torch.from_numpy(value)
    except (TypeError, ValueError) as error:
        raise part.error(InvalidArgumentError(f"An array of {value.dtype} is no embedding.")) from error


def _fetch_call(part: ContentPart, connector: MediaConnector, suffix: str) -> Callable[[], Any] | None:
    """Return what fetches a part by the connector; `None` where nothing is to be fetched."""
    if part.modality == "text":
        return None
    if part.content is None:
        raise part.error(
            InvalidArgumentError(
                f"nothing is known under the uuid {str(part.uuid)[:64]!r}: expected the content."
            )
        )
    name = f"fetch_{part.modality}" + ("_embedding" if part.is_embedding else "")
    method: Callable[[str], Any] = getattr(connector, name + suffix)
    content: Any = part.content
    if isinstance(content, str):
        return lambda: method(content)
    if not isinstance(content, dict):
        return None

    def fetch_all() -> dict[str, Any]:
        return {
            key: method(value) if isinstance(value, str) else _tensor(part, value)
            for key, value in content.items()
        }

    async def fetch_all_async() -> dict[str, Any]:
        return {
            key: await method(value) if isinstance(value, str) else _tensor(part, value)
            for key, value in content.items()
        }

    return fetch_all_async if suffix else fetch_all


def _fetch(part: ContentPart, call: Callable[[], Any], failed: threading.Event) -> Any:
    if failed.is_set():
        return None
    try:
        return call()
    except Exception as error:
        failed.set()
        raise part.error(error) from error
