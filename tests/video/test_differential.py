"""Seeking against sequential reading: every byte, every metadata value, every error, or a refusal.

The long run is marked `slow` (`nox -s fuzz`). Its environment: `FUZZ_SEED` (where to begin; random),
`FUZZ_SECONDS` (60) or `FUZZ_COUNT` (files), and `FUZZ_DIR` (where files that fail are kept). A failure names
its seed; `FUZZ_SEED=<seed> FUZZ_COUNT=1` replays it. `current.txt` in that folder is the one under way.
"""

import hashlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from mmmedia.errors import InvalidMediaError, NotSeekableError
from mmmedia.video import (
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
)
from support import corpus
from support.corpus import COMMON_CONTAINERS, SHAPES, Recipe, draw
from support.picking import Pick

LOADERS: dict[str, Any] = {
    "pick": Pick,
    "opencv": OpenCVVideoBackend,
    "opencv_dynamic": OpenCVDynamicVideoBackend,
    "molmo2": Molmo2VideoBackend,
}
Answer = tuple[Any, ...]
# Seeds of clips with times that are given twice, packets that lack, and a start within a group.
ODD_TIMES = [2, 53, 75, 90, 95, 129, 3, 60, 80, 28, 29, 149]


def answer(data: bytes, loader: str, options: dict[str, Any], decode: str) -> Answer:
    """All that a caller can see: the hash of the frames and the metadata, or the error."""
    try:
        frames, metadata = LOADERS[loader].load_bytes(data, decode=decode, **options)
    except NotSeekableError:
        raise
    except Exception as error:
        return type(error).__name__, str(error)
    return frames.shape, frames.dtype, hashlib.sha256(frames.tobytes()).hexdigest(), metadata


def difference(data: bytes, loader: str, options: dict[str, Any], *, damaged: bool = False) -> str:
    """ "same", a refusal with its reason, or how the two ways of reading differ.

    Of what is damaged a decoder makes pictures up from those that it has: these may differ, their number not.
    """
    try:
        fast = answer(data, loader, options, "seek")
    except NotSeekableError as refusal:
        return f"refused: {str(refusal).rsplit(': ', 1)[-1]}"
    reference = answer(data, loader, options, "sequential")
    if fast == reference:
        return "same"
    if damaged and len(fast) == len(reference) == 4 and (fast[0], fast[3]) == (reference[0], reference[3]):
        return "concealed otherwise"
    # Some damage makes the reference's own answer depend on what was in memory before.
    for _ in range(100):
        if answer(data, loader, options, "sequential") != reference:
            return "reference differs from itself"
    return f"DIFFERENT: {fast} against {reference}"


def examine(recipe: Recipe, data: bytes | None = None, *, count: int = 3) -> Counter[str]:
    """Put requests to a recipe's clip and count what comes of them; a common kind must not be refused."""
    data = data or recipe.make()
    outcomes: Counter[str] = Counter()
    requests = itertools.islice(corpus.requests(recipe.seed, recipe.clip["frames"]), count)
    for loader, options in requests:
        outcome = difference(data, loader, options, damaged=not recipe.intact)
        assert not outcome.startswith("DIFFERENT"), f"{recipe}\n{loader} {options}\n{outcome}"
        assert not (recipe.common and outcome.startswith("refused")), f"{recipe}\n{outcome}"
        outcomes[outcome] += 1
    return outcomes


TICK = Fraction(1, 500)
COMMON = [
    (codec, container, shape)
    for codec, containers in COMMON_CONTAINERS.items()
    for number, shape in enumerate(SHAPES[codec])
    for container in (containers if number == 0 else [containers[number % len(containers)]])
]


