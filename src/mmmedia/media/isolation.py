"""Media IOs that decode in a process of its own: what goes there, and how it is checked what comes back.

`apart` marks the methods that decode. Where `MMMEDIA_DECODE_PROCESSES` is set they are called in a worker,
with the media IO as it is, and the encoded file. What only this process has is asked for from there: budgets,
pieces of sources, and the frames that a caller chooses, or a loader which can't be imported.

What comes back is a stranger's word. A picture is made of a mode, a size and pixels; a sound of samples and
a rate; a video of frames and a dict; each within the limits that were asked for.
"""

import codecs
import functools
import importlib
import io
import math
import pickle
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from encodings import aliases
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from mmmedia import envs, errors, exceptions, metrics
from mmmedia.errors import InvalidArgumentError, MediaError
from mmmedia.media import isolated_results, isolated_sources
from mmmedia.media.isolated_sources import AskedSource, LentSource
from mmmedia.media.warm import warm_up
from mmmedia.sources import FileSource, Source
from mmmedia.work import isolated
from mmmedia.work.isolated.wire import BrokenWireError

if TYPE_CHECKING:
    from mmmedia.work.isolated.worker import Errand

P = ParamSpec("P")
T = TypeVar("T")

_SETTINGS: Final = (
    "VLLM_MAX_IMAGE_PIXELS", "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", "VLLM_MAX_AUDIO_DECODE_DURATION_S",
    "VLLM_MAX_AUDIO_DECODE_BYTES", "VLLM_MAX_EMBED_DECODE_BYTES", "VLLM_MAX_VIDEO_DECODE_BYTES",
    "VLLM_VIDEO_LOADER_BACKEND", "VLLM_VIDEO_DECODE", "VLLM_VIDEO_DECODE_TIMEOUT_S",
    "VLLM_VIDEO_DECODE_WORKERS", "MMMEDIA_COMPAT", "MMMEDIA_SPARSE_FETCH",
    "MMMEDIA_VIDEO_DECODE_FOR",
)  # fmt: skip
"""What decoding goes by."""

_PREPARE: Final = "mmmedia.media.isolation:prepare"
_READS: Final = frozenset({"read", "read_all"})
"""Questions whose answers may have to be fetched."""

_BEYOND_VIDEO: Final = 30.0
"""Seconds that a worker has beyond the limit of a video, which is kept by itself."""

_KNOWN: Final = frozenset(
    {"__main__", "builtins", "collections", "copyreg", "functools", "numpy", "pathlib", "PIL"}
)
"""Top-level names of modules that are not to be imported by workers, or are there."""

_ERRORS: Final[dict[str, type[BaseException]]] = {
    kind.__name__: kind
    for module in (errors, exceptions)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, MediaError) and not issubclass(kind, errors.PartError)
}


