"""Models and processors of transformers as they are: the decoder is given what the model would give it."""

import asyncio
import base64
import io
import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mmmedia.errors import InvalidArgumentError, PartError
from mmmedia.media import MediaConnector
from mmmedia.pipeline import MultimodalPipeline, PretrainedPipeline
from support import needs
from support.clips import clip, picture
from support.sounds import encode, sine

transformers = pytest.importorskip("transformers")

from support import tiny_models, whole_videos  # noqa: E402  # after what they need


def image(number: int, width: int = 80, height: int = 60) -> Image.Image:
    return Image.fromarray(picture(number, width, height))


def image_part(number: int, **size: int) -> dict:
    buffer = io.BytesIO()
    image(number, **size).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def their_image(number: int, **size: int) -> dict:
    return {"type": "image", "image": image(number, **size)}


def chat(image_part) -> list[dict]:
    return [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Compare"},
                image_part(1),
                image_part(2, width=100, height=70),
                {"type": "text", "text": "please."},
            ],
        },
        {"role": "assistant", "content": "They differ."},
        {"role": "user", "content": [image_part(3), {"type": "text", "text": "And this?"}]},
    ]


def logits_of_its_own(model, processor, messages, **options):
    inputs = processor.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **{"add_generation_prompt": True, **options},
    )
    with torch.no_grad():
        return inputs["input_ids"][0], model(**inputs).logits


def logits_by_decoder(model, stream):
    with torch.no_grad():
        return model.lm_head(model.get_decoder()(**stream.decoder_inputs()).last_hidden_state)


@pytest.fixture(scope="module")
def llava():
    return tiny_models.llava()


@pytest.fixture(scope="module")
def qwen():
    needs.torchvision()
    return tiny_models.qwen2_5_vl(videos=True)


@pytest.mark.parametrize("name", ["llava", "qwen"])
def test_logits_are_those_of_the_model_by_itself(name, request):
    model, processor = request.getfixturevalue(name)
    ids, expected = logits_of_its_own(model, processor, chat(their_image))
    stream = MultimodalPipeline.from_pretrained((model, processor)).run(chat(image_part))
    assert torch.equal(stream.input_ids, ids)
    assert torch.equal(logits_by_decoder(model, stream), expected)
    with torch.no_grad():
        assert torch.equal(model(**stream.decoder_inputs()).logits, expected)
    other = chat(image_part)
    other[3]["content"][0] = image_part(4)
    changed = MultimodalPipeline.from_pretrained((model, processor)).run(other)
    assert not torch.equal(logits_by_decoder(model, changed), expected)


def test_spans_tell_media_from_text(llava):
    stream = MultimodalPipeline.from_pretrained(llava).run(chat(image_part))
    assert [(span.modality, span.part_index) for span in stream.spans] == [
        ("text", -1), ("image", 2), ("image", 3), ("text", -1), ("image", 6), ("text", -1),
    ]  # fmt: skip
    assert [span.stop - span.start for span in stream.spans if span.modality == "image"] == [16] * 3
    assert stream.spans[0].start == 0
    assert stream.spans[-1].stop == len(stream) == len(stream.input_ids) == len(stream.attention_mask)
    assert torch.equal(stream.position_ids, torch.arange(len(stream)))


def test_positions_of_three_axes_and_grids_come_along(qwen, tmp_path: Path, monkeypatch):
    model, processor = qwen
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(frames=50, width=112, height=84))
    connector = MediaConnector(allowed_local_media_path=tmp_path)
    pipeline = MultimodalPipeline.from_pretrained(
        {"model": model, "processor": processor}, connector=connector
    )
    question = {"type": "text", "text": "What happens?"}
    video = {"type": "video_url", "video_url": {"url": path.as_uri()}}
    stream = pipeline.run([{"role": "user", "content": [image_part(1), video, question]}])
    assert stream.position_ids.shape == (3, len(stream))
    assert not torch.equal(stream.position_ids[0], stream.position_ids[2])
    assert set(stream.grids) == {0, 1}
    assert [span.part_index for span in stream.spans if span.modality != "text"] == [0, 1]
    assert len(stream.timestamps[1]) == 8
    whole_videos.use_for(processor.video_processor, monkeypatch)
    theirs = {"type": "video", "path": str(path)}
    ids, expected = logits_of_its_own(
        model, processor, [{"role": "user", "content": [their_image(1), theirs, question]}]
    )
    assert torch.equal(stream.input_ids, ids)
    assert torch.equal(logits_by_decoder(model, stream), expected)
    with torch.no_grad():
        by_embeddings_alone = model(inputs_embeds=stream.embeddings[None]).logits
    assert not torch.equal(by_embeddings_alone, expected)


def test_both_ways_give_the_same(llava):
    pipeline = MultimodalPipeline.from_pretrained(llava)
    assert isinstance(pipeline, PretrainedPipeline)
    assert repr(pipeline) == "PretrainedPipeline(LlavaForConditionalGeneration, LlavaProcessor)"
    stream, again = pipeline.run(chat(image_part)), asyncio.run(pipeline.run_async(chat(image_part)))
    assert torch.equal(stream.embeddings, again.embeddings)
    assert stream.spans == again.spans


