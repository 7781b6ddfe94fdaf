"""Messages become parts in order; parts become media side by side, or one clear error."""

import asyncio
import base64
import io
import pickle
import threading
import uuid

import numpy as np
import pytest
import requests
import torch

from mmmedia.errors import InvalidArgumentError, InvalidURLError, MediaError, PartError
from mmmedia.media import MediaConnector, MediaWithBytes
from mmmedia.pipeline import ContentPart, parse_messages, resolve_parts, resolve_parts_async
from support.requests_of_media import (
    CountingConnector,
    ScriptedConnector,
    audio,
    data_url,
    image,
    part,
    png,
    text,
    user,
    video,
    wav,
)
from support.server import Server, reply

URL = "https://example.org/cat.png"
TENSOR = torch.arange(6.0).reshape(2, 3)


def base64_of(tensor):
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def resolve(parts, connector, use_async, **kwargs):
    if use_async:
        return asyncio.run(resolve_parts_async(parts, connector, **kwargs))
    return resolve_parts(parts, connector, **kwargs)


both_halves = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])


def test_parts_keep_their_order_over_all_messages():
    parts = parse_messages(
        [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [text("first"), part("image_url", URL), text("then"), part("audio_url", URL)],
            },
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "assistant"},
            {"role": "user", "content": None},
            {"role": "tool"},
            {"role": "user", "content": (part("video_url", {"url": URL}), text(""))},
        ]
    )
    assert [(p.role, p.message_index, p.part_index, p.type, p.modality) for p in parts] == [
        ("system", 0, 0, "text", "text"),
        ("user", 1, 0, "text", "text"),
        ("user", 1, 1, "image_url", "image"),
        ("user", 1, 2, "text", "text"),
        ("user", 1, 3, "audio_url", "audio"),
        ("user", 6, 0, "video_url", "video"),
        ("user", 6, 1, "text", "text"),
    ]
    assert [p.text for p in parts] == ["Be brief.", "first", None, "then", None, None, ""]
    assert [p.url for p in parts] == [None, None, URL, None, URL, URL, None]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (part("image_url", URL), ("image", URL, None, None)),
        (part("image_url", {"url": URL, "detail": "low"}, "u"), ("image", URL, "low", "u")),
        (part("image_url", None, "u"), ("image", None, None, "u")),
        ({"type": "video_url", "uuid": "u"}, ("video", None, None, "u")),
        (part("video_url", {"url": URL}), ("video", URL, None, None)),
        (part("audio_url", URL, None), ("audio", URL, None, None)),
        (
            part("input_audio", {"data": "QUJD", "format": "wav"}),
            ("audio", "data:audio/wav;base64,QUJD", None, None),
        ),
        (part("image_embeds", "QUJD"), ("image", "QUJD", None, None)),
        (part("video_embeds", TENSOR), ("video", TENSOR, None, None)),
        (part("audio_embeds", None, "u"), ("audio", None, None, "u")),
        ("bare", ("text", "bare", None, None)),
        (part("refusal", "no"), ("text", "no", None, None)),
        (part("thinking", "hm"), ("text", "hm", None, None)),
        ({"type": "input_text", "text": "in"}, ("text", "in", None, None)),
        ({"type": "output_text", "text": "out", "annotations": []}, ("text", "out", None, None)),
        ({"type": "input_image", "image_url": URL, "detail": "high"}, ("image", URL, "high", None)),
        ({"type": "input_image", "image_url": {"url": URL, "detail": "low"}}, ("image", URL, "low", None)),
        ({"image_url": URL, "uuid": "u"}, ("image", URL, None, "u")),
        ({"text": "no type"}, ("text", "no type", None, None)),
        ({"refusal": "no"}, ("text", "no", None, None)),
        ({"type": None, "video_url": {"url": URL}}, ("video", URL, None, None)),
        (
            {"input_audio": {"data": "QUJD", "format": "mp3"}},
            ("audio", "data:audio/mp3;base64,QUJD", None, None),
        ),
        ({"audio_embeds": "QUJD"}, ("audio", "QUJD", None, None)),
        (part("image_url", URL, 7), ("image", URL, None, "7")),
        (part("image_url", URL, 0), ("image", URL, None, "0")),
        (part("image_url", URL, 1.5), ("image", URL, None, "1.5")),
        (part("image_url", URL, uuid.UUID(int=5)), ("image", URL, None, str(uuid.UUID(int=5)))),
        (part("image_url", URL, ""), ("image", URL, None, None)),
        (part("image_url", {"url": ""}, "u"), ("image", None, None, "u")),
        (
            part("input_audio", {"data": "data:audio/ogg;base64,QUJD"}),
            ("audio", "data:audio/ogg;base64,QUJD", None, None),
        ),
        (
            part("input_audio", {"data": "DATA:audio/ogg;base64,QUJD", "format": "wav"}),
            ("audio", "DATA:audio/ogg;base64,QUJD", None, None),
        ),
        (
            part("image_embeds", {"image_embeds": "QUJD", "image_grid_thw": [[1, 2, 2]]}),
            ("image", {"image_embeds": "QUJD", "image_grid_thw": [[1, 2, 2]]}, None, None),
        ),
    ],
)
def test_every_kind_of_part_is_read(value, expected):
    (found,) = parse_messages(user(value))
    assert (found.modality, found.content, found.detail, found.uuid) == expected


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (
            {"type": "hologram"},
            "unknown type 'hologram'; expected one of text, input_text, .*, image_url, input_image",
        ),
        ({"type": "x" * 100}, "unknown type 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"),
        ({"type": ["text"]}, "unknown type a list"),
        (
            {},
            "unknown type None; expected one of text, input_text, output_text, refusal, thinking, image_url",
        ),
        ({"hologram": URL}, "unknown type None"),
        (None, "expected text or a dictionary with a type, not None"),
        (7, "not 7"),
        ({"type": "text"}, "expected 'text' to be text, not None"),
        (part("text", ["a"]), "expected 'text' to be text, not a list"),
        ({"type": "image_url"}, "expected 'image_url' to be a URL"),
        (part("image_url", ""), "expected 'image_url' to be a URL"),
        (
            part("image_url", {"href": URL}),
            r"expected 'image_url' to be a URL .* not a dictionary with the keys",
        ),
        (part("image_url", {"url": 5}), "expected 'image_url' to be a URL"),
        (part("image_url", {"url": URL, "detail": 3}), "expected 'detail' to be text, not 3"),
        (part("video_url", b"x"), "expected 'video_url' to be a URL .* not a bytes"),
        (part("audio_url", URL, True), "expected a uuid that is text or a number, not True"),
        (part("audio_url", URL, ["u"]), "expected a uuid that is text or a number, not a list"),
        (part("audio_url", None, ""), "expected 'audio_url' to be a URL"),
        ({"type": "input_text"}, "expected 'text' to be text, not None"),
        (part("refusal", None), "expected 'refusal' to be text, not None"),
        ({"type": "input_image", "file_id": "f"}, "expected 'image_url' to be a URL"),
        (part("input_audio", "QUJD"), "expected 'input_audio' to be {'data'"),
        (part("input_audio", {"data": "", "format": "wav"}), "expected 'input_audio' to be {'data'"),
        (part("input_audio", {"data": "QUJD"}), "expected 'format' to name an audio format, not None"),
        (part("input_audio", {"data": "QUJD", "format": "wav;x,"}), "expected 'format'"),
        (part("image_embeds", {"a": "QUJD"}), "expected 'image_embeds' to be the base64 text of a tensor"),
        (part("image_embeds", {"image_embeds": "QUJD", "n": [["x"]]}), "expected 'image_embeds' to be"),
        (part("image_embeds", {"image_embeds": 5}), "expected 'image_embeds' to be"),
        (part("image_embeds", ""), "expected 'image_embeds'"),
        (part("audio_embeds", None), "expected 'audio_embeds'"),
    ],
)
def test_a_malformed_part_is_named_with_what_was_expected(value, fragment):
    messages = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": [text("b"), text("c"), value]},
    ]
    with pytest.raises(ValueError, match=rf"^Message 1, part 2 \(.*\): .*{fragment}") as caught:
        parse_messages(messages)
    assert isinstance(caught.value, PartError)
    assert (caught.value.message_index, caught.value.part_index) == (1, 2)


