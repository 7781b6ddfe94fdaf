"""Chat messages to content parts, in order."""

import numbers
import re
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mmmedia.errors import InvalidArgumentError, PartError

Modality = Literal["text", "image", "video", "audio"]

_MODALITIES: dict[str, Modality] = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "text",
    "thinking": "text",
    "image_url": "image",
    "input_image": "image",
    "video_url": "video",
    "audio_url": "audio",
    "input_audio": "audio",
    "image_embeds": "image",
    "video_embeds": "video",
    "audio_embeds": "audio",
}
_KEYS = (
    "image_url", "image_embeds", "video_embeds", "audio_embeds", "audio_url", "input_audio", "video_url",
    "input_image", "text", "refusal", "thinking", "input_text", "output_text",
)  # fmt: skip
"""By which a part without a type is known, the first that it has."""
_VALUE_KEYS = {"input_text": "text", "output_text": "text", "input_image": "image_url"}
"""Where the value stands if not under the type's own name."""
_AUDIO_FORMAT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,31}")


@dataclass(frozen=True, eq=False)
class ContentPart:
    """One part of a request: text, something to fetch, or precomputed embeddings.

    Attributes:
        type: as in the message, or what its keys say: `text` (`input_text`, `output_text`, `refusal`,
            `thinking`), `image_url` (`input_image`), `video_url`, `audio_url`, `input_audio`, `image_embeds`,
            `video_embeds` or `audio_embeds`.
        content: the text; the URL (of `input_audio` the data URL); of embeddings the base64 text, the
            tensor or array itself, or a dictionary of these by the name of what the model takes. `None` where
            only the `uuid` is given.
        message_index: index of the message.
        part_index: index of the part in that message.
        role: who the message is from, as the message says.
        uuid: the caller's name for the content: parts of equal uuid have equal content.
        detail: what the message asks of an image: `low`, `high`, `auto`; handed on as it came.
    """

    type: str
    content: Any = field(repr=False)
    message_index: int = 0
    part_index: int = 0
    role: str = "user"
    uuid: str | None = None
    detail: str | None = None

    @property
    def modality(self) -> Modality:
        """What kind of media it is, or `text`."""
        return _MODALITIES[self.type]

    @property
    def text(self) -> str | None:
        """The text of a text part."""
        return self.content if self.modality == "text" else None

    @property
    def url(self) -> str | None:
        """The URL of a part that has one."""
        return None if self.modality == "text" or self.is_embedding else self.content

    @property
    def is_embedding(self) -> bool:
        """Whether it holds precomputed embeddings."""
        return self.type.endswith("_embeds")

    def error(self, error: Exception) -> PartError:
        """Return `error` as the error of this part; one that is so already stays as it is."""
        if isinstance(error, PartError):
            return error
        return PartError.around(error, self.message_index, self.part_index, self.type)