def test_the_prompt_for_an_answer_is_the_callers(llava):
    model, processor = llava
    pipeline = MultimodalPipeline.from_pretrained(llava)
    ids, expected = logits_of_its_own(model, processor, chat(their_image), add_generation_prompt=False)
    stream = pipeline.run(chat(image_part), add_generation_prompt=False)
    assert torch.equal(stream.input_ids, ids)
    assert torch.equal(logits_by_decoder(model, stream), expected)
    assert len(pipeline.run(chat(image_part))) > len(stream)


def test_a_tokenizers_template_counts_before_the_processors(llava):
    model, processor = llava
    tokenizer = tiny_models.tokenizer_with(("<image>",), "{% for m in messages %}[{{ m.role }}]{% endfor %}")
    pipeline = MultimodalPipeline.from_pretrained((model, processor, tokenizer))
    stream = pipeline.run([{"role": "user", "content": "Hello"}], add_generation_prompt=False)
    assert processor.tokenizer.decode(stream.input_ids).endswith("[user]")


def test_without_a_template_it_says_that_roles_are_dropped(caplog: pytest.LogCaptureFixture):
    model, processor = tiny_models.llava(template=None)
    pipeline = MultimodalPipeline.from_pretrained((model, processor))
    with caplog.at_level(logging.WARNING, "mmmedia"):
        stream = pipeline.run(chat(image_part))
        pipeline.run(chat(image_part))
    assert [record.getMessage()[:54] for record in caplog.records] == [
        "The roles of messages (assistant, system, user) are dr"
    ]
    assert processor.tokenizer.decode(stream.input_ids).count("<image>") == 48
    caplog.clear()
    other = MultimodalPipeline.from_pretrained((model, processor))
    with caplog.at_level(logging.WARNING, "mmmedia"):
        other.run([{"role": "user", "content": [image_part(1)]}])
    assert not caplog.records


def test_others_may_use_the_model_meanwhile(llava):
    """The place at which a run stops is its own thread's."""
    model, processor = llava
    inputs = processor(text="USER: hello", return_tensors="pt")
    failures = []
    done = threading.Event()

    def generate() -> None:
        while not done.is_set():
            try:
                with torch.no_grad():
                    model(**inputs)
            except Exception as error:
                failures.append(error)
                return

    other = threading.Thread(target=generate)
    other.start()
    pipeline = MultimodalPipeline.from_pretrained(llava)
    for _ in range(5):
        pipeline.run(chat(image_part))
    done.set()
    other.join()
    assert failures == []
    assert not model.get_decoder()._forward_pre_hooks


def test_a_checkpoint_is_loaded_by_its_path(llava, tmp_path: Path):
    model, processor = llava
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    stream = MultimodalPipeline.from_pretrained(tmp_path).run(chat(image_part))
    assert torch.equal(
        stream.embeddings, MultimodalPipeline.from_pretrained(llava).run(chat(image_part)).embeddings
    )


def test_what_cannot_be_used_is_refused(llava):
    model, processor = llava
    for parts, words in (
        (5, "name of a checkpoint"),
        ({"model": model}, "name of a checkpoint"),
        ((processor, model), "no model of transformers"),
        ((model, processor.tokenizer), "it has no tokenizer"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            MultimodalPipeline.from_pretrained(parts)
    pipeline = MultimodalPipeline.from_pretrained(llava)
    embedding = {"type": "image_embeds", "image_embeds": torch.zeros(2, 64)}
    with pytest.raises(PartError, match="computes embeddings by itself") as caught:
        pipeline.run([{"role": "user", "content": [embedding]}])
    assert isinstance(caught.value, NotImplementedError)
    sound = base64.b64encode(encode(sine(440, 0.1, 16000), 16000)).decode()
    with pytest.raises(InvalidArgumentError, match="takes no sounds"):
        pipeline.run([{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
        ]}])  # fmt: skip


class Hearing:
    """A processor that takes sounds as well, and keeps what it is given."""

    def __init__(self, processor) -> None:
        self.given: dict = {}
        self.tokenizer = processor.tokenizer
        self.chat_template = processor.chat_template
        self.apply_chat_template = processor.apply_chat_template
        self.feature_extractor = SimpleNamespace(sampling_rate=8000)
        self._processor = processor

    def __call__(self, text, return_tensors, **given):
        self.given = given
        return self._processor(text=text, return_tensors=return_tensors)


def test_sounds_come_at_the_rate_of_the_feature_extractor(llava):
    model, processor = llava
    hearing = Hearing(processor)
    wave = sine(440, 0.1, 16000)
    parts = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}
        for data in (encode(wave, 16000), encode(sine(440, 0.1, 8000), 8000))
    ]
    stream = MultimodalPipeline.from_pretrained((model, hearing)).run([{"role": "user", "content": parts}])
    assert len(stream)
    assert [sound.shape for sound in hearing.given["audio"]] == [(800,), (800,)]
    assert hearing.given["sampling_rate"] == 8000
    assert "images" not in hearing.given
