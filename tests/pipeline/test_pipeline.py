"""The whole pipeline against Hugging Face modules put together by hand, and against bad input."""

import asyncio
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, PartError
from mmmedia.media import MediaConnector
from mmmedia.pipeline import (
    EncoderCache,
    EncoderPath,
    ImagePreprocessor,
    MultimodalPipeline,
    PixelBudget,
    Preprocessed,
    Projector,
    parse_messages,
    resolve_parts,
)
from support.clips import clip
from support.requests_of_media import (
    CountingConnector,
    audio,
    data_url,
    image,
    jpeg,
    part,
    pixels,
    png,
    text,
    user,
    video,
    wav,
)
from support.towers import AUDIO_WIDTH, HIDDEN, IMAGE_TOKENS, VISION_WIDTH, Towers

TOLERANCE = 1e-5


@pytest.fixture
def towers():
    from support.towers import towers

    shared = towers()
    shared.batches.clear()
    return shared


def run(pipeline, messages, use_async=False, **kwargs):
    if use_async:
        return asyncio.run(pipeline.run_async(messages, **kwargs))
    return pipeline.run(messages, **kwargs)


both_halves = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])


@torch.no_grad()
def by_hand(towers: Towers, messages, connector=None):
    """The embeddings of each part, one at a time with the Hugging Face processors and modules."""
    pieces = []
    for item in resolve_parts(parse_messages(messages), connector):
        if item.modality == "text":
            pieces.append(towers.words(torch.tensor(list(item.media.encode()), dtype=torch.long)))
        elif item.modality == "audio":
            waveform, rate = item.media
            inputs = towers.feature_extractor(waveform, sampling_rate=rate, return_tensors="pt")
            states = towers.audio(inputs["input_features"]).last_hidden_state
            pieces.append(towers.audio_projector(states[0]))
        else:
            frames = [item.media.media] if item.modality == "image" else item.media[0]
            tokens = []
            for frame in frames:
                inputs = towers.image_processor(frame, return_tensors="pt")
                tokens.append(towers.vision(pixel_values=inputs["pixel_values"]).last_hidden_state[0])
            pieces.append(towers.vision_projector(torch.cat(tokens)))
    return pieces


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [text("Compare "), image(1), text(" and "), image(2, width=50, height=20),
                                 video(3, 4, 5), text("with"), audio(6), text("")]},
]  # fmt: skip


@both_halves
@pytest.mark.parametrize("max_batch", [1, 2, 16])
@pytest.mark.parametrize("cached", [False, True])
def test_the_stream_is_the_one_put_together_by_hand(towers, use_async, max_batch, cached):
    cache = EncoderCache(20) if cached else None
    stream = run(towers.pipeline(max_batch=max_batch, encoder_cache=cache), CHAT, use_async)
    expected = by_hand(towers, CHAT)
    assert torch.allclose(stream.embeddings, torch.cat(expected), atol=TOLERANCE)
    assert [span.stop - span.start for span in stream.spans] == [len(piece) for piece in expected]
    assert [(span.part_index, span.modality) for span in stream.spans] == list(
        enumerate(["text", "text", "image", "text", "image", "video", "text", "audio", "text"])
    )
    assert stream.spans[0].start == 0
    assert all(a.stop == b.start for a, b in itertools.pairwise(stream.spans))
    assert stream.timestamps == {5: (0.0, 1.0, 2.0)}
    # Two pictures and three frames of one shape: as few batches as max_batch allows, none greater.
    vision = [shape[0] for shape in towers.batches if len(shape) == 4]
    assert vision == {1: [1] * 5, 2: [2, 2, 1], 16: [5]}[max_batch]
    assert not stream.embeddings.requires_grad


def test_it_says_once_that_roles_are_dropped(towers, caplog: pytest.LogCaptureFixture):
    pipeline = towers.pipeline()
    with caplog.at_level(logging.WARNING, "mmmedia"):
        pipeline.run(user(text("Hello")))
        assert not caplog.records
        pipeline.run([{"role": "system", "content": "Be brief."}, *user(text("Hello"))])
        pipeline.run([{"role": "system", "content": "Be brief."}])
    (record,) = caplog.records
    assert "roles of messages (system, user) are dropped" in record.getMessage()


