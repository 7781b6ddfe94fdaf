"""URLs: one reading, which is judged and requested."""

import sys

import pytest
import requests
from hypothesis import given, settings, strategies as st
from yarl import URL

from mmmedia.errors import InvalidArgumentError, InvalidURLError, RefusedURLError
from mmmedia.urls import (
    MAX_URL_LENGTH,
    domain_list,
    file_url_path,
    next_hop,
    parse_http_url,
    redact_url,
    url_scheme,
)

READINGS = {
    "http://example.org": "http://example.org/",
    "HTTPS://EXAMPLE.org:443/A": "https://example.org/A",
    "http://example.org:8080/a?b=c#d": "http://example.org:8080/a?b=c",
    "http://example.org./a": "http://example.org/a",
    "http://example.org/a/../b/./c": "http://example.org/b/c",
    "http://example.org/a b/ü?q=ö x": "http://example.org/a%20b/%C3%BC?q=%C3%B6%20x",
    "http://example.org?q": "http://example.org/?q",
    "http://bücher.example/": "http://xn--bcher-kva.example/",
    "http://my_service:80/": "http://my_service/",
    "http://evil\\@good/": "http://evil/%5C@good/",
    "http://good#@evil/": "http://good/",
    "http://evil?@good/": "http://evil/?@good/",
    "http://good:80@evil/": "http://evil/",
    "http://user@host/": "http://host/",
    "http://a@b@c/": "http://c/",
    "http://127.1/": "http://127.0.0.1/",
    "http://2130706433/": "http://127.0.0.1/",
    "http://0x7f000001/": "http://127.0.0.1/",
    "http://0177.0.0.1/": "http://127.0.0.1/",
    "http://0x7f.1/": "http://127.0.0.1/",
    "http://127.000.000.001/": "http://127.0.0.1/",
    "http://0/": "http://0.0.0.0/",
    "http://[::1]:81/": "http://[::1]:81/",
    "http://[2001:DB8::0:1]/": "http://[2001:db8::1]/",
    "http://[::ffff:127.0.0.1]/": "http://[::ffff:7f00:1]/",
    # Path and query byte for byte, as they were signed.
    "http://h/a%2fb/%3a[x]/%zz/%41~;v=1,2?X-Sig=%2f%2F+a%20b&k[0]=|'": "http://h/a%2fb/%3a[x]/%zz/%41~;v=1,2?X-Sig=%2f%2F+a%20b&k[0]=|'",
    "http://h//a//b/./c/..": "http://h//a//b/",
    "http://h/%2e%2e/a?b/../c": "http://h/%2e%2e/a?b/../c",
    'http://h/"<>^`{}': "http://h/%22%3C%3E%5E%60%7B%7D",
}


@pytest.mark.parametrize("url", READINGS)
def test_an_http_url_is_read_to_one_normal_form(url: str) -> None:
    if sys.version_info >= (3, 13) and "ffff" in url:  # prints mapped addresses dotted
        assert str(parse_http_url(url)) in (READINGS[url], "http://[::ffff:127.0.0.1]/")
    else:
        assert str(parse_http_url(url)) == READINGS[url]


def test_what_was_read_already_is_not_read_again() -> None:
    url = parse_http_url("http://me:secret@example.org/a")
    assert parse_http_url(url) is url


@pytest.mark.parametrize("url", READINGS)
def test_later_parsers_see_the_host_that_was_judged(url: str) -> None:
    parsed = parse_http_url(url)
    assert URL(str(parsed), encoded=True).raw_host == parsed.host
    sent = requests.Request("GET", str(parsed)).prepare()
    assert URL(str(sent.url)).raw_host == parsed.host
    assert str(parse_http_url(str(parsed))) == str(parsed)


