"""What the environment says of the network: proxies, as curl reads them, and certificates to trust."""

import functools
import logging
import os
import re
import ssl
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from mmmedia import envs
from mmmedia.errors import InvalidSettingError
from mmmedia.urls import HTTPURL

logger = logging.getLogger(__name__)

# HTTP_PROXY is not among them: under CGI it is a header of whoever asks (CVE-2016-5385), and curl ignores it.
_PROXY_VARIABLES = {
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
_DEFAULT_PORTS = {"http": 1080, "https": 443}  # curl's


def environment_proxy(url: HTTPURL) -> str | None:
    """Return the URL of the proxy that the environment names for a URL, as curl reads it.

    The first that is set and not empty of `http_proxy`, or of `https_proxy` and `HTTPS_PROXY`, and then of
    `all_proxy` and `ALL_PROXY`, unless `no_proxy` or else `NO_PROXY` exempts the host: `*` alone, or names
    that stand for themselves and all below them, addresses, and networks (`10.0.0.0/8`), separated by commas
    or blanks. An entry with a port exempts nothing. `MMMEDIA_COMPAT=0.20` has `HTTP_PROXY` read, and all of
    it as Python's `urllib` does.

    Raises:
        InvalidSettingError: (a `ValueError`) it is a SOCKS proxy, or no URL.
    """
    environment = os.environ
    for variable in _PROXY_VARIABLES[url.scheme]:
        if value := environment.get(variable):
            break
    else:
        variable = "HTTP_PROXY"
        if url.scheme != "http" or not (value := environment.get(variable)):
            return None
    if envs.MMMEDIA_COMPAT == "0.20":
        return _proxy_as_urllib_reads(url)
    if variable == "HTTP_PROXY":
        _warn_of_http_proxy()
        return None
    if _is_exempt(url.host, environment.get("no_proxy") or environment.get("NO_PROXY") or ""):
        return None
    return _proxy_url(variable, value)


@functools.cache
def _warn_of_http_proxy() -> None:
    logger.warning("HTTP_PROXY is ignored, as curl does; http_proxy and ALL_PROXY are read.")


def _is_exempt(host: str, exempt: str) -> bool:
    """Say whether `no_proxy` exempts a host, a name or an address in its normal form."""
    if exempt == "*":
        return True
    is_address = ":" in host or host.rpartition(".")[2].isdecimal()
    for entry in filter(None, re.split(r"[\s,]+", exempt)):
        if is_address:
            if _holds(entry, host):
                return True
        else:
            name = entry.lower().removesuffix(".").removeprefix(".")
            if name and (host == name or host.endswith("." + name)):
                return True
    return False


def _holds(entry: str, address: str) -> bool:
    """Say whether an entry of `no_proxy` is this address, or a network that it is in."""
    network, _, bits = entry.partition("/")
    try:
        if bits.strip("0"):  # without bits, or 0 of them, it stands for the one address
            return ip_address(address) in ip_network(entry, strict=False)
        return ip_address(address) == ip_address(network)
    except ValueError:
        return False


@functools.lru_cache(maxsize=16)
def _proxy_url(variable: str, value: str) -> str:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        raise InvalidSettingError(f"{variable} is no URL of a proxy.") from None
    if port is None or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise InvalidSettingError(
            f"{variable} names a proxy of the kind {parts.scheme[:16]!r}; proxies of http and https are "
            "supported, SOCKS is not. no_proxy exempts hosts."
        )
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{user}{at}{host}:{port}"


def _proxy_as_urllib_reads(url: HTTPURL) -> str | None:
    from urllib.request import (  # type: ignore[attr-defined]  # typeshed omits the second
        getproxies_environment,
        proxy_bypass_environment,
    )

    proxies = getproxies_environment()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass_environment(f"{url.host}:{url.port}", proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def trust(socket_class: type[ssl.SSLSocket] = ssl.SSLSocket) -> ssl.SSLContext:
    """Return the TLS context that trusts whom the environment says, the same one until that changes.

    `REQUESTS_CA_BUNDLE`, else `CURL_CA_BUNDLE`, else `SSL_CERT_FILE` and `SSL_CERT_DIR` together name files
    of certificates or directories of such files. Where none is set, or all are empty, what the system trusts
    counts, and what certifi has.

    Args:
        socket_class: what it makes of sockets.

    Raises:
        InvalidSettingError: (a `ValueError`) what a variable names is not there, or holds no certificate.
    """
    kind: Any = socket_class  # mypy takes the class for one that has no hash
    return _trusting(tuple(_sources()), kind)


def _sources() -> Iterator[tuple[str, str, int]]:
    """Yield variables, paths, and when these were changed: then they are read anew."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        value = os.environ.get(variable, "")
        for path in filter(None, value.split(os.pathsep) if variable == "SSL_CERT_DIR" else [value]):
            try:
                yield variable, path, os.stat(path).st_mtime_ns  # noqa: PTH116  # any path
            except (OSError, ValueError) as error:
                raise _unusable(variable, path, error) from None
        if value and variable != "SSL_CERT_FILE":
            return


def _unusable(variable: str, path: str, why: object) -> InvalidSettingError:
    return InvalidSettingError(f"{variable}={path[:256]!r} gives no certificates to trust: {why}.")


@functools.lru_cache(maxsize=8)  # reading them takes 20 ms
def _trusting(sources: tuple[tuple[str, str, int], ...], socket_class: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = socket_class
    if not sources:
        import certifi

        context.load_default_certs()
        compiled_in = ssl.get_default_verify_paths()  # which an empty SSL_CERT_FILE takes from OpenSSL
        for path in (certifi.where(), compiled_in.openssl_cafile):
            if os.path.exists(path):  # noqa: PTH110  # any path
                context.load_verify_locations(cafile=path)
        if os.path.isdir(compiled_in.openssl_capath):  # noqa: PTH112
            context.load_verify_locations(capath=compiled_in.openssl_capath)
    for variable, path, _ in sources:
        _load(context, variable, path)
    return context


def _load(context: ssl.SSLContext, variable: str, path: str) -> None:
    """Have a context trust the certificates of a file, or of the files of a directory."""
    try:
        if not os.path.isdir(path):  # noqa: PTH112
            context.load_verify_locations(cafile=path)
            return
        loaded = 0
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file():
                    try:
                        context.load_verify_locations(cafile=entry.path)
                        loaded += 1
                    except ssl.SSLError:  # a file of another kind
                        continue
    except OSError as error:
        raise _unusable(variable, path, error) from None
    if not loaded:
        raise _unusable(variable, path, "no file of the directory holds any")