POOL = [text("ab"), text("c"), image(1), image(2), image(1), video(1), video(2, 1), audio(7), audio(8),
        part("image_embeds", torch.full((3, HIDDEN), 0.5)),
        part("audio_embeds", torch.full((2, AUDIO_WIDTH), 0.1))]  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(len(POOL))), count=st.integers(1, len(POOL)), cut=st.integers(0, 4),
       max_batch=st.sampled_from([1, 3, 16]), data=st.data())  # fmt: skip
def test_order_batches_and_hits_change_no_value(order, count, cut, max_batch, data):
    """Whatever the order, each part has the embeddings that it has alone, at its place in the order."""
    from support.towers import towers

    shared, chosen = towers(), order[:count]
    parts = [POOL[index] for index in chosen]
    messages = [message for piece in (parts[:cut], parts[cut:]) if piece for message in user(*piece)]
    cache = data.draw(st.sampled_from([None, EncoderCache(1), EncoderCache(3), EncoderCache(50)]))
    pipeline = shared.pipeline(max_batch=max_batch, encoder_cache=cache, hidden_size=HIDDEN)
    for _ in range(2):
        stream = pipeline.run(messages)
        assert len(stream.spans) == count
        for span, index in zip(stream.spans, chosen, strict=True):
            assert torch.allclose(stream.embeddings_of(span.part_index), alone(index), atol=TOLERANCE)
        assert len(stream) == stream.spans[-1].stop


_alone: dict[int, torch.Tensor] = {}


def alone(index):
    if index not in _alone:
        from support.towers import towers

        _alone[index] = towers().pipeline(hidden_size=HIDDEN).run(user(POOL[index])).embeddings
    return _alone[index]


@both_halves
def test_the_second_turn_encodes_nothing(towers, use_async):
    cache, connector = EncoderCache(20), CountingConnector()
    pipeline = towers.pipeline(encoder_cache=cache, connector=connector)
    first = run(pipeline, CHAT, use_async)
    assert (cache.hits, cache.misses, len(cache)) == (0, 4, 4)
    towers.batches.clear()
    calls = connector.calls.copy()
    second_turn = [*CHAT, {"role": "assistant", "content": "They differ."}, *user(text("How?"))]
    second = run(pipeline, second_turn, use_async)
    assert towers.batches == []
    assert (cache.hits, cache.misses) == (4, 4)
    assert connector.calls == calls, "a data URL that is known by its text is not decoded again"
    assert torch.equal(second.embeddings[: len(first)], first.embeddings)
    assert second.timestamps == first.timestamps


def test_what_is_fetched_again_is_not_encoded_again(towers, server):
    """A URL says nothing about its content: it is fetched and decoded, and then known by its hash."""
    from support.server import reply

    server.route("/1.png", reply(png(1)))
    server.route("/copy.png", reply(png(1)))
    cache = EncoderCache(20)
    pipeline = towers.pipeline(encoder_cache=cache)
    for path in ("/1.png", "/copy.png", "/1.png"):
        pipeline.run(user(part("image_url", server.url(path))))
    pipeline.run(user(image(1)))
    assert server.count("/1.png") == 2
    assert (len(towers.batches), cache.hits, cache.misses) == (1, 3, 1)


@both_halves
def test_a_uuid_skips_fetching_and_decoding(towers, use_async):
    cache, connector = EncoderCache(20), CountingConnector()
    pipeline = towers.pipeline(encoder_cache=cache, connector=connector)
    first = run(pipeline, user(image(1, "cat"), video(2, 3, uuid="clip"), audio(4, "sound")), use_async)
    calls = connector.calls.copy()
    again = user(
        part("image_url", "https://unreachable.invalid/cat.png", "cat"),
        {"type": "video_url", "uuid": "clip"}, part("input_audio", None, "sound"),
    )  # fmt: skip
    second = run(pipeline, again, use_async)
    assert connector.calls == calls
    assert torch.equal(first.embeddings, second.embeddings)
    assert second.timestamps == first.timestamps == {1: (0.0, 1.0)}
    cache.clear()
    with pytest.raises(PartError, match=r"Message 0, part 1 .* under the uuid 'clip': expected the content"):
        run(pipeline, again[:0] + user(text(""), again[0]["content"][1]), use_async)


