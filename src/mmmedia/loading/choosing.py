"""Which frames to take, as the caller says it: by number, by time, or by a sampler."""

import bisect
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from mmmedia.errors import InvalidArgumentError
from mmmedia.video.decoders.part import WHOLE, Part, part_of
from mmmedia.video.loaders import VIDEO_LOADER_REGISTRY, VideoLoader, first_of_a_short_clip
from mmmedia.video.samplers import (
    SAMPLERS,
    Sampler,
    TimedSource,
    VideoSourceMetadata,
    VideoTargetMetadata,
    sample_uniform,
    sampler_for,
)

FEW = 32
"""How many frames are taken of a video where nothing says how many."""

_SAME_MOMENT = 1e-6  # seconds; clocks tick in fractions that are no round numbers

Rule = Callable[[VideoSourceMetadata], Sequence[int]]


@dataclass(frozen=True)
class Choice:
    """Which frames a caller wants; it pickles, and holds nothing of the process that it was made in.

    Attributes:
        num_frames: at most so many, evenly spaced or as the sampler does it.
        fps: at most so many a second.
        sampler: who chooses; None: evenly spaced.
        indices: frames by their number; negative ones count from the end.
        timestamps: frames by when they are seen, in seconds from the first.
        part: what of the video samplers see.
    """

    num_frames: int | None = None
    fps: float | None = None
    sampler: "Sampler | type[VideoLoader] | Rule | None" = None
    indices: tuple[int, ...] | None = None
    timestamps: tuple[float, ...] | None = None
    part: Part = WHOLE

    chosen_by_caller: ClassVar = True
    """Processes that decode ask for what it chooses, as its sampler may be anything."""

    @property
    def name(self) -> str:
        """The name of the sampler, in the words of loaders."""
        if self.sampler is None:
            return "opencv"
        return str(getattr(self.sampler, "name", None) or getattr(self.sampler, "__name__", "sampler"))

    def __call__(self, source: VideoSourceMetadata) -> list[int]:
        """Return the numbers of the frames to take.

        Raises:
            InvalidArgumentError: (a `ValueError`) there are no such frames, or no such options.
        """
        if self.indices is not None:
            return [_counted(number, source.total_frames_num) for number in self.indices]
        times = getattr(source, "times", None)
        if self.timestamps is not None:
            return [_seen_at(moment, source, times) for moment in self.timestamps]
        if self.part == WHOLE:
            return self._sampled(source)
        numbers = self.part.numbers(source, times)
        rate = source.original_fps
        seen = VideoSourceMetadata(len(numbers), rate, len(numbers) / rate if rate > 0 else 0.0)
        return [numbers[number] for number in self._sampled(seen) if 0 <= number < len(numbers)]

    def _sampled(self, source: VideoSourceMetadata) -> list[int]:
        sampler = self.sampler
        if sampler is None:
            num_frames = FEW if self.num_frames is None and self.fps is None else self.num_frames
            most = -1 if num_frames is None else num_frames
            fps = -1 if self.fps is None else self.fps
            return sample_uniform(source.total_frames_num, source.duration, most, fps)
        if isinstance(sampler, Sampler):
            target = VideoTargetMetadata(-1, -1 if self.fps is None else self.fps, -1)
            return sampler(source, **self._options(sampler)) or first_of_a_short_clip(source, target)
        if isinstance(sampler, type):
            sampler = cast("type[VideoLoader]", sampler)
            prepared = sampler._prepare_source(source)
            target = VideoTargetMetadata(
                FEW if self.num_frames is None and self.fps is None else self.num_frames or -1,
                -1 if self.fps is None else self.fps,
                300,
            )
            chosen = sampler.compute_frames_index_to_sample(prepared, target)
            return [int(number) for number in chosen] or first_of_a_short_clip(source, target)
        return [int(number) for number in sampler(source)]

    def _options(self, sampler: Sampler) -> dict[str, Any]:
        """Return the options that were given, and a number of frames where nothing else bounds it."""
        given = {"num_frames": self.num_frames, "fps": self.fps}
        options = {name: value for name, value in given.items() if value is not None}
        is_needed = sampler.options.get("num_frames") is inspect.Parameter.empty
        if "num_frames" not in options and (is_needed or (not options and sampler.rule is sample_uniform)):
            options["num_frames"] = FEW
        return options


