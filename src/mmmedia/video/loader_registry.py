"""`VideoLoaderRegistry`: loaders by name, and by the video processor whose sampler they are."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from mmmedia.registry import ExtensionManager

T = TypeVar("T")
ClassT = TypeVar("ClassT", bound=type)


class VideoLoaderRegistry(ExtensionManager[T]):
    """A registry of video loaders that knows for which video processors they sample, and which need a GPU.

    >>> registry = VideoLoaderRegistry[object]()
    >>> @registry.register("thirds", video_processor="ThirdsVideoProcessor")
    ... class Thirds:
    ...     pass
    >>> registry.get_backend_for_video_processor("ThirdsVideoProcessor")
    'thirds'
    """

    def __init__(self) -> None:
        super().__init__("video loader")
        self._by_processor: dict[str, str] = {}
        self._need_gpu: set[str] = set()

    def register(
        self, name: str, *, video_processor: str | Iterable[str] | None = None, requires_gpu: bool = False
    ) -> Callable[[ClassT], ClassT]:
        """Decorate a class to register it under `name`; the last registration wins.

        Args:
            name: the name of the loader.
            video_processor: name of the class of a video processor, or several, whose models this loader
                reads for.
            requires_gpu: whether it decodes on a GPU.
        """
        add = super().register(name)

        def add_bound(cls: ClassT) -> ClassT:
            self._bind(name, video_processor)
            if requires_gpu:
                self._need_gpu.add(name)
            return add(cls)

        return add_bound

    def register_lazily(
        self, name: str, module: str, *, video_processor: str | Iterable[str] | None = None
    ) -> None:
        """Register a name whose class is registered by importing `module`, which waits for its first use."""
        super().register_lazily(name, module)
        self._bind(name, video_processor)

    def register_gpu_codec(self, name: str) -> None:
        """Say that a value of the keyword `backend` stands for a decoder that needs a GPU."""
        self._need_gpu.add(name)

    def backend_requires_gpu(self, name: str) -> bool:
        """Return whether a loader, or a decoder, of this name needs a GPU."""
        return name in self._need_gpu

    def get_backend_for_video_processor(self, video_processor: str) -> str | None:
        """Return the name of the loader that is bound to a video processor's class, or None."""
        return self._by_processor.get(video_processor)

    def _bind(self, name: str, video_processor: str | Iterable[str] | None) -> None:
        names = (video_processor,) if isinstance(video_processor, str) else tuple(video_processor or ())
        self._by_processor.update(dict.fromkeys(names, name))