@pytest.mark.parametrize(
    "url",
    ["http:///h", "http:h", "http://", "http://@/", "http://:80/", "http://h:0/", "http://h:65536/", "http://h:/",
     "http://h:80:80/", "http://h:x/", "http://a..b/", "http://.a/", "http://-a/", "http://a-/", "http://%00/",
     "http://a%2eb/", "http://a%00b/", "http://[::1/", "http://[::g]/", "http://[1.2.3.4]/", "http://1.2.3.4.5/",
     "http://256.1.1.1/", "http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/",  # noqa: RUF001
     "http://a b/", "http://a\r\nHost: b/",
     "http://a/\tb", "http://a/\0", "http://a/\x7f", " http://a/", "http://a/\n", "http://a/ ", "http://a<b>/",
     "http://" + "a" * 64 + ".org/", "http://" + "a." * 127 + "org/", "http://a/" + "a" * MAX_URL_LENGTH,
     "http://a/\ud800", "ftp://a/", "//a/", "a", ""],
)  # fmt: skip
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidURLError, match="Invalid HTTP URL"):
        parse_http_url(url)


@pytest.mark.parametrize("zone", ["%eth0", "%25eth0", "%251"])
def test_addresses_with_a_zone_are_refused(zone: str) -> None:
    with pytest.raises(RefusedURLError, match="link-local"):
        parse_http_url(f"http://[fe80::1{zone}]/")


