"""Pieces against the whole: every byte of every frame and every metadata value, over what the corpus draws.

A case is a file, a request and a kind of source of which only pieces were read. A few dozen run always; the
long run is marked `slow` (`nox -s fuzz -- tests/video/piecewise`) and counts 500 of them. `FUZZ_SEED` says
where to begin, `PIECES_CASES` how many; a failure names its seed.
"""

import hashlib
import itertools
import os
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from mmmedia.errors import NotSparseError
from mmmedia.sources import BytesSource, Source
from mmmedia.video import (
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
)
from support import corpus
from support.layouts import LAYOUTS, Far, Near, laid_out
from support.picking import Pick

CASES = int(os.environ.get("PIECES_CASES", "500"))


LOADERS: dict[str, Any] = {
    "pick": Pick,
    "opencv": OpenCVVideoBackend,
    "opencv_dynamic": OpenCVDynamicVideoBackend,
    "molmo2": Molmo2VideoBackend,
}


def answer(data: bytes | Source, loader: str, options: dict[str, Any], **how: Any) -> tuple[Any, ...]:
    """All that a caller can see: the hash of the frames and the metadata, or the error."""
    try:
        frames, metadata = LOADERS[loader].load_bytes(data, **options, **how)
    except NotSparseError:
        raise
    except Exception as error:
        return type(error).__name__, str(error)
    return frames.shape, hashlib.sha256(frames.tobytes()).hexdigest(), metadata


def outcome(data: bytes, kind: type[BytesSource], loader: str, options: dict[str, Any]) -> str:
    """ "same", why pieces won't do, or how they differ."""
    try:
        pieces = answer(kind(data), loader, options, fetch="always")
    except NotSparseError as refusal:
        return str(refusal).partition("in pieces: ")[2].partition(" (MM")[0]
    whole = answer(data, loader, options)
    return "same" if pieces == whole else f"{pieces} != {whole}"


def check(seeds: Any, enough: int) -> Counter[str]:
    """Compare what seeds draw until there were enough cases."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        recipe, rng = corpus.draw(seed), random.Random(seed)
        if recipe.clip.get("timestamps") is None:
            recipe = replace(recipe, clip={**recipe.clip, "frames": rng.randint(90, 220)})
        try:
            data = recipe.make()
        except Exception:  # the encoder won't make it
            counts["not made"] += 1
            continue
        for (loader, options), _ in zip(corpus.requests(seed, recipe.clip["frames"]), range(4), strict=False):
            # Of what lacks frames only a look at all of it can tell, and that is no longer what is meant.
            for kind in (Near, Far) if recipe.intact else (Near,):
                found = outcome(data, kind, loader, options)
                assert " != " not in found, f"{recipe}, {kind.__name__}, {loader} {options}: {found}"
                counts[found] += 1
        if counts["same"] >= enough:
            break
    return counts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_some_requests_of_every_layout(layout: str) -> None:
    data = laid_out(layout)
    for loader, options in itertools.islice(corpus.requests(len(layout), 240), 4):
        for kind in (Near, Far):
            assert outcome(data, kind, loader, options) in ("same", "no such frames")


def test_a_few_of_the_corpus() -> None:
    counts = check(range(10), 10_000)
    assert counts["same"] > 12


@pytest.mark.slow
def test_five_hundred_cases() -> None:
    start = int(os.environ.get("FUZZ_SEED", "1000"))
    counts = check(itertools.count(start), CASES)
    assert counts["same"] >= CASES, counts