def parse_messages(messages: Sequence[Mapping[str, Any]]) -> list[ContentPart]:
    """Return the content parts of OpenAI-style chat messages, in the order in which they stand.

    A message has a `role` and a `content`: text, nothing, or a list of parts

    * a text, or ``{"type": "text", "text": …}``, likewise `input_text`, `output_text`,
      ``{"type": "refusal", "refusal": …}`` and `thinking`
    * ``{"type": "image_url", "image_url": {"url": …, "detail": …}}``, likewise `video_url` and `audio_url`;
      the URL may stand there bare; ``{"type": "input_image", "image_url": …, "detail": …}``
    * ``{"type": "input_audio", "input_audio": {"data": <base64 or a data URL>, "format": "wav"}}``
    * ``{"type": "image_embeds", "image_embeds": <base64 of a tensor, or a tensor>}``, likewise `video_embeds`
      and `audio_embeds`; or a dictionary of them, ``{"image_embeds": …, "image_grid_thw": …}``

    each with an optional `uuid`; without a `type` a part is known by its key. What has a `uuid` may have
    `None` for its content: it is then taken from the encoder cache.

    Raises:
        InvalidArgumentError: (a `ValueError`) an unknown or malformed message or part; for a part a
            `PartError` that names message and part.

    >>> parts = parse_messages([{"role": "user", "content": [
    ...     {"type": "text", "text": "What is this?"},
    ...     {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}, "uuid": "cat"},
    ... ]}])
    >>> [(part.modality, part.content, part.uuid) for part in parts]
    [('text', 'What is this?', None), ('image', 'https://example.org/cat.png', 'cat')]
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidArgumentError(f"Expected a list of messages, not {_shown(messages)}.")
    return [part for index, message in enumerate(messages) for part in _parse_message(index, message)]


def _parse_message(index: int, message: object) -> Iterator[ContentPart]:
    if not isinstance(message, Mapping):
        raise InvalidArgumentError(f"Message {index}: expected a dictionary, not {_shown(message)}.")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise InvalidArgumentError(f"Message {index}: expected a role as text, not {_shown(role)}.")
    if content is None:
        return
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, (list, tuple)):
        raise InvalidArgumentError(
            f"Message {index}: expected content that is text or a list of parts, not {_shown(content)}."
        )
    for part_index, part in enumerate(content):
        try:
            yield _parse_part(part, index, part_index, role)
        except InvalidArgumentError as error:
            kind = _kind(part) if isinstance(part, Mapping) else None
            kind = kind if isinstance(kind, str) and kind in _MODALITIES else "content part"
            raise PartError.around(error, index, part_index, kind) from error


def _parse_part(part: object, message_index: int, part_index: int, role: str) -> ContentPart:
    if isinstance(part, str):
        return ContentPart("text", part, message_index, part_index, role)
    if not isinstance(part, Mapping):
        raise InvalidArgumentError(f"expected text or a dictionary with a type, not {_shown(part)}.")
    kind, uuid = _kind(part), _uuid(part.get("uuid"))
    if not isinstance(kind, str) or kind not in _MODALITIES:
        raise InvalidArgumentError(f"unknown type {_shown(kind)}; expected one of {', '.join(_MODALITIES)}.")
    key = kind if kind in part else _VALUE_KEYS.get(kind, kind)
    value = part.get(key)
    detail = None
    if _MODALITIES[kind] == "text":
        content: object = _text(key, value)
    elif uuid is not None and (value is None or value in ("", {"url": ""}, {"url": None})):
        content = None
    elif kind == "input_audio":
        content = _audio_data_url(value)
    elif kind.endswith("_embeds"):
        content = _embeddings(kind, value)
    else:
        content, detail = _url_and_detail(key, value, part.get("detail"))
    return ContentPart(kind, content, message_index, part_index, role, uuid, detail)


def _kind(part: Mapping[str, Any]) -> object:
    """Return the type of a part; one that says none is known by its key."""
    kind: object = part.get("type")
    return next((key for key in _KEYS if key in part), None) if kind is None else kind


def _uuid(value: object) -> str | None:
    """Return the text of a uuid, `None` for none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float, uuids.UUID)):
        raise InvalidArgumentError(f"expected a uuid that is text or a number, not {_shown(value)}.")
    return str(value) or None


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"expected {key!r} to be text, not {_shown(value)}.")
    return value


def _url_and_detail(kind: str, value: object, detail: object) -> tuple[str, str | None]:
    url: object = value.get("url") if isinstance(value, Mapping) else value
    detail = value.get("detail", detail) if isinstance(value, Mapping) else detail
    if not isinstance(url, str) or not url:
        raise InvalidArgumentError(
            f"expected {kind!r} to be a URL or {{'url': <URL>}} (or None and a uuid), not {_shown(value)}."
        )
    if detail is not None and not isinstance(detail, str):
        raise InvalidArgumentError(f"expected 'detail' to be text, not {_shown(detail)}.")
    return url, detail


def _audio_data_url(value: object) -> str:
    if not isinstance(value, Mapping) or not isinstance(value.get("data"), str) or not value["data"]:
        raise InvalidArgumentError(
            "expected 'input_audio' to be {'data': <base64>, 'format': <such as wav>}, "
            f"not {_shown(value)}."
        )
    data, audio_format = value["data"], value.get("format")
    if data[:5].lower() == "data:":  # which says itself what it is
        return str(data)
    if not isinstance(audio_format, str) or not _AUDIO_FORMAT.fullmatch(audio_format):
        raise InvalidArgumentError(f"expected 'format' to name an audio format, not {_shown(audio_format)}.")
    return f"data:audio/{audio_format};base64,{data}"


def _embeddings(kind: str, value: object) -> object:
    if _is_tensor(value) or (isinstance(value, str) and value):
        return value
    if isinstance(value, Mapping) and kind in value and all(map(_may_be_tensor, value.values())):
        return dict(value)
    raise InvalidArgumentError(
        f"expected {kind!r} to be the base64 text of a tensor, a tensor, or a dictionary of these that has "
        f"{kind!r}, not {_shown(value)}."
    )


def _may_be_tensor(value: object) -> bool:
    """Say whether a value in a dictionary of embeddings is a tensor, base64 text, or lists of numbers."""
    return _is_tensor(value) or (isinstance(value, str) and bool(value)) or _is_numbers(value)


def _is_numbers(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(item, numbers.Real) or _is_numbers(item) for item in value
    )


def _is_tensor(value: object) -> bool:
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "torch"


def _shown(value: object) -> str:
    """Return a value as it may stand in a message: short, and of media no bytes."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)[:64]
    if isinstance(value, str):
        return repr(value if len(value) <= 32 else value[:31] + "…")
    if isinstance(value, Mapping):
        return f"a dictionary with the keys {sorted(map(str, value))[:8]}"[:128]
    return f"a {type(value).__name__}"