@pytest.mark.parametrize(
    ("messages", "fragment"),
    [
        ("hello", "list of messages, not 'hello'"),
        ({"role": "user", "content": "a"}, "list of messages, not a dictionary"),
        (None, "list of messages, not None"),
        (["hello"], "Message 0: expected a dictionary, not 'hello'"),
        ([{"content": "a"}], "Message 0: expected a role as text, not None"),
        (
            [{"role": "user", "content": 7}],
            "Message 0: expected content that is text or a list of parts, not 7",
        ),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": 5}], "Message 1: expected content"),
        ([{"role": "user", "content": text("a")}], "Message 0: expected content"),
    ],
)
def test_malformed_messages_are_refused(messages, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        parse_messages(messages)


def test_a_part_shows_no_media_bytes():
    (found,) = parse_messages(user(image(1)))
    assert "base64" not in repr(found)


@both_halves
def test_all_kinds_resolve_in_part_order(use_async):
    sound = {"data": base64.b64encode(wav(5)).decode(), "format": "wav"}
    messages = user(
        text("a"), image(1), audio(2), video(3, 4), part("input_audio", sound),
        part("image_embeds", base64_of(TENSOR)), part("video_embeds", TENSOR),
        part("audio_embeds", TENSOR.numpy()), text("z"),
    )  # fmt: skip
    resolved = resolve(parse_messages(messages), MediaConnector(), use_async)
    assert [item.modality for item in resolved] == [
        "text", "image", "audio", "video", "audio", "image", "video", "audio", "text",
    ]  # fmt: skip
    media = [item.media for item in resolved]
    assert media[0] == "a"
    assert media[8] == "z"
    assert isinstance(media[1], MediaWithBytes)
    assert media[1].original_bytes == png(1)
    assert media[2][1] == media[4][1] == 16_000
    assert media[3][0].shape == (2, 16, 24, 3)
    assert media[3][1]["frames_indices"] == [0, 1]
    assert all(torch.equal(item, TENSOR) for item in media[5:8])


@both_halves
def test_embeddings_in_a_dictionary_become_tensors_by_name(use_async):
    value = {
        "image_embeds": base64_of(TENSOR),
        "image_grid_thw": [[1, 2, 4]],
        "scale": [0.5, 1.5],
        "mask": np.array([True, False]),
        "extra": base64_of(TENSOR * 2),
    }
    (found,) = resolve(parse_messages(user(part("image_embeds", value))), MediaConnector(), use_async)
    assert list(found.media) == list(value)
    assert torch.equal(found.media["image_embeds"], TENSOR)
    assert torch.equal(found.media["extra"], TENSOR * 2)
    assert found.media["image_grid_thw"].dtype == torch.int64
    assert found.media["image_grid_thw"].tolist() == [[1, 2, 4]]
    assert found.media["scale"].dtype == torch.float64
    assert found.media["mask"].dtype == torch.bool


@both_halves
def test_lists_that_are_no_tensor_are_refused(use_async):
    value = {"image_embeds": base64_of(TENSOR), "image_grid_thw": [[1, 2], [3]]}
    with pytest.raises(PartError, match="Lists of numbers that are no tensor"):
        resolve(parse_messages(user(part("image_embeds", value))), MediaConnector(), use_async)


@both_halves
def test_results_stand_in_part_order_whichever_comes_first(use_async):
    connector = ScriptedConnector()
    parts = parse_messages(user(*(part("image_url", name) for name in "abcd")))

    def release():
        for name in "dbca":
            assert connector.event(f"started {name}").wait(30)
            connector.event(name).set()

    releaser = threading.Thread(target=release)
    releaser.start()
    resolved = resolve(parts, connector, use_async)
    releaser.join()
    assert [item.media for item in resolved] == [f"media of {name}" for name in "abcd"]
    assert connector.most == 4


@both_halves
def test_no_more_than_so_many_are_fetched_at_a_time(use_async, monkeypatch):
    names = [str(number) for number in range(12)]
    for limit, setting in ((3, None), (None, "2")):
        connector = ScriptedConnector()
        for name in names:
            connector.event(name).set()
        if setting:
            monkeypatch.setenv("VLLM_MM_FETCH_CONCURRENCY", setting)
        parts = parse_messages(user(*(part("image_url", name) for name in names)))
        resolve(parts, connector, use_async, max_concurrency=limit)
        assert connector.most <= (limit or 2)
        assert sorted(connector.started) == sorted(names)


@both_halves
def test_the_first_failure_names_its_part_and_ends_the_rest(use_async):
    """Two slots: one transfer that never ends, one that fails, two that must never begin."""
    connector = ScriptedConnector()
    connector.event("bad").set()
    parts = parse_messages(
        user(*(part("image_url", name) for name in ("slow", "fail:bad", "never", "nor this")))
    )
    with pytest.raises(TimeoutError, match=r"Message 0, part 1 \(image_url\): no fail:bad") as caught:
        resolve(parts, connector, use_async, max_concurrency=2)
    connector.event("slow").set()
    assert isinstance(caught.value, PartError)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert caught.value.part_index == 1
    assert sorted(connector.started) == ["fail:bad", "slow"]
    assert connector.cancelled == (["slow"] if use_async else [])


def test_cancelling_the_request_cancels_its_transfers():
    connector = ScriptedConnector()

    async def run():
        parts = parse_messages(user(*(part("image_url", name) for name in ("a", "b"))))
        task = asyncio.create_task(resolve_parts_async(parts, connector))
        while len(connector.started) < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert sorted(connector.cancelled) == ["a", "b"]


@both_halves
@pytest.mark.parametrize(
    ("value", "error", "fragment"),
    [
        (part("image_url", data_url("audio/wav", wav(1))), ValueError, "Failed to load image"),
        (part("audio_url", data_url("image/png", png(1))), ValueError, "audio"),
        (
            part("image_url", "gopher://example.org/"),
            InvalidURLError,
            "must be either a HTTP, data or file URL",
        ),
        (part("image_url", "file:///etc/passwd"), RuntimeError, "allowed-local-media-path"),
        (part("image_url", "data:image/png,abc"), NotImplementedError, "Only base64 data URLs"),
        (part("image_embeds", "QUJD"), ValueError, ""),
        (part("image_url", None, "unheard of"), ValueError, "nothing is known under the uuid 'unheard of'"),
        (part("image_embeds", np.array(["a"])), ValueError, "An array of <U1 is no embedding"),
    ],
)
def test_errors_of_media_keep_their_type_and_name_their_part(value, error, fragment, use_async):
    parts = parse_messages([*user(text("a")), *user(image(1), value)])
    with pytest.raises(error, match=rf"^Message 1, part 1 \({value['type']}\): .*{fragment}") as caught:
        resolve(parts, MediaConnector(), use_async)
    assert isinstance(caught.value, MediaError)


def test_network_errors_keep_their_type_and_name_their_part(server: Server, monkeypatch):
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    server.route("/missing.png", reply(status=404))
    server.route("/cat.png", reply(png(1)))
    urls = [server.url("/cat.png"), server.url("/missing.png")]
    parts = parse_messages(user(*(part("image_url", url) for url in urls)))
    with pytest.raises(requests.HTTPError, match=r"^Message 0, part 1 \(image_url\): .*404") as caught:
        resolve_parts(parts)
    assert caught.value.response.status_code == 404
    assert resolve_parts(parts[:1])[0].media.size == (24, 16)


def test_methods_that_a_connector_overrides_are_used():
    """Code for vLLM subclasses the connector in either half."""
    connector = CountingConnector()
    parts = parse_messages(user(image(1), image(1), audio(2)))
    resolve_parts(parts, connector)
    asyncio.run(resolve_parts_async(parts, connector))
    assert connector.calls == {"ImageMediaIO": 4, "AudioMediaIO": 2}


@pytest.mark.parametrize("limit", [0, -1, True, "4"])
def test_a_concurrency_that_is_no_positive_integer_is_refused(limit):
    with pytest.raises(InvalidArgumentError, match="max_concurrency must be a positive integer"):
        resolve_parts([], max_concurrency=limit)


class PickyError(ValueError):
    """Can't be made from a text."""

    def __new__(cls, *, code):
        return super().__new__(cls)

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class FinalError(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


@pytest.mark.parametrize(
    "failure", [ValueError("bad"), KeyError("k"), OSError(2, "missing", "name"),
                requests.Timeout("late", request=7), MemoryError("m"),
                UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")],
    ids=lambda failure: type(failure).__name__,
)  # fmt: skip
def test_the_error_of_a_part_is_of_the_type_of_the_failure(failure):
    error = ContentPart("image_url", URL, 2, 3).error(failure)
    assert isinstance(error, type(failure))
    assert isinstance(error, PartError)
    assert str(error) == f"Message 2, part 3 (image_url): {failure}"
    assert vars(failure).items() <= vars(error).items()
    assert error.__cause__ is failure
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.part_index) == (str(error), 3)


@pytest.mark.parametrize(
    "failure", [PickyError(code=7), FinalError("f")], ids=lambda failure: type(failure).__name__
)
def test_failures_that_nothing_can_be_made_like_are_still_named(failure):
    error = ContentPart("image_url", URL, 2, 3).error(failure)
    assert isinstance(error, PartError)
    assert str(error) == f"Message 2, part 3 (image_url): {failure}"
    assert ContentPart("image_url", URL, 5, 6).error(error) is error


def test_a_failure_without_words_is_called_by_its_name():
    assert (
        str(ContentPart("image_url", URL).error(TimeoutError()))
        == "Message 0, part 0 (image_url): TimeoutError"
    )