def choice_of(
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    sampler: object = None,
    indices: Sequence[int] | None = None,
    timestamps: Sequence[float] | None = None,
    start: float | None = None,
    end: float | None = None,
) -> Choice:
    """Return what a caller's keywords ask for; arguments as of `mmmedia.load_video`.

    Raises:
        InvalidArgumentError: (a `ValueError`) keywords that exclude each other, or have values that they
            can't have, a sampler that nobody knows or that takes no such option.
    """
    sampling = {"num_frames": num_frames, "fps": fps, "sampler": sampler, "start": start, "end": end}
    sampled = [name for name, value in sampling.items() if value is not None]
    named = [name for name, value in (("indices", indices), ("timestamps", timestamps)) if value is not None]
    if len(named) > 1 or (named and sampled):
        raise InvalidArgumentError(
            f"{named[0]}: what is named leaves nothing to choose for {', '.join([*named[1:], *sampled])}."
        )
    found = _sampler(sampler)
    if isinstance(found, Sampler):
        for name, value in (("num_frames", num_frames), ("fps", fps)):
            if value is not None and name not in found.options:
                raise InvalidArgumentError(
                    f"{name}: the sampler {found.name!r} does not take it, but: {', '.join(found.options)}."
                )
    elif found is not None and not isinstance(found, type) and (num_frames, fps) != (None, None):
        raise InvalidArgumentError(
            "num_frames, fps: a sampler that is a function is told of the video alone."
        )
    return Choice(
        None if num_frames is None else _whole("num_frames", num_frames),
        None if fps is None else _positive("fps", fps),
        found,
        None if indices is None else tuple(_index(number) for number in indices),
        None if timestamps is None else tuple(_moment(moment) for moment in timestamps),
        part_of(start, end),
    )


def _sampler(given: Any) -> "Sampler | type[VideoLoader] | Rule | None":
    """Return what a caller names; of a loader of third parties its class, unknown in other processes."""
    if given is None or isinstance(given, Sampler):
        return given
    if isinstance(given, type) and hasattr(given, "compute_frames_index_to_sample"):
        return given
    if isinstance(given, str) and given not in SAMPLERS and given in VIDEO_LOADER_REGISTRY:
        return VIDEO_LOADER_REGISTRY.get(given)
    try:
        return sampler_for(given)
    except InvalidArgumentError as error:
        if callable(given) and not isinstance(given, type):
            rule: Rule = given
            return rule
        raise InvalidArgumentError(f"sampler: {error}") from None


def _counted(number: int, total: int) -> int:
    """Return a frame's number counted from the first one.

    >>> _counted(-1, 10)
    9
    """
    if not -total <= number < total:
        raise InvalidArgumentError(f"indices: the video has no frame {number}: it has {total}.")
    return number % total


def _seen_at(moment: float, source: VideoSourceMetadata, times: Sequence[float] | None) -> int:
    """Return the frame that is on screen at a moment, in seconds from the first."""
    total, fps, duration = source
    if times is None:
        if fps <= 0:
            raise InvalidArgumentError("timestamps: the video has no rate by which to tell times.")
        end, number = max(duration, total / fps), math.floor(moment * fps + _SAME_MOMENT)
    else:
        end, number = max(duration, times[-1]), bisect.bisect_right(times, moment + _SAME_MOMENT) - 1
    if moment > end + _SAME_MOMENT:
        raise InvalidArgumentError(f"timestamps: {moment:g} s is beyond the video, which ends at {end:g} s.")
    return min(max(number, 0), total - 1)


def times_of(source: TimedSource, indices: Sequence[int]) -> list[float]:
    """Return when frames are shown, in seconds from the video's first; none where nothing tells it."""
    if source.times is not None:
        return [float(source.times[number]) for number in indices]
    if source.original_fps > 0:
        return [number / source.original_fps for number in indices]
    return []


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value == 0 or value < -1:
        raise InvalidArgumentError(f"{name}={value!r:.64}: expected a number of frames, or -1 for all.")
    return int(value)


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"{name}={value!r:.64}: expected a positive number.")
    return float(value)


def _index(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidArgumentError(f"indices: expected whole numbers, got {value!r:.64}.")
    return int(value)


def _moment(value: Any) -> float:
    try:
        moment = float(value)
    except (TypeError, ValueError):
        moment = math.nan
    if not 0 <= moment < math.inf:
        raise InvalidArgumentError(f"timestamps: expected seconds, not negative, got {value!r:.64}.")
    return moment
