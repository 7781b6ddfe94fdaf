"""`mmmedia audio`: the sound of a file, at another rate, or a part of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmmedia.cli.options import End, Force, OutputFile, Source, Start
from mmmedia.cli.outputs import check_free, is_standard, write
from mmmedia.cli.progress import progress
from mmmedia.cli.sources import named, opened
from mmmedia.cli.words import amount, joined, one_line
from mmmedia.errors import InvalidArgumentError

if TYPE_CHECKING:
    from mmmedia import Audio


def audio(
    source: Source,
    output: OutputFile,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", "-r", help="Samples a second; else those of the file.", min=1, show_default=False
        ),
    ] = None,
    mono: Annotated[
        bool, typer.Option("--mono/--channels", help="Average the channels, or keep them.")
    ] = True,
    start: Start = None,
    end: End = None,
    floats: Annotated[
        bool, typer.Option("--float", help="Samples of 32 bits, which keep what is beyond full scale.")
    ] = False,
    force: Force = False,
) -> None:
    """Write the sound of a sound or a video: .wav, .flac, .ogg, .mp3 or what else libsndfile writes.

    Samples have 16 bits where the format has a choice.
    """
    import mmmedia

    form, subtype = _format(output, floats=floats)
    check_free([output], force=force)
    with progress("Decoding"), named(source):
        sound = mmmedia.load_audio(opened(source), sampling_rate=rate, mono=mono, start=start, end=end)
    data = _encoded(sound, form, subtype)
    write(output, data)
    channels = {1: "mono", 2: "stereo"}.get(sound.channels, f"{sound.channels} channels")
    facts = joined(f"{sound.duration:.2f} s", f"{sound.sampling_rate:g} Hz", channels, amount(len(data)))
    typer.echo(f"{one_line(str(output))}  {facts}", err=is_standard(output))


def _format(output: Path, *, floats: bool) -> tuple[str, str | None]:
    """Return libsndfile's names of the format and of its samples; WAV for standard output.

    Raises:
        InvalidArgumentError: (a `ValueError`) no format that it writes.

    >>> _format(Path("a.flac"), floats=False), _format(Path("a.wav"), floats=True)
    (('FLAC', None), ('WAV', 'FLOAT'))
    """
    import soundfile

    name = "WAV" if is_standard(output) else output.suffix[1:].upper()
    form = {"AIF": "AIFF", "OPUS": "OGG", "OGA": "OGG"}.get(name, name)
    if form not in soundfile.available_formats() or form == "RAW":
        raise InvalidArgumentError(
            f"{output}: no sound that can be written; name a .wav, .flac, .ogg or .mp3."
        )
    subtype = "OPUS" if name == "OPUS" else "FLOAT" if floats else None
    if not soundfile.check_format(form, subtype):
        raise InvalidArgumentError(f"{output}: {form} has no samples of 32 bits; leave --float out.")
    return form, subtype


def _encoded(sound: "Audio", form: str, subtype: str | None) -> bytes:
    import io

    import soundfile

    file = io.BytesIO()
    try:
        soundfile.write(file, sound.waveform.T, round(sound.sampling_rate), format=form, subtype=subtype)
    except soundfile.SoundFileError as error:
        raise InvalidArgumentError(
            f"{form} does not take {sound.channels} channels at {sound.sampling_rate:g} Hz: {error}; "
            "see --rate and --mono."
        ) from error
    return file.getvalue()