def test_user_and_password_become_a_header_and_leave_the_url() -> None:
    url = parse_http_url("http://me:s%3Acret@example.org/a")
    assert (str(url), url.authorization) == ("http://example.org/a", "Basic bWU6czpjcmV0")
    assert "bWU6" not in repr(url)


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_text_is_read_to_a_stable_form_or_refused_as_a_value_error(text: str) -> None:
    try:
        url = parse_http_url("http://" + text)
    except ValueError:
        return
    assert parse_http_url(str(url)) == parse_http_url(str(url).replace("http", "HTTP", 1))
    assert URL(str(url), encoded=True).raw_host == url.host


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p@h/a?token=x#y", "http://h/a?…"),
        ("http://u:p@w@h/a", "http://h/a"),
        ("ftp://u:p@h", "ftp://h"),
        ("u:p@h", "u:h"),
        ("//u:p@h/", "//h/"),
        ("http:u:p@h/", "http:h/"),
        ("a\nb", "a�b"),
        ("", ""),
    ],
)
def test_messages_show_neither_credentials_nor_queries(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_messages_show_at_most_64_characters_of_a_data_url() -> None:
    assert len(redact_url("data:," + "A" * 1000)) == 64
    assert len(redact_url("http://h/" + "a" * 1000)) == 256


@pytest.mark.parametrize(
    ("location", "goal"),
    [
        ("/c", "http://h:81/c"),
        ("c", "http://h:81/a/c"),
        ("../c?d", "http://h:81/c?d"),
        ("?d", "http://h:81/a/b?d"),
        ("//other/c", "http://other/c"),
        ("https://other", "https://other/"),
        ("HTTP://OTHER/", "http://other/"),
        ("/c#d", "http://h:81/c"),
        ("#d", "http://h:81/a/b?c"),
        ("c//d?", "http://h:81/a/c//d?"),
        (" /c\u00a0", "http://h:81/c%C2%A0"),
        ("/%2f%3a[x]?a=%2F|'", "http://h:81/%2f%3a[x]?a=%2F|'"),
        ("/ü€", "http://h:81/%C3%BC%E2%82%AC"),
        ("//bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://evil\\@h/", "http://evil/%5C@h/"),
    ],
)
def test_a_redirect_leads_where_its_location_says(location: str, goal: str) -> None:
    assert str(next_hop(parse_http_url("http://h:81/a/b?c"), 302, location.encode())) == goal


@pytest.mark.parametrize("byte", range(0x80, 0x100, 3))
def test_bytes_that_are_not_utf_8_are_sent_as_they_are(byte: int) -> None:
    location = b"/caf%b?q=%b" % (bytes([byte]), bytes([byte]))
    goal = next_hop(parse_http_url("http://h/"), 302, location)
    assert goal.target == f"/caf%{byte:02X}?q=%{byte:02X}"
    with pytest.raises(InvalidURLError):  # no host is written so
        next_hop(parse_http_url("http://h/"), 302, b"//caf%b/" % bytes([byte]))


@pytest.mark.parametrize(
    "location",
    [None, "", "file:///etc/passwd", "gopher://h/", "data:,x", "javascript:1", "http://", "/a\tb", "http://h:0/",
     "http://[fe80::1%25eth0]/", "http://[/"],
)  # fmt: skip
def test_a_redirect_to_nowhere_or_off_http_is_refused(location: str | None) -> None:
    with pytest.raises(ValueError, match=r"Location|Refused|Invalid HTTP URL"):
        next_hop(parse_http_url("http://h/"), 302, location and location.encode())


@pytest.mark.parametrize(
    ("entry", "host", "admitted"),
    [
        ("good.com", "good.com", True),
        ("Good.COM.", "good.com", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("good.com", "good.com.evil.com", False),
        ("good.com", "evilgood.com", False),
        ("good.com", "a.good.com", False),
        ("*.good.com", "a.good.com", True),
        ("*.good.com", "a.b.good.com", True),
        ("*.good.com", "good.com", False),
        ("*.good.com", "evilgood.com", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[::1]", "::2", False),
        ("localhost", "localhost", True),
    ],
)
def test_the_domain_list_compares_whole_normal_hosts(entry: str, host: str, admitted: bool) -> None:
    assert (host in domain_list([entry])) is admitted


@pytest.mark.parametrize(
    "entry",
    ["good.com:80", "good.com:443", "good.com/", "good.com/path", "http://good.com", "u@good.com", "", "*",
     "*.", "a b", "good.com?", "good.com#", "*.127.0.0.1", "*.::1", "[::1]:80", "a*.b", "[::1]/a",
     "good.com:", "a\\b"],
)  # fmt: skip
def test_domain_entries_that_are_no_host_are_refused(entry: str) -> None:
    with pytest.raises(InvalidArgumentError, match="allowed_media_domains"):
        domain_list([entry])


def test_no_entries_admit_every_host_and_one_text_is_no_list() -> None:
    domain_list(None).check("anything")
    domain_list([]).check("anything")
    with pytest.raises(RefusedURLError, match=r"allowed domains \(\*\.b, a\)"):
        domain_list(["a", "*.b"]).check("c")
    with pytest.raises(InvalidArgumentError, match="must be a list"):
        domain_list("good.com")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b", "/a/b"),
        ("FILE:///a", "/a"),
        ("file:/a", "/a"),
        ("file://localhost/a", "/a"),
        ("file://LOCALHOST/a", "/a"),
        ("file:///a%20b/%C3%BC%23.png", "/a b/ü#.png"),
        ("file:///ü.png?query#fragment", "/ü.png"),
        ("file:///%FF", "/\udcff"),
        ("file:///a/../b", "/a/../b"),
    ],
)
def test_a_file_url_names_a_path(url: str, path: str) -> None:
    assert file_url_path(url) == path


@pytest.mark.parametrize(
    "url", ["file://host/a", "file://127.0.0.1/a", "file:a", "file:", "file://", "file:///a%00b"]
)
def test_file_urls_of_other_hosts_or_without_an_absolute_path_are_refused(url: str) -> None:
    with pytest.raises(InvalidURLError, match="file URL"):
        file_url_path(url)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("DATA:,", "data"),
        ("dAtA", ""),
        ("http+unix://x", "http+unix"),
        ("jar:http://x", "jar"),
        ("C:/a", "c"),
        ("a/b:c", ""),
    ],
)
def test_the_scheme_is_what_stands_before_the_colon(url: str, scheme: str) -> None:
    assert url_scheme(url) == scheme


@pytest.mark.parametrize("host", ["[::1.2.3.999]", "[1::256.1.1.1]"])
def test_an_address_within_an_address_is_looked_at_too(host: str) -> None:
    with pytest.raises(InvalidURLError, match="no IPv6 address"):
        parse_http_url(f"http://{host}/")