def test_a_uuid_is_told_apart_by_modality_preprocessing_and_decoding(towers):
    cache = EncoderCache(20)
    known = {"type": "image_url", "image_url": None, "uuid": "x"}
    towers.pipeline(encoder_cache=cache).run(user(image(1, "x")))
    towers.pipeline(encoder_cache=cache).run(user(known))
    other = EncoderPath(ImagePreprocessor((32, 32)), towers.encode_vision, towers.vision_projector)
    for pipeline, value in (
        (towers.pipeline(encoder_cache=cache), {"type": "video_url", "uuid": "x"}),
        (
            MultimodalPipeline(text_embedder=towers.embed_text, paths={"image": other}, encoder_cache=cache),
            known,
        ),
        (
            towers.pipeline(encoder_cache=cache, connector=MediaConnector({"image": {"max_pixels": 64}})),
            known,
        ),
    ):
        with pytest.raises(PartError, match="nothing is known under the uuid 'x'"):
            pipeline.run(user(value))


def test_identical_bytes_as_image_and_as_frame_are_kept_apart(towers):
    cache = EncoderCache(20)
    picture = part("image_url", data_url("image/jpeg", jpeg(1)))
    stream = towers.pipeline(encoder_cache=cache).run(user(picture, video(1)))
    assert (cache.misses, cache.hits, len(cache)) == (2, 0, 2)
    assert torch.allclose(stream.embeddings_of(0), stream.embeddings_of(1), atol=TOLERANCE)
    assert stream.timestamps == {1: (0.0,)}


def test_other_samples_of_one_clip_are_kept_apart(towers):
    """The same frames at other times are another content."""
    cache = EncoderCache(20)
    still = video(1, 1)
    for options in ({"fps": 1.0}, {"fps": 2.0}, {"num_frames": 1}):
        connector = MediaConnector({"video": options})
        stream = towers.pipeline(encoder_cache=cache, connector=connector).run(user(still))
    assert (cache.misses, cache.hits) == (3, 0)
    assert stream.timestamps == {0: (0.0,)}


def test_one_content_in_one_request_is_encoded_once(towers):
    cache = EncoderCache(20)
    stream = towers.pipeline(encoder_cache=cache).run(user(*[image(1)] * 4))
    assert [shape[0] for shape in towers.batches] == [1]
    assert (cache.misses, cache.hits) == (1, 3)
    assert len(stream) == 4 * IMAGE_TOKENS


@both_halves
def test_requests_at_the_same_time_encode_each_content_once(towers, use_async):
    cache = EncoderCache(50)
    pipeline = towers.pipeline(encoder_cache=cache, max_batch=4)
    requests = [user(*(image(seed) for seed in np.random.default_rng(n).permutation(5))) for n in range(8)]
    if use_async:

        async def all_of_them():
            return await asyncio.gather(*map(pipeline.run_async, requests))

        streams = asyncio.run(all_of_them())
    else:
        with ThreadPoolExecutor(8) as pool:
            streams = list(pool.map(pipeline.run, requests))
    assert sum(shape[0] for shape in towers.batches) == 5
    assert (cache.misses, cache.hits) == (5, 35)
    for request, stream in zip(requests, streams, strict=True):
        assert torch.allclose(stream.embeddings, torch.cat(by_hand(towers, request)), atol=TOLERANCE)


