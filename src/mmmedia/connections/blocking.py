"""The blocking half: performs the steps of an exchange with requests."""

import contextlib
import io
import time
from http.cookiejar import DefaultCookiePolicy
from typing import IO, Any

import requests
from urllib3.exceptions import NameResolutionError, ProtocolError, ReadTimeoutError, SSLError

from mmmedia import metrics
from mmmedia.connections.deadlines import TimedAdapter, deadline
from mmmedia.connections.exchange import Answer, Call, Exchange, Reject, Send
from mmmedia.connections.failures import sync_status_error
from mmmedia.connections.rules import MAX_CONNECTIONS, USER_AGENT, Body, CutShortError, whole_body
from mmmedia.egress.policy import journey_under_way

_CHUNK_BYTES = 64 * 1024


class _Session(requests.Session):
    def resolve_redirects(
        self, resp: Any, req: Any, *args: Any, yield_requests: bool = False, **kwargs: Any
    ) -> Any:
        """Follow redirects where that is asked for; where not, don't even read their bodies.

        Without it requests would, however long they are, to prepare the next request.
        """
        if yield_requests:
            return iter(())
        return super().resolve_redirects(resp, req, *args, **kwargs)


def new_client() -> requests.Session:
    """Return a session that keeps no cookies, reads no `.netrc`, and goes where the policy admits.

    Raises:
        RefusedURLError: (a `ValueError`) these versions of requests and urllib3 can't be held to it.
    """
    session = _Session()
    session.trust_env = False  # proxies come from `environment_proxy`, and .netrc is nobody's business here
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = USER_AGENT
    for prefix in ("http://", "https://"):
        session.mount(prefix, TimedAdapter(pool_connections=32, pool_maxsize=MAX_CONNECTIONS))
    return session


def perform(client: requests.Session, steps: Exchange, sink: IO[bytes]) -> Answer:
    """Perform an exchange; the body is written to `sink`.

    Raises:
        requests.RequestException: it failed.
        MediaError: it was refused, or what came was.
    """
    with metrics.downloading(sink), contextlib.ExitStack() as responses:
        step = next(steps)
        while not isinstance(step, Answer):
            outcome: object = None
            try:
                if isinstance(step, Send):
                    responses.close()
                    with deadline(step.seconds):
                        response = responses.enter_context(_send(client, step, step.seconds))
                        status, headers = response.status_code, response.headers
                        if step.limits is not None and (
                            body := whole_body(step.hop.url, status, headers, step.limits)
                        ):
                            receive(response, body, sink)
                            return Answer(step.hop, status, headers)
                    outcome = status, headers, _location(response)
                elif isinstance(step, Call):
                    step.fetch(step.seconds, step.limits, sink)
                elif isinstance(step, Reject):
                    reason = step.reason or response.reason or ""
                    raise sync_status_error(response.status_code, reason, response.url, response.headers)
                else:
                    responses.close()
                    time.sleep(step.seconds)
                    sink.seek(0)
                    sink.truncate()
            except BaseException as error:  # noqa: BLE001  # the exchange decides
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    return step


def open_response(
    client: requests.Session, steps: Exchange, timeout: float | None, *, stream: bool
) -> tuple[requests.Response, Answer]:
    """Perform an exchange to its response, of which the body is left unread.

    Args:
        client: the session.
        steps: those of `exchange` with `any_status`.
        timeout: seconds in all, `None` for no bound; with `stream`, for each read.
        stream: the caller will read the body at leisure.

    Raises:
        requests.RequestException: it failed.
        RefusedURLError: (a `ValueError`) the policy does not admit where it leads.
    """
    with contextlib.ExitStack() as responses:
        step = next(steps)
        while isinstance(step, Send):
            responses.close()
            try:
                with deadline(None if stream or timeout is None else step.seconds):
                    response = responses.enter_context(_send(client, step, timeout))
            except BaseException as error:  # noqa: BLE001  # the exchange decides
                step = steps.throw(error)
            else:
                step = steps.send((response.status_code, response.headers, _location(response)))
        responses.pop_all()  # the caller closes it
    assert isinstance(step, Answer)
    return response, step


def _send(client: requests.Session, step: Send, timeout: float | None) -> requests.Response:
    url, proxy = step.hop.url, step.hop.proxy
    prepared = requests.Request("GET", headers=dict(step.hop.headers), url="http://localhost/").prepare()
    prepared.url = str(url)  # as it was judged, not as requests would rewrite it
    token = journey_under_way.set(step.journey)
    try:
        return client.send(
            prepared,
            stream=True,
            timeout=timeout,
            allow_redirects=False,
            proxies={url.scheme: proxy} if proxy else {},
        )
    except requests.ConnectionError as error:
        if isinstance(getattr(error.args[0] if error.args else None, "reason", None), NameResolutionError):
            raise requests.ConnectionError(
                f"Cannot resolve the host {url.host!r}: DNS knows no such name, or there is no network.",
                request=error.request,
            ) from error
        raise
    finally:
        journey_under_way.reset(token)


def _location(response: requests.Response) -> bytes | None:
    """Return the `Location` as it was on the wire; http.client read it as Latin-1."""
    location = response.headers.get("Location")
    return None if location is None else location.encode("latin-1")


def receive(response: requests.Response, body: Body, sink: IO[bytes]) -> None:
    """Read the body of a response into `sink`.

    Raises:
        requests.RequestException: reading failed, or the body is cut short.
        MediaError: the body is not what it may be.
    """
    try:
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            for piece in body.pieces(chunk):
                sink.write(piece)
        body.finish()
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(error) from error
    except (ProtocolError, CutShortError) as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
    except SSLError as error:
        raise requests.exceptions.SSLError(error) from error


def read_all(response: requests.Response, body: Body, seconds: float | None) -> None:
    """Read the body of a response, as requests itself does without `stream=True`; errors as of `receive`."""
    sink = io.BytesIO()
    with deadline(seconds):
        receive(response, body, sink)
    response._content = sink.getvalue()
    response._content_consumed = True  # type: ignore[attr-defined]
