"""A server that takes frames out of videos, with FastAPI.

    MMMEDIA_MEDIA_LOADING_THREAD_COUNT=2 uvicorn --app-dir examples fastapi_app:app \
        --workers 2 --timeout-graceful-shutdown 30

`GET /frames?url=https://example.org/clip.mp4&count=8` answers with their numbers and JPEGs in base64.
"""

import asyncio

import aiohttp
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from mmmedia.connections import http_status
from mmmedia.errors import MediaError
from mmmedia.media import ImageMediaIO, MediaConnector, VideoMediaIO

app = FastAPI()


@app.get("/frames")
async def frames(url: str, count: int = 8):
    # One connector a request: it holds what the request may use. Connections and threads are the process's.
    connector = MediaConnector({"video": {"num_frames": count}})
    pixels, metadata = await connector.fetch_video_async(url)
    io = VideoMediaIO(ImageMediaIO())
    jpegs = await asyncio.to_thread(io.encode_base64, pixels)
    return {"frames_indices": metadata["frames_indices"], "jpegs": jpegs.split(",")}


@app.exception_handler(MediaError)
@app.exception_handler(aiohttp.ClientError)
@app.exception_handler(TimeoutError)
async def failed(_request: Request, error: Exception):
    """Say what was wrong with the media, with the status that it deserves."""
    status = http_status(error)
    # What is not about the media is not for the client to read.
    text = str(error) if status < 500 else "The media can't be had now."
    return JSONResponse({"error": text}, status)