def test_the_capacity_holds_under_eight_threads(towers):
    size = IMAGE_TOKENS * VISION_WIDTH * 4
    cache = EncoderCache(3 * size, unit="bytes")
    pipeline = towers.pipeline(encoder_cache=cache)
    expected = [alone_image(towers, seed) for seed in range(6)]
    sizes = []

    def work(seed):
        chance = np.random.default_rng(seed)
        for number in chance.integers(0, 6, 10):
            stream = pipeline.run(user(image(int(number))))
            sizes.append(cache.bytes)
            assert torch.allclose(stream.embeddings, expected[number], atol=TOLERANCE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert max(sizes) <= 3 * size
    assert cache.evictions > 0


def alone_image(towers, seed):
    return torch.cat(by_hand(towers, user(image(seed))))


def test_a_real_clip_is_placed_with_its_times(towers):
    connector = MediaConnector({"video": {"num_frames": 4}})
    url = data_url("video/mp4", clip(frames=31, rate=10, width=64, height=48))
    stream = towers.pipeline(connector=connector).run(user(part("video_url", url)))
    assert len(stream) == 4 * IMAGE_TOKENS
    assert stream.timestamps == {0: (0.0, 1.0, 2.0, 3.0)}
    expected = torch.cat(by_hand(towers, user(part("video_url", url)), connector))
    assert torch.allclose(stream.embeddings, expected, atol=TOLERANCE)


def test_patches_go_through_qwens_tower_with_their_grids(towers):
    """Pictures of two shapes and a clip, as Qwen2-VL takes them: no projector, patches over time."""
    preprocess = ImagePreprocessor(PixelBudget(64, 512, 8), patch_size=4)
    path = EncoderPath(preprocess, towers.encode_patches)
    pipeline = MultimodalPipeline(text_embedder=towers.embed_text, paths={"image": path})
    stream = pipeline.run(user(image(1), text("a"), image(2, width=16, height=30), video(3, 4, 5), image(6)))
    assert stream.grids == {0: (1, 4, 6), 2: (1, 8, 4), 3: (2, 4, 6), 4: (1, 4, 6)}
    assert [span.stop - span.start for span in stream.spans] == [6, 1, 8, 12, 6]
    assert sorted(towers.batches) == [(1, 32, 96), (1, 48, 96), (2, 24, 96)]
    values, grid = preprocess.patches(Image.fromarray(pixels(2, 16, 30)))
    with torch.no_grad():
        expected = towers.qwen(values, grid_thw=grid).pooler_output
    assert torch.allclose(stream.embeddings_of(2), expected, atol=TOLERANCE)


def test_precomputed_embeddings_go_in_by_their_width(towers):
    placed, projected = torch.randn(3, HIDDEN), torch.randn(2, 4, VISION_WIDTH)
    stream = towers.pipeline().run(
        user(text("a"), part("image_embeds", placed), part("video_embeds", projected))
    )
    assert torch.equal(stream.embeddings_of(1), placed)
    with torch.no_grad():
        expected = towers.vision_projector(projected.flatten(0, 1))
    assert torch.equal(stream.embeddings_of(2), expected)
    bare = MultimodalPipeline(text_embedder=towers.embed_text, paths={})
    assert torch.equal(bare.run(user(part("image_embeds", placed))).embeddings, placed)
    sent = {"image_embeds": placed, "image_grid_thw": [[1, 2, 4]]}
    stream = bare.run(user(part("image_embeds", sent)))
    assert torch.equal(stream.embeddings, placed)
    assert stream.grids == {0: (1, 2, 4)}
    assert towers.batches == []


@pytest.mark.parametrize(
    ("embeds", "fragment"),
    [
        (torch.zeros(2, 7), "width 7 fit nowhere; expected the hidden width 24 or the encoder's, 16"),
        (torch.zeros(7), r"must be floating point of shape \(tokens, width\)"),
        (torch.zeros(2, HIDDEN, dtype=torch.int64), "must be floating point"),
        (torch.full((2, HIDDEN), float("nan")), "NaN or infinite"),
        (torch.full((2, VISION_WIDTH), float("inf")), "NaN or infinite"),
    ],
)
def test_embeddings_that_fit_nowhere_are_refused(towers, embeds, fragment):
    with pytest.raises(ValueError, match=rf"Message 0, part 1 \(image_embeds\): .*{fragment}"):
        towers.pipeline().run(user(text("a"), part("image_embeds", embeds)))


def test_the_stream_has_the_type_of_the_text(towers):
    pipeline = MultimodalPipeline(
        text_embedder=lambda words: towers.embed_text(words).bfloat16(), paths=towers.paths()
    )
    assert pipeline.run(user(image(1), text("a"))).embeddings.dtype == torch.bfloat16
    assert pipeline.run(user(image(1))).embeddings.dtype == torch.float32


def test_run_works_inside_a_running_loop(towers):
    async def notebook():
        return towers.pipeline().run(user(text("a"), image(1)))

    assert len(asyncio.run(notebook())) == 1 + IMAGE_TOKENS


def test_a_connector_of_one_request_is_used_for_it(towers):
    connector = CountingConnector()
    pipeline = towers.pipeline(encoder_cache=EncoderCache(4))
    pipeline.run(user(image(1)), connector=connector)
    asyncio.run(pipeline.run_async(user(image(2)), connector=connector))
    assert connector.calls == {"ImageMediaIO": 2}


BAD_PARTS = [
    (part("image_url", data_url("audio/wav", wav(1))), ValueError, "Failed to load image"),
    (part("audio_url", data_url("image/png", png(1))), ValueError, ""),
    ({"type": "hologram"}, ValueError, "unknown type 'hologram'"),
    (image(1, width=1, height=600_000), LimitExceededError, "VLLM_MAX_IMAGE_PIXELS"),
]


@both_halves
@pytest.mark.parametrize(("value", "error", "fragment"), BAD_PARTS)
def test_a_bad_part_is_one_clear_error(towers, value, error, fragment, use_async):
    cache = EncoderCache(20)
    messages = [*user(text("a")), *user(image(1), value)]
    with pytest.raises(error, match=rf"^Message 1, part 1 \(.*\): .*{fragment}"):
        run(towers.pipeline(encoder_cache=cache), messages, use_async)
    assert cache._flights == {}
    assert len(run(towers.pipeline(encoder_cache=cache), user(image(1)))) == IMAGE_TOKENS


def test_a_modality_without_a_path_is_refused_before_anything_is_fetched(towers):
    connector = CountingConnector()
    pipeline = MultimodalPipeline(
        text_embedder=towers.embed_text, paths={"audio": towers.paths()["audio"]}, connector=connector
    )
    with pytest.raises(PartError, match=r"part 1 \(image_url\): no path for image; .* paths for: audio\."):
        pipeline.run(user(audio(1), image(1)))
    assert connector.calls == {}


def simple(encoder, *, preprocess=None, projector=None, cache=None, **options):
    preprocess = preprocess or ImagePreprocessor((4, 4))
    path = EncoderPath(preprocess, encoder, projector, **options)
    return MultimodalPipeline(
        text_embedder=lambda words: torch.zeros(len(words), 6), paths={"image": path}, encoder_cache=cache
    )


def good(batch):
    return batch.new_ones(len(batch), 5, 6)


BAD_ENCODERS = {
    "an item too few": (
        lambda batch: good(batch)[1:],
        r"a tensor \(1, 5, 6\) for a batch of 2; expected one",
    ),
    "an item too many": (lambda batch: [good(batch)[0]] * 3, "returned 3 items for a batch of 2"),
    "flat": (lambda batch: good(batch).flatten(0, 1), r"a tensor \(10, 6\) for a batch of 2"),
    "no tensors": (lambda batch: "tokens", "returned str for a batch of 2"),
    "nothing": (lambda batch: None, "returned NoneType for a batch of 2"),
    "arrays": (lambda batch: [item.numpy() for item in good(batch)], "must be a tensor .* not ndarray"),
    "integers": (lambda batch: good(batch).long(), "must be floating point"),
    "one dimension": (lambda batch: [item[0] for item in good(batch)], r"shape \(6,\)"),
    "NaN": (lambda batch: good(batch) * float("nan"), "The encoder returned NaN or infinite values"),
    "another width": (lambda batch: good(batch)[:, :, :5], "width 5; the hidden width is 6"),
}


@both_halves
@pytest.mark.parametrize(("encoder", "fragment"), BAD_ENCODERS.values(), ids=BAD_ENCODERS)
def test_an_encoder_that_returns_something_else_is_one_clear_error(encoder, fragment, use_async):
    cache = EncoderCache(4)
    pipeline = simple(encoder, cache=cache)
    with pytest.raises(InvalidArgumentError, match=fragment):
        run(pipeline, user(text("a"), image(1), image(2)), use_async)
    assert cache._flights == {}
    if "hidden width" not in fragment:
        assert len(cache) == 0


def test_rows_and_width_that_were_promised_are_checked():
    def five(batch):
        return good(batch)[:, :, :5]

    with pytest.raises(
        PartError, match=r"part 0 .* returned \(5, 6\) \(tokens, width\) .* expected \(4, 6\)"
    ):
        simple(good, tokens=4).run(user(image(1)))
    with pytest.raises(PartError, match=r"returned \(5, 5\) \(tokens, width\) .* expected \(5, 6\)"):
        simple(five, projector=torch.nn.Linear(6, 6)).run(user(image(1)))
    with pytest.raises(PartError, match=r"projector returned \(4, 6\) for 5 tokens; expected \(5, 6\)"):
        simple(good, projector=lambda tokens: tokens[1:]).run(user(image(1)))
    with pytest.raises(
        PartError, match=r"its projector .* returned tokens of the width 7; the hidden width is 6"
    ):
        simple(good, projector=torch.nn.Linear(6, 7)).run(user(image(1), text("a")))


def test_nan_pixels_are_one_clear_error_wherever_they_come_from():
    def broken(media):
        return torch.full((3, 4, 4), float("nan"))

    with pytest.raises(
        InvalidMediaError, match=r"Message 0, part 1 \(image_url\): NaN or infinite values in the"
    ):
        simple(good, preprocess=broken).run(user(text("a"), image(1)))


@pytest.mark.parametrize("returned", [None, [], Preprocessed(()), "pixels"])
def test_preprocessing_that_returns_no_tensors_is_refused(returned):
    with pytest.raises(PartError, match=r"Preprocessing returned .* expected a tensor"):
        simple(good, preprocess=lambda media: returned).run(user(image(1)))


@pytest.mark.parametrize(
    "embedder", [lambda words: torch.zeros(6), lambda words: None, lambda words: torch.zeros(2, 6).long()]
)
def test_a_text_embedder_that_returns_something_else_is_refused(embedder):
    pipeline = MultimodalPipeline(text_embedder=embedder, paths={})
    with pytest.raises(InvalidArgumentError, match="What the text embedder returns must be"):
        pipeline.run(user(text("a")))


def test_texts_of_different_widths_are_refused():
    widths = iter((4, 5))
    pipeline = MultimodalPipeline(text_embedder=lambda words: torch.zeros(1, next(widths)), paths={})
    with pytest.raises(InvalidArgumentError, match=r"part 1 \(text\) have the width 5, those before them 4"):
        pipeline.run(user(text("a"), text("b")))


def test_the_error_of_an_encoder_keeps_its_type_and_is_not_cached():
    calls = []

    def encoder(batch):
        calls.append(len(batch))
        if len(calls) < 3:
            raise MemoryError("out of memory")
        return good(batch)

    cache = EncoderCache(4)
    pipeline = simple(encoder, cache=cache)
    with pytest.raises(MemoryError, match=r"^Message 0, part 0 \(image_url\): out of memory"):
        pipeline.run(user(image(1)))
    with pytest.raises(
        MemoryError, match=r"^out of memory"
    ):  # of two parts it is not known whose fault it was
        pipeline.run(user(image(1), image(2)))
    assert len(pipeline.run(user(image(1), image(2)))) == 10
    assert calls == [1, 2, 2]


def test_a_failing_part_of_another_request_disturbs_nobody():
    """A shared batch fails; the request that waits for the good half of it encodes that itself."""
    entered, go_on = threading.Event(), threading.Event()

    def encoder(batch):
        if len(batch) > 1:
            entered.set()
            assert go_on.wait(30)
            raise RuntimeError("one of them is bad")
        return good(batch)

    cache = EncoderCache(4)
    pipeline = simple(encoder, cache=cache)
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(pipeline.run, user(image(1), image(2)))
        assert entered.wait(30)
        fine = pool.submit(pipeline.run, user(image(1)))
        while not any(flight.waiters for flight in cache._flights.values()):
            pass
        go_on.set()
        assert len(fine.result()) == 5
        assert "one of them is bad" in str(bad.exception())
    assert (len(cache), cache._flights) == (1, {})


def test_an_error_of_one_part_reaches_the_request_that_waits_for_it():
    entered, go_on = threading.Event(), threading.Event()

    def encoder(batch):
        entered.set()
        assert go_on.wait(30)
        raise RuntimeError("bad")

    cache = EncoderCache(4)
    pipeline = simple(encoder, cache=cache)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pipeline.run, user(image(1)))
        assert entered.wait(30)
        second = pool.submit(pipeline.run, user(text("a"), image(1)))
        while not any(flight.waiters for flight in cache._flights.values()):
            pass
        go_on.set()
        assert str(first.exception()) == "Message 0, part 0 (image_url): bad"
        assert str(second.exception()) == "Message 0, part 1 (image_url): bad"