def apart(kind: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have a function called in a worker, where `MMMEDIA_DECODE_PROCESSES` is set.

    Args:
        kind: what it returns, one of `isolated_results.KINDS`.

    Returns:
        A decorator of functions and methods whose last argument is the encoded file: bytes, text or a source.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def decode(*args: P.args, **kwargs: P.kwargs) -> T:
            if envs.MMMEDIA_DECODE_PROCESSES <= 0:  # `not isolated.is_on()`, without its call
                return function(*args, **kwargs)
            return cast("T", _decode_apart(kind, function, *args, **kwargs))

        return decode

    return decorate


def _samples() -> Iterator[metrics.Sample]:
    pool = isolated.existing()
    yield metrics.Sample("mmmedia_decode_processes", (), pool.alive if pool else 0)
    yield metrics.Sample("mmmedia_pool_queue_length", ("processes",), pool.queue_length if pool else 0)
    yield metrics.Sample("mmmedia_decode_process_seconds_total", (), pool.seconds if pool else 0.0)
    for reason, number in (pool.ends.copy() if pool else {}).items():
        yield metrics.Sample("mmmedia_decode_process_ends_total", (reason,), number)


metrics.register_source(_samples)


def start(*kinds: str) -> None:
    """Start the processes that decode, and wait until they can; else the first decode does.

    Args:
        kinds: of `isolated_results.KINDS`, whose packages are to be imported; none of them for all.

    Raises:
        DecoderUnavailableError: (a `RuntimeError`) none can be started here.
    """
    from mmmedia.work.isolated.pool import Task

    if isolated.is_on():
        modules = frozenset().union(*(_MODULES[kind] for kind in kinds or _MODULES))
        isolated.run(Task("mmmedia.work.isolated.worker:nothing", _PREPARE, b"", modules=modules))


def layers() -> dict[str, Any]:
    """Start a worker and say how it is held, for `mmmedia doctor`.

    Returns:
        A dict of `is_possible`, the `layers` in force, those that are `lacking`, and the version of Landlock.

    Raises:
        DecoderUnavailableError: (a `RuntimeError`) no worker can be started here.
    """
    from mmmedia.work.isolated import door
    from mmmedia.work.isolated.pool import trial

    held = trial()
    return {
        "is_possible": True,
        "layers": [*held],
        "lacking": [name for name in door.LAYERS if name not in held],
        "landlock": door.landlock_version(),
    }


def prepare() -> None:
    """Import all that decoding may import, as a worker can't once its door is shut."""
    warm_up()
    for name in _LAZILY:
        try:
            importlib.import_module(name)
        except ImportError:  # not installed, or another version has no such module
            continue
    for name in sorted(set(aliases.aliases.values())):
        try:
            codecs.lookup(name)
        except LookupError:  # those of Windows
            continue


_LAZILY: Final = (
    "pillow_heif.as_plugin", "torchcodec.decoders", "PIL.ImageCms", "PIL.ImageOps", "xml.etree.ElementTree",
    "defusedxml.ElementTree", "zipfile", "pickletools", "concurrent.futures.thread",
    "mmmedia.video.model_loaders", "mmmedia.media.isolation", "mmmedia.loading.media_ios",
)  # fmt: skip

_OF_SOUNDS: Final = frozenset(
    {"librosa", "librosa.core.audio", "librosa.util.utils", "soxr", "scipy.signal", "scipy.fft"}
)
_MODULES: Final[dict[str, frozenset[str]]] = {
    "picture": frozenset(),
    "kind": frozenset(),
    "video": frozenset(),
    "sound": _OF_SOUNDS,
    "waveform": _OF_SOUNDS,
    "tensor": frozenset({"torch", "torch.utils.serialization.config"}),
}
"""What takes seconds to import, and is imported when a file of its kind first comes."""


# ------------------------------------------------------------------------------------------ in the parent


def _decode_apart(kind: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    from mmmedia.work.isolated.pool import Task

    *others, data = args
    name = f"{function.__module__}:{function.__qualname__}"
    if isinstance(data, Source):
        known_by, encoded = isolated_sources.known_by(data), isolated_sources.known(data)
        sent = _Sent(data.size)
        pickled = sent.pickled((name, kind, data, others, kwargs))
    else:
        encoded = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        known_by, sent = None, _Sent(len(encoded))
        pickled = sent.pickled((name, kind, type(data), others, kwargs))
    result = isolated_results.KINDS[kind]
    task = Task(
        "mmmedia.media.isolation:decode",
        _PREPARE,
        encoded,
        pickled,
        result.check,
        _MODULES[kind] | sent.modules,
        _SETTINGS,
        sent.answers,
        _READS,
        _ERRORS,
        _seconds(kind),
        known_by,
        tuple(sent.descriptors),
    )
    value = isolated.run(task)
    if sent.descriptors and value.get("is_whole") is True:
        data.read_all()  # as it was read there
    if kind == "video":
        isolated_results.count(value)
    return result.made(value, others[0] if others else None, data)


def _seconds(kind: str) -> float | None:
    seconds = envs.MMMEDIA_DECODE_PROCESS_TIMEOUT_S
    if kind != "video":
        return seconds
    own = envs.VLLM_VIDEO_DECODE_TIMEOUT_S
    return max(seconds, own + _BEYOND_VIDEO) if own > 0 else None


class _Sent:
    """What is sent with a file, and what is asked about it.

    Args:
        size: bytes of the file.

    Attributes:
        modules: those that a worker has to import for it.
        answers: who answers the worker's questions.
        descriptors: of files that it reads itself.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.modules: set[str] = set()
        self.answers: dict[str, Callable[..., Any]] = {}
        self.descriptors: list[int] = []

    def pickled(self, value: Any) -> bytes:
        """Return a value pickled.

        Raises:
            InvalidArgumentError: something in it can't be sent.
        """
        file = io.BytesIO()
        try:
            _Pickler(file, self).dump(value)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise InvalidArgumentError(
                f"This can't be sent to a decode process (MMMEDIA_DECODE_PROCESSES): {error}"
            ) from error
        return file.getvalue()

    def budget(self, budget: Any) -> tuple[str, bool]:
        """Have a budget asked; return what stands for it."""
        self.answers["charge"] = lambda number: _nothing(budget.charge(_bytes(number)))
        is_reservable = hasattr(budget, "settle")
        if is_reservable:
            self.answers["reserve"] = lambda most: budget.reserve(_bytes(most))
            self.answers["settle"] = lambda granted, used: _nothing(
                budget.settle(_bytes(granted), _bytes(used))
            )
        return ("budget", is_reservable)

    def source(self, source: Source) -> tuple[str, Any]:
        """Have a source read, but for a file, which is handed over open; return what stands for it."""
        if type(source) is FileSource:
            self.descriptors.append(source.fileno())
            return ("file", source.name)
        lent = LentSource(source)
        self.answers["read"], self.answers["read_all"] = lent.read, lent.read_all
        return ("source", lent.told())

    def choice(self, choice: Any) -> tuple[str, str]:
        """Have frames chosen by what the caller has said; return what stands for it."""
        from mmmedia.video.samplers import TimedSource, VideoSourceMetadata

        def choose(source: Any, times: Any) -> list[int]:
            _check_metadata(source, self._size)
            seen = TimedSource.of(VideoSourceMetadata(*source), _times(times, source[0]))
            return [int(index) for index in choice(seen)]

        self.answers["choose"] = choose
        return ("choice", choice.name)

    def loader(self, loader: type) -> tuple[str, type]:
        """Have a loader asked which frames to take; return what stands for it.

        Raises:
            InvalidArgumentError: it does more than that.
        """
        from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata

        at = next(n for n, each in enumerate(loader.__mro__) if _is_importable(each))
        base = loader.__mro__[at]
        changed = {
            name for each in loader.__mro__[:at] for name in vars(each) if callable(getattr(each, name))
        }
        if not hasattr(base, "load_bytes") or changed - {_CHOICE}:
            raise InvalidArgumentError(
                f"{loader.__qualname__} can't be imported by a decode process (MMMEDIA_DECODE_PROCESSES): "
                f"its module is {loader.__module__}. Put it in a file of its own."
            )
        chooses: Any = loader

        def choose(source: Any, target: Any, options: Any) -> list[int]:
            _check_metadata(source, self._size)
            chosen = chooses.compute_frames_index_to_sample(
                VideoSourceMetadata(*source), VideoTargetMetadata(*target), **options
            )
            return [int(index) for index in chosen]

        self.answers["choose"] = choose
        return ("loader", base)


def _check_metadata(source: Any, size: int) -> None:
    """Refuse what no file of so many bytes can be, before a sampler makes a list of its frames."""
    match source:
        case (int() as total, int() | float() as fps, int() | float() as duration):
            is_right = 0 <= total <= min(size, _MOST_FRAMES) and math.isfinite(fps + duration)
        case _:
            is_right = False
    if not is_right:
        raise BrokenWireError("a video that can't be")


def _times(told: Any, total: int) -> list[float] | None:
    """Return the times of so many frames, which are told as their bytes in base64."""
    if told is None:
        return None
    try:
        times = array("d", b64decode(told, validate=True))
    except (TypeError, ValueError):
        raise BrokenWireError("times that are none") from None
    if len(times) != total or not all(map(math.isfinite, times)):
        raise BrokenWireError("times that can't be")
    return times.tolist()


_MOST_FRAMES: Final = 1 << 24
_CHOICE: Final = "compute_frames_index_to_sample"


class _Pickler(pickle.Pickler):
    """Pickles what a worker can import, and leaves out what it is to ask for."""

    def __init__(self, file: io.BytesIO, sent: _Sent) -> None:
        super().__init__(file, 5)
        self._sent = sent

    def persistent_id(self, value: Any) -> Any:
        """Return what stands for a value, None if it is sent itself."""
        if isinstance(value, type):
            if _is_importable(value):
                if value.__module__.partition(".")[0] not in (*_KNOWN, "mmmedia"):
                    self._sent.modules.add(value.__module__)
                return None
            return self._sent.loader(value)
        if isinstance(value, Source):
            return self._sent.source(value)
        if hasattr(value, "chosen_by_caller"):
            return self._sent.choice(value)
        if hasattr(value, "charge"):
            return self._sent.budget(value)
        return None


@functools.lru_cache(maxsize=256)
def _is_importable(kind: type) -> bool:
    """Say whether another process finds a class by its name."""
    if "<locals>" in kind.__qualname__ or kind.__module__ == "__main__":
        return False
    top = kind.__module__.partition(".")[0]
    if top in sys.builtin_module_names or top in _KNOWN or top == "mmmedia":
        return True
    # Not by `find_spec`, which finds what is imported, wherever it came from.
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)


def _bytes(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise BrokenWireError("a number of bytes that can't be")
    return number


def _nothing(_: object) -> None:
    return None


# ------------------------------------------------------------------------------------------- in a worker


def decode(errand: "Errand") -> Any:
    """Decode a file, in a worker."""
    name, kind, form, others, kwargs = _Unpickler(io.BytesIO(errand.pickled), errand).load()
    module, _, path = name.partition(":")
    function: Any = importlib.import_module(module)
    for part in path.split("."):
        function = getattr(function, part)
    data: Any = errand.data
    if form is str:
        data = data.decode("utf-8", "surrogatepass")
    elif isinstance(form, AskedSource):
        form.take(data)
        data = form
    elif isinstance(form, FileSource):
        form.whole = data or None
        data = form
    if kind != "video":
        return isolated_results.KINDS[kind].told(function(*others, data, **kwargs))
    before = isolated_results.counts()
    value = function(*others, data, **kwargs)
    told = {**isolated_results.KINDS[kind].told(value), "counts": isolated_results.since(before)}
    return {**told, "is_whole": isinstance(data, Source) and data.whole is not None}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, errand: "Errand") -> None:
        super().__init__(file)
        self._ask, self._descriptors = errand.ask, errand.descriptors

    def persistent_load(self, stands: Any) -> Any:
        """Return what asks the parent."""
        kind, what = stands
        if kind == "budget":
            return _ReservableBudget(self._ask) if what else _Budget(self._ask)
        if kind == "choice":
            return _Choice(self._ask, what)
        if kind == "file":
            return FileSource(self._descriptors[0], name=what)
        if kind == "source":
            return AskedSource(self._ask, what)
        ask = self._ask

        def choose(_: Any, /, source: Any, target: Any, **options: Any) -> list[int]:
            return list(ask("choose", tuple(source), tuple(target), options))

        return type(what.__name__, (what,), {_CHOICE: classmethod(choose)})


class _Choice:
    """Which frames a caller wants, who is asked."""

    def __init__(self, ask: Callable[..., Any], name: str) -> None:
        self._ask, self.name = ask, name

    def __call__(self, source: Any) -> list[int]:
        times = getattr(source, "times", None)
        told = None if times is None else b64encode(array("d", times)).decode()
        return list(self._ask("choose", tuple(source), told))


class _Budget:
    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def charge(self, number_of_bytes: int) -> None:
        self._ask("charge", number_of_bytes)


class _ReservableBudget(_Budget):
    def reserve(self, max_bytes: int) -> int:
        return int(self._ask("reserve", max_bytes))

    def settle(self, granted: int, actual: int) -> None:
        self._ask("settle", granted, actual)
