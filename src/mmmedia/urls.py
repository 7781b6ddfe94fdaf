"""URLs that strangers wrote: one reading of them, which is both judged and requested.

Two parsers that read one URL differently are how a list of allowed hosts is got round. So an HTTP URL is
read once, by `parse_http_url`; what comes out is plain enough that every later reader agrees on it, and
only that is looked up, compared and sent.
"""

import base64
import functools
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from mmmedia.errors import InvalidArgumentError, InvalidURLError, RefusedURLError

MAX_URL_LENGTH = 32 * 1024
"""Characters of an HTTP URL; the servers and proxies in use accept 8 to 16 KiB."""

MAX_REDIRECTS = 10
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

_DEFAULT_PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^\\/?#]*)")
_USERINFO = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*:)?[\\/]*)[^/?#]*@")
_HOST_NAME = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
# What a request line can't carry, or readers take for something else; all else is sent as it was written.
_UNSENT = re.compile(r"[^\]!#-;=?-\[_a-z|~]")
_DOTS = re.compile(r"/\.\.?(?:/|$)")
_NUMERIC_LABEL = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")


def url_scheme(url: str) -> str:
    """Return the scheme of a URL in small letters, `""` without one. It looks at the beginning only.

    >>> url_scheme("Data:image/png;base64,iVBORw0KGgo="), url_scheme("HTTP://h/"), url_scheme("a.png")
    ('data', 'http', '')
    """
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def redact_url(url: str) -> str:
    """Return what of a URL may stand in messages and logs: no credentials, no query, no media bytes.

    >>> redact_url("https://me:secret@example.org/cat.png?signature=c0ffee")
    'https://example.org/cat.png?…'
    >>> redact_url("data:image/png;base64," + "A" * 1000)
    'data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA…'
    """
    if url_scheme(url) == "data":
        return _CONTROL.sub("�", url[:63]) + ("…" if len(url) > 63 else "")
    text, *rest = re.split(r"[?#]", _USERINFO.sub(r"\1", url[: 4 * MAX_URL_LENGTH]), maxsplit=1)
    text = _CONTROL.sub("�", text)
    return (text if len(text) <= 256 else text[:255] + "…") + ("?…" if rest else "")


@dataclass(frozen=True, slots=True)
class HTTPURL:
    """An HTTP URL in its one normal form.

    Attributes:
        scheme: `http` or `https`.
        host: a name in small ASCII letters (IDNA) without a final dot, or an address without brackets.
        port: always a number, the scheme's own where the URL has none.
        target: path and query, percent-encoded; begins with a slash.
        authorization: the `Authorization` header that the URL's user and password stand for.
        text: the URL as it is sent.
    """

    scheme: str
    host: str
    port: int
    target: str
    authorization: str | None = field(default=None, repr=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        object.__setattr__(self, "text", f"{self.scheme}://{host}{port}{self.target}")

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what credentials belong to."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return self.text


def parse_http_url(url: str | HTTPURL) -> HTTPURL:
    r"""Read an HTTP URL; one that was read already is returned as it is.

    The authority is what urllib3 reads, narrowed: a backslash ends it, non-ASCII names become IDNA, the forms
    in which resolvers accept an IPv4 address (`127.1`, `0x7f000001`) become the address they mean, user and
    password become a header. Path and query are kept byte for byte, as signatures need it, but for what no
    request can carry, which is percent-encoded, and for the segments `.` and `..`. The fragment is dropped.

    Raises:
        InvalidURLError: (a `ValueError`) no HTTP URL, control characters or outer white space, a host that
            is neither a name nor an address, a port that is empty or out of range, too long.
        RefusedURLError: (a `ValueError`) an address with a zone, which only link-local addresses have.

    >>> str(parse_http_url("HTTP://Bücher.Example.:80/a b/../c?q=ü#top"))
    'http://xn--bcher-kva.example/c?q=%C3%BC'
    >>> str(parse_http_url("http://0x7f.1\\@good.example/%2f[x]?%3a"))
    'http://127.0.0.1/%5C@good.example/%2f[x]?%3a'
    """
    if isinstance(url, HTTPURL):
        return url

    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    def invalid(why: str) -> InvalidURLError:
        return InvalidURLError(f"Invalid HTTP URL: {why}: {redact_url(url)!r}.")

    if url_scheme(url) not in _DEFAULT_PORTS:
        raise invalid("its scheme must be 'http' or 'https'")
    if len(url) > MAX_URL_LENGTH:
        raise invalid(f"{len(url)} characters, more than {MAX_URL_LENGTH}")
    if _CONTROL.search(url) or url != url.strip(" "):
        raise invalid("control characters or outer white space")
    authority = _AUTHORITY.match(url)
    host_and_port = authority[1].rpartition("@")[2] if authority else ""
    if authority is None or host_and_port.endswith(":"):
        raise invalid("an empty port" if authority else "it names no host")
    try:
        parsed = parse_url(authority[0])
        target = _target(url[authority.end() :].partition("#")[0])
    except (LocationParseError, UnicodeError):
        raise invalid("it can't be parsed") from None
    host = _normal_host(parsed.host or "", invalid, percent="%" in host_and_port)
    scheme = (parsed.scheme or "").lower()
    port = _DEFAULT_PORTS[scheme] if parsed.port is None else parsed.port
    if not 0 < port < 65536:
        raise invalid(f"port {port}")
    return HTTPURL(scheme, host, port, target, _basic(parsed.auth) if parsed.auth else None)


def _target(text: str) -> str:
    """Return path and query as they are sent; a `UnicodeError` for what has no UTF-8."""
    path, mark, query = text.partition("?")
    if not path.startswith("/"):
        path = "/" + path
    if _DOTS.search(path):
        kept: list[str] = []
        for segment in path.split("/")[1:]:
            if segment == "..":
                del kept[-1:]
            elif segment != ".":
                kept.append(segment)
        path = "/" + "/".join(kept + [""] * path.endswith(("/.", "/..")))
    return _UNSENT.sub(lambda match: quote(match[0], safe=""), path + mark + query)


def _normal_host(host: str, invalid: Callable[[str], Exception], *, percent: bool = False) -> str:
    """Return the one form of a host, raising what `invalid` makes of a reason."""
    if host.startswith("["):
        address, zone, _ = host[1:-1].partition("%")
        if zone:
            raise RefusedURLError(f"Refused host {host!r}: a zone belongs to a link-local address.")
        try:
            return ipaddress.IPv6Address(address).compressed
        except ValueError:
            raise invalid(f"host {host!r} is no IPv6 address") from None
    host = host.removesuffix(".")
    if percent or len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise invalid(f"host {host[:64]!r} is neither a name nor an address")
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            raise invalid(f"host {host!r} is no IPv4 address") from None
    return host


def _basic(userinfo: str) -> str:
    user, _, password = userinfo.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return "Basic " + base64.b64encode(pair).decode()


def next_hop(url: HTTPURL, status: int, location: bytes | None) -> HTTPURL:
    r"""Return where a redirect from `url` leads.

    Args:
        url: where it came from.
        status: its status, for messages.
        location: its `Location` as it was on the wire, `None` without one. Bytes that are not UTF-8 are
            percent-encoded as they are.

    Raises:
        InvalidURLError: (a `ValueError`) no `Location`, or one that can't be read.
        RefusedURLError: (a `ValueError`) it leaves http and https.

    >>> str(next_hop(parse_http_url("http://example.org/a/b"), 302, b"../c%2f\xe9"))
    'http://example.org/c%2f%E9'
    """
    location = (location or b"").strip()
    try:
        text = location.decode()
    except UnicodeDecodeError:
        text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in location)
    if not text or _CONTROL.search(text):
        raise InvalidURLError(f"Redirect ({status}) without a usable Location at {redact_url(str(url))!r}.")
    goal = text if url_scheme(text) else _joined(url, text)
    if url_scheme(goal) not in _DEFAULT_PORTS:
        raise RefusedURLError(
            f"Refused redirect: {redact_url(goal)!r} is neither http nor https.", reason="redirect"
        )
    return parse_http_url(goal)


def _joined(url: HTTPURL, reference: str) -> str:
    """Return what a relative reference means at `url`."""
    if reference.startswith("//"):
        return f"{url.scheme}:{reference}"
    path = url.target.partition("?")[0]
    if reference.startswith(("?", "#")):
        reference = (url.target if reference.startswith("#") else path) + reference
    elif not reference.startswith("/"):
        reference = path[: path.rindex("/") + 1] + reference
    return str(url).removesuffix(url.target) + reference


@dataclass(frozen=True, slots=True)
class DomainList:
    """The hosts that an operator admits; see `domain_list`.

    Attributes:
        names: hosts.
        parents: endings of hosts, each with the dot that it begins with.
    """

    names: frozenset[str]
    parents: tuple[str, ...]

    def __contains__(self, host: object) -> bool:
        return host in self.names or (isinstance(host, str) and host.endswith(self.parents))

    def __bool__(self) -> bool:
        return bool(self.names or self.parents)

    def __str__(self) -> str:
        return ", ".join(sorted([*self.names, *("*" + parent for parent in self.parents)]))

    def check(self, host: str) -> None:
        """Raise `RefusedURLError` (a `ValueError`) for a host not on a list that has entries."""
        if (self.names or self.parents) and host not in self:
            raise RefusedURLError(
                f"The URL must be from one of the allowed domains ({self}), not {host!r}; "
                "see allowed_media_domains.",
                reason="domain",
            )


ANY_HOST = DomainList(frozenset(), ())
"""The list without entries."""


def domain_list(entries: Iterable[str] | None) -> DomainList:
    """Read `allowed_media_domains`: host names or addresses, `*.example.org` for all names below one.

    No entries admit every host.

    Raises:
        InvalidArgumentError: (a `ValueError`) an entry with a scheme, a port or a path, or no host at all.

    >>> domains = domain_list(["Example.org.", "*.cdn.example"])
    >>> "example.org" in domains, "a.b.cdn.example" in domains, "cdn.example" in domains
    (True, True, False)
    """
    if isinstance(entries, str):
        raise InvalidArgumentError(f"allowed_media_domains must be a list of hosts, not {entries!r}.")
    return _domain_list(tuple(entries)) if entries else ANY_HOST


@functools.lru_cache(maxsize=64)
def _domain_list(entries: tuple[str, ...]) -> DomainList:
    hosts: dict[bool, set[str]] = {False: set(), True: set()}
    for entry in entries:
        below = entry.startswith("*.")
        host = entry[2:] if below else entry
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"
        bare = host.endswith("]") if host.startswith("[") else ":" not in host
        try:
            parsed = None if not bare or re.search(r"[@/\\?#%]", host) else parse_http_url(f"http://{host}/")
        except ValueError:
            parsed = None
        if parsed is None or (below and (":" in parsed.host or parsed.host[-1].isdigit())):
            raise InvalidArgumentError(
                f"allowed_media_domains: {entry!r} is no host name; expected one without scheme, port and "
                "path, such as 'example.org' or '*.example.org'."
            )
        hosts[below].add(parsed.host)
    return DomainList(frozenset(hosts[False]), tuple("." + host for host in sorted(hosts[True])))


def file_url_path(url: str) -> str:
    """Return the path that a file URL names, as the operating system writes it; nothing is resolved.

    Raises:
        InvalidURLError: (a `ValueError`) another host than `localhost`, a relative path, a NUL in it.

    >>> file_url_path("file:///photos/a%20cat.png"), file_url_path("file://localhost/photos/ö.png")
    ('/photos/a cat.png', '/photos/ö.png')
    """
    rest = re.split(r"[?#]", url.partition(":")[2], maxsplit=1)[0]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path
        if host.lower() not in ("", "localhost"):
            raise InvalidURLError(f"A file URL must not name the host {host[:64]!r}: {redact_url(url)!r}.")
    path = os.fsdecode(unquote_to_bytes(os.fsencode(rest)))
    if not path.startswith("/") or "\0" in path:
        raise InvalidURLError(f"A file URL must name an absolute path: {redact_url(url)!r}.")
    return path
