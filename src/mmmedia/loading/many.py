"""`load_many`: many sources side by side, one result after the other."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from mmmedia import envs
from mmmedia._quiet import quiet, silence_decoders
from mmmedia.errors import InvalidArgumentError
from mmmedia.loading.choosing import choice_of
from mmmedia.loading.kinds import AnyIO
from mmmedia.loading.load import (
    aload_audio,
    aload_from,
    aload_image,
    aload_video,
    load_audio,
    load_from,
    load_image,
    load_video,
)
from mmmedia.loading.media_ios import AudioIO, VideoIO
from mmmedia.loading.sources import Source, located
from mmmedia.media.image import ImageMediaIO
from mmmedia.packages import packages_for

if TYPE_CHECKING:
    from PIL import Image

    from mmmedia.loading.results import Audio, Video

    Loaded = Image.Image | Video | Audio

Kind = Literal["image", "video", "audio"]
OnError = Literal["return", "raise", "skip"]

_LOAD: dict[str, Callable[..., Any]] = {"image": load_image, "video": load_video, "audio": load_audio}
_ALOAD: dict[str, Callable[..., Any]] = {"image": aload_image, "video": aload_video, "audio": aload_audio}
_OF_CHOICE = frozenset({"num_frames", "fps", "sampler", "indices", "timestamps", "start", "end"})
_WAITING = 2
"""Results for each worker that may wait to be taken."""
_PATIENCE = 1.0
"""Seconds that pass before there is a bar."""


def load_many(
    sources: Iterable[Source],
    *,
    kind: Kind | None = None,
    workers: int | None = None,
    on_error: OnError = "return",
    progress: bool | None = None,
    ordered: bool = True,
    **options: Any,
) -> "Iterator[tuple[Source, Loaded | Exception]]":
    """Load many sources side by side, and yield each with what it is or why not.

    It works ahead of who takes the results by two for each worker, and no further.

    Args:
        sources: as of `load_image`, `load_video` and `load_audio`; or a directory, for the files in it.
        kind: "image", "video" or "audio"; None: as each file's bytes tell.
        workers: how many are loaded at a time; None: the setting `VLLM_MEDIA_LOADING_THREAD_COUNT`.
        on_error: what becomes of what can't be loaded: "return" yields its error in the place of a result,
            "raise" raises it, "skip" leaves it out.
        progress: show a bar, by tqdm where it is installed; None: to a person who has waited for a second.
        ordered: yield in the order of `sources`; otherwise as they come.
        **options: of the function that loads such a kind, such as `num_frames`.

    Raises:
        InvalidArgumentError: (a `ValueError`) an unknown word.

    >>> from mmmedia.cli import scene
    >>> for source, result in load_many([scene.speech(), b"no media"]):
    ...     print(len(source), type(result).__name__)
    96044 Audio
    8 InvalidMediaError
    """
    load, found = _loader(kind, options), _listed(sources)
    _check(on_error)
    return _many(load, found, _workers(workers), on_error, progress, ordered=ordered)


async def aload_many(
    sources: Iterable[Source],
    *,
    kind: Kind | None = None,
    workers: int | None = None,
    on_error: OnError = "return",
    progress: bool | None = None,
    ordered: bool = True,
    **options: Any,
) -> "AsyncIterator[tuple[Source, Loaded | Exception]]":
    """Load many sources side by side; see `load_many`. The event loop only waits."""
    load, found = _aloader(kind, options), _listed(sources)
    _check(on_error)
    most = _workers(workers)
    slots = asyncio.Semaphore(most)

    async def one(source: Source) -> Any:
        async with slots:
            return await load(source)

    rest, waiting = iter(found), dict[asyncio.Task[Any], Source]()
    with _bar(progress, found) as advance:
        try:
            while True:
                for source in itertools.islice(rest, most * _WAITING - len(waiting)):
                    waiting[asyncio.create_task(one(source))] = source
                if not waiting:
                    return
                task = next(iter(waiting))
                if not ordered:
                    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    task = next(each for each in waiting if each in done)
                result = await _outcome_of(task)
                source = waiting.pop(task)
                advance()
                if (taken := _taken(source, result, on_error)) is not None:
                    yield taken
        finally:
            for task in waiting:
                task.cancel()


def _many(
    load: Callable[[Source], Any],
    sources: Iterable[Source],
    most: int,
    on_error: str,
    progress: bool | None,
    *,
    ordered: bool,
) -> Iterator[tuple[Source, Any]]:
    rest, waiting = iter(sources), dict[Future[Any], Source]()
    pool = ThreadPoolExecutor(most, "mmmedia-many")
    try:
        with _bar(progress, sources) as advance:
            while True:
                for source in itertools.islice(rest, most * _WAITING - len(waiting)):
                    waiting[pool.submit(load, source)] = source
                if not waiting:
                    return
                future = next(iter(waiting))
                if not ordered:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    future = next(each for each in waiting if each in done)
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                source = waiting.pop(future)
                advance()
                taken = _taken(source, future.result() if error is None else error, on_error)
                if taken is not None:
                    yield taken
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


async def _outcome_of(task: "asyncio.Task[Any]") -> Any:
    try:
        return await task
    except Exception as error:  # noqa: BLE001  # for who takes the results
        return error


def _taken(source: Source, result: Any, on_error: str) -> tuple[Source, Any] | None:
    """Return what is to be yielded of one source; None for nothing."""
    if isinstance(result, Exception):
        if on_error == "raise":
            raise result
        if on_error == "skip":
            return None
    return source, result


def _loader(kind: str | None, options: dict[str, Any]) -> Callable[[Source], Any]:
    """Return what loads one source."""
    if kind is not None:
        return partial(_known(kind, _LOAD), **options)
    media_io = _any_io(options)
    return lambda source: _load_any(source, media_io, options)


def _aloader(kind: str | None, options: dict[str, Any]) -> Callable[[Source], Any]:
    if kind is not None:
        return partial(_known(kind, _ALOAD), **options)
    media_io = _any_io(options)
    return lambda source: _aload_any(source, media_io, options)


def _known(kind: str, loaders: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    try:
        return loaders[kind]
    except (KeyError, TypeError):
        raise InvalidArgumentError(f"kind={kind!r:.32}: expected image, video or audio.") from None


def _any_io(options: dict[str, Any]) -> AnyIO:
    """Return what loads any kind; options of one kind are for that kind alone."""
    given = dict(options)
    image = {name: given.pop(name) for name in ("image_mode", "max_pixels") if name in given}
    sound = {name: given.pop(name) for name in ("sampling_rate", "mono") if name in given}
    part = {name: given[name] for name in ("start", "end") if name in given}
    picture = {name: given.pop(name) for name in ("size", "stream", "device") if name in given}
    unknown = given.keys() - _OF_CHOICE
    if unknown:
        raise InvalidArgumentError(f"Unknown options: {', '.join(sorted(unknown))}.")
    return AnyIO(ImageMediaIO(**image), VideoIO(choice_of(**given), **picture), AudioIO(**sound, **part))


def _load_any(source: Source, media_io: AnyIO, options: dict[str, Any]) -> Any:
    if located(source) is None:
        return _is_there(source, options)
    silence_decoders()
    with packages_for("A file"):
        return load_from(source, media_io, "a file")


async def _aload_any(source: Source, media_io: AnyIO, options: dict[str, Any]) -> Any:
    if located(source) is None:
        return await asyncio.to_thread(_is_there, source, options)
    silence_decoders()
    with packages_for("A file"):
        return await aload_from(source, media_io, "a file")


def _is_there(source: Source, options: dict[str, Any]) -> Any:
    """Return what is no file: an array of frames, a waveform with its rate, or a picture."""
    if getattr(source, "ndim", 0) == 4:
        return load_video(source, **options)
    return load_audio(source, **options) if isinstance(source, tuple) else load_image(source, **options)


def _listed(sources: Any) -> Iterable[Source]:
    """Return the sources one by one: those of a directory, a single one as it is."""
    if isinstance(sources, str | PathLike) and not isinstance(found := located(sources), bytes | None):
        if isinstance(found, Path) and found.is_dir():
            return sorted(path for path in found.iterdir() if path.is_file())
        return [sources]
    if isinstance(sources, bytes | bytearray):
        return [sources]
    return cast("Iterable[Source]", sources)


def _workers(given: int | None) -> int:
    if given is None:
        return envs.VLLM_MEDIA_LOADING_THREAD_COUNT
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InvalidArgumentError(f"workers={given!r:.32}: expected a positive number.")
    return given


def _check(on_error: str) -> None:
    if on_error not in ("return", "raise", "skip"):
        raise InvalidArgumentError(f"on_error={on_error!r:.32}: expected 'return', 'raise' or 'skip'.")


@contextlib.contextmanager
def _bar(progress: bool | None, sources: Iterable[Source]) -> Iterator[Callable[[], object]]:
    """Give what counts one more, on a bar where there is to be one."""
    try:
        if progress is False or (progress is None and not _is_watched()):
            raise ImportError
        with quiet():  # it warns where a notebook has no widgets, and draws letters
            from tqdm.auto import tqdm
    except ImportError:
        yield lambda: None
        return
    total = len(sources) if isinstance(sources, Sized) else None
    with tqdm(total=total, unit="file", delay=0 if progress else _PATIENCE) as bar:
        yield bar.update


def _is_watched() -> bool:
    """Say whether a person looks on: at a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
