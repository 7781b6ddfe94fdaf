"""The packets of a video stream, known without decoding."""