def test_a_medium_without_a_content_hash_is_encoded_each_time():
    """Loaders of third parties may return what their engine takes."""

    class Opaque(CountingConnector):
        def fetch_image(self, url, **kwargs):
            return object()

    calls = []
    cache = EncoderCache(4)
    pipeline = simple(
        lambda batch: calls.append(len(batch)) or good(batch),
        preprocess=lambda media: torch.zeros(3, 4, 4), cache=cache,
    )  # fmt: skip
    for _ in range(2):
        pipeline.run(user(part("image_url", "https://example.org/x")), connector=Opaque())
    assert (calls, len(cache)) == ([1, 1], 0)


def test_what_the_cache_holds_is_the_callers_to_change_nothing_of():
    cache = EncoderCache(4)
    shared = torch.ones(16, 5, 6)
    pipeline = simple(lambda batch: shared[: len(batch)], cache=cache)
    stream = pipeline.run(user(image(1)))
    stream.embeddings.zero_()
    shared.zero_()
    assert torch.equal(pipeline.run(user(image(1))).embeddings, torch.ones(5, 6))
    assert cache.bytes == 5 * 6 * 4
    (entry,) = cache._entries.values()
    assert entry.tokens.untyped_storage().nbytes() == cache.bytes


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"paths": {"smell": None}}, "Unknown modality 'smell'"),
        ({"paths": {"image": good}}, "path of image must be an EncoderPath, not function"),
        ({"text_embedder": "words"}, "text_embedder must be callable, not str"),
        ({"hidden_size": 0}, "hidden_size must be a positive integer"),
        ({"max_concurrency": 0}, "max_concurrency must be a positive integer"),
    ],
)
def test_arguments_out_of_place_are_refused(options, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        MultimodalPipeline(**{"text_embedder": good, "paths": {}, **options})


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"max_batch": 0}, "max_batch must be a positive integer"),
        ({"tokens": 0}, "tokens must be a positive integer"),
        ({"encoder": 5}, "An encoder must be callable, not int"),
        ({"preprocess": 5}, "Expected a preprocessor, not int"),
        ({"projector": 5}, "A projector must be callable, not int"),
    ],
)
def test_paths_out_of_place_are_refused(options, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        EncoderPath(**{"preprocess": ImagePreprocessor(4), "encoder": good, **options})


def test_messages_without_parts_are_refused():
    for messages in ([], [{"role": "assistant"}]):
        with pytest.raises(InvalidArgumentError, match="no content parts"):
            simple(good).run(messages)


def test_a_projector_knows_its_widths():
    assert repr(Projector(torch.nn.Linear(4, 8))) == "Projector(4 -> 8)"
    assert repr(Projector(torch.relu)) == "Projector(? -> ?)"
    assert repr(Projector(torch.relu, 3, 3)) == "Projector(3 -> 3)"
    with pytest.raises(InvalidArgumentError, match="have the width 5, the projector takes 4"):
        Projector(torch.nn.Linear(4, 8))(torch.zeros(2, 5))
    with pytest.raises(InvalidArgumentError, match=r"returned \(2, 4\) for 2 tokens; expected \(2, 3\)"):
        Projector(torch.relu, None, 3)(torch.zeros(2, 4))


def test_frames_of_different_width_in_one_part_are_refused():
    widths = iter((5, 6))

    def encoder(batch):
        return torch.ones(1, 2, next(widths))

    pipeline = simple(encoder, max_batch=1)
    with pytest.raises(PartError, match=r"different widths for one part: \[5, 6\]"):
        pipeline.run(user(video(1, 2)))