class TestCommonKinds:
    @pytest.mark.parametrize(("codec", "container", "shape"), COMMON)
    def test_every_shape(self, codec: str, container: str, shape: dict[str, Any]) -> None:
        """What people have is answered by seeking, and equal."""
        fields = {"codec": codec, "container": container, "frames": 60, "width": 96, "height": 64, **shape}
        examine(Recipe(fields, common=True, seed=len(str(fields))))

    @pytest.mark.parametrize(
        "fields",
        [
            {"timestamps": [n + n // 3 + 5 * (n > 20) for n in range(48)]},
            {"container": "matroska", "timestamps": [n * 7 + n % 3 for n in range(48)], "time_base": TICK},
            corpus.COLOURS[1],
            corpus.COLOURS[2],
            {"container": "matroska", **corpus.COLOURS[1]},
            {"audio": True},
            {"audio": True, "container": "matroska"},
            {"audio": True, "codec": "libvpx-vp9", "container": "webm"},
            {"audio": True, "codec": "libx265", "container": "mov", **SHAPES["libx265"][0]},
            {"rate": Fraction(30000, 1001)},
            {"width": 98, "height": 66},
            corpus.FRAGMENTED,
        ],
        ids=str,
    )  # fmt: skip
    def test_every_setting(self, fields: dict[str, Any]) -> None:
        """Variable rate, colour tags, sound beside it, fragments: all by seeking."""
        fields = {"codec": "libx264", "container": "mp4", "frames": 48, "width": 96, "height": 64, **fields}
        examine(Recipe(fields, common=True, seed=7))

    @pytest.mark.parametrize("shape", [SHAPES["libx264"][number] for number in (0, 2, 8, 9)], ids=str)
    @pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
    def test_every_frame_alone(self, container: str, shape: dict[str, Any]) -> None:
        """Of short clips in Matroska, as these tags ask, FFmpeg does not find out when they begin."""
        fields = {
            "codec": "libx264",
            "container": container,
            "frames": 45,
            "width": 96,
            "height": 64,
            **shape,
        }
        data = Recipe(fields | corpus.COLOURS[1]).make()
        assert {difference(data, "pick", {"indices": [number]}) for number in range(45)} == {"same"}

    @pytest.mark.parametrize("codec", COMMON_CONTAINERS)
    def test_short_streams_are_proven(self, codec: str) -> None:
        """Under "seek" a short stream passes its proof, too, with the thresholds as they are."""
        fields = {"codec": codec, "container": "matroska", "frames": 40, "width": 96, "height": 64}
        data = Recipe(fields | SHAPES[codec][0]).make()
        assert difference(data, "pick", {"indices": [3, 17, 39]}) == "same"


class TestSeeds:
    @pytest.mark.parametrize("seed", range(60))
    def test_any_kind(self, seed: int) -> None:
        """Clips of any kind: equal, or refused."""
        recipe = draw(seed)
        try:
            data = recipe.make()
        except (av.FFmpegError, ValueError, IndexError) as error:
            pytest.skip(f"can't be encoded: {error}")
        examine(recipe, data)

    @pytest.mark.parametrize("seed", range(60))
    def test_damaged(self, seed: int) -> None:
        """Broken bytes and files cut short: the same frames, the same error, or refused."""
        examine(draw(seed, damaged=True), count=2)


def swapped(packets: list[av.Packet]) -> list[av.Packet]:
    """Exchange the times of two frames, so that these tell another order than that in which frames come."""
    one, other = packets[20], packets[21]
    one.pts, other.pts = other.pts, one.pts
    return packets


class TestAlone:
    """What is asked for along with a frame makes no difference to it."""

    ALL = range(1 << 10)

    def check(self, data: bytes, *, damaged: bool = False, **way: Any) -> None:
        whole, metadata = Pick.load_bytes(data, indices=self.ALL, **way)
        rows = {number: row for row, number in enumerate(metadata["frames_indices"])}
        for number in range(metadata["total_num_frames"]):
            try:
                frames, alone = Pick.load_bytes(data, indices=[number], **way)
            except InvalidMediaError:
                assert number not in rows
                continue
            assert alone["frames_indices"] == [number]
            # What a decoder makes up for what is missing may depend on what was in memory before.
            assert damaged or (frames[0] == whole[rows[number]]).all()
            assert number in rows

    @pytest.mark.parametrize("backend", ["opencv", "pyav"])
    @pytest.mark.parametrize("seed", [*ODD_TIMES, *range(8, 16)])
    def test_any_kind(self, seed: int, backend: str) -> None:
        recipe = draw(seed)
        self.check(recipe.make(), damaged=not recipe.intact, backend=backend, decode="sequential")

    @pytest.mark.parametrize("backend", ["opencv", "pyav"])
    @pytest.mark.parametrize("seed", [15, 54, 62])
    def test_damaged(self, seed: int, backend: str) -> None:
        """A frame that is lost is so whatever is asked for; and PyAV is not asked for that one alone."""
        self.check(draw(seed, damaged=True).make(), damaged=True, backend=backend, decode="sequential")

    @pytest.mark.parametrize("backend", ["opencv", "pyav"])
    @pytest.mark.parametrize("container", ["mp4", "matroska"])
    @pytest.mark.parametrize("codec", ["libx264", "libx265"])
    def test_times_of_another_order(self, codec: str, container: str, backend: str) -> None:
        fields = {"codec": codec, "frames": 40, "width": 96, "height": 64, "bframes": 2}
        data = corpus.remux([Recipe(fields).make()], container, swapped)
        self.check(data, backend=backend)


class TestTheTestItself:
    def test_a_difference_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One wrong byte of one frame is a difference."""
        from mmmedia.video.decoders import sparse

        right = sparse._Work._fill

        def wrong(self: Any, row: int, *arguments: Any) -> Any:
            kept = right(self, row, *arguments)
            self._frames[row][-1, -1, -1] ^= 1
            return kept

        monkeypatch.setattr(sparse._Work, "_fill", wrong)
        recipe = Recipe({"frames": 40, "width": 96, "height": 64}, common=True)
        with pytest.raises(AssertionError, match="DIFFERENT"):
            examine(recipe, count=1)

    def test_seeds_repeat(self) -> None:
        """A seed is a recipe and a series of requests."""
        for seed in range(20):
            assert draw(seed) == draw(seed)
            assert draw(seed, damaged=True) == draw(seed, damaged=True)
            first, again = corpus.requests(seed, 50), corpus.requests(seed, 50)
            assert [next(first) for _ in range(5)] == [next(again) for _ in range(5)]
        assert draw(1) != draw(2)

    def test_common_kinds_are_drawn(self) -> None:
        """Of the seeds, enough are kinds that must not be refused, of each codec."""
        drawn = [draw(seed) for seed in range(300)]
        assert {r.clip["codec"] for r in drawn if r.common} == set(COMMON_CONTAINERS)
        assert sum(r.common for r in drawn) > 80


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_fuzz() -> None:
    """New seeds for as long as asked for; whatever differs is kept, and named at the end."""
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(1 << 40))
    count = int(os.environ.get("FUZZ_COUNT") or 0)
    seconds = float(os.environ.get("FUZZ_SECONDS") or 60)
    folder = Path(os.environ.get("FUZZ_DIR") or tempfile.mkdtemp(prefix="mmmedia-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    for number in itertools.count(seed):
        if number - seed >= count if count else time.monotonic() > end:
            break
        for damaged in (False, True):
            recipe = draw(number, damaged=damaged)
            kind = "damaged" if damaged else "intact"
            try:
                data = recipe.make()
            except (av.FFmpegError, ValueError, IndexError):
                outcomes["can't be encoded"] += 1
                continue
            # Should the process die of it, this says of what.
            (folder / "current.txt").write_text(str(recipe))
            try:
                outcomes.update({f"{kind}: {what}": n for what, n in examine(recipe, data).items()})
            except AssertionError as difference:
                outcomes[f"{kind}: FAILED"] += 1
                failures.append(str(difference))
                (folder / f"{number}-{kind}.bin").write_bytes(data)
                (folder / f"{number}-{kind}.txt").write_text(str(difference))
    report = "\n".join(f"{n:8} {what}" for what, n in outcomes.most_common())
    sys.stdout.write(f"\nseeds {seed} to {number - 1}\n{report}\n")
    assert not failures, f"{len(failures)} differences, kept in {folder}:\n" + "\n\n".join(failures[:20])
