"""Host names of flags and requests, and the addresses that are printed for other machines."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest

from demos.live.page import hosts
from demos.live.page.hosts import allowed_host, parse_host, reachable_hosts


@pytest.mark.parametrize(
    ("typed", "host"),
    [
        ("raspberrypi.local", "raspberrypi.local"),
        ("Demo.Example", "demo.example"),
        ("demo.example.", "demo.example"),
        ("demo.example:8443", "demo.example"),
        ("edge_1", "edge_1"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("STRA\u00dfE.example:80", "xn--strae-oqa.example"),
        ("\u4f8b\u3048\u3002\u30c6\u30b9\u30c8", "xn--r8jz45g.xn--zckzah"),
        ("10.0.0.5:8000", "10.0.0.5"),
        ("FD00:0::1", "fd00::1"),
        ("[fd00::1]:8000", "fd00::1"),
    ],
)
def test_allowed_host_is_what_browsers_send(typed: str, host: str) -> None:
    assert allowed_host(typed) == host
    assert parse_host(f"[{host}]:8000" if ":" in host else f"{host.upper()}.:8000" if host[-1] > "9" else host) == host


@pytest.mark.parametrize(
    "typed",
    ["", " ", ".", "*", "*.example", "http://demo.example", "demo.example/live", "a b", "a..b", "-a.example", "a@b",
     "999.1.1.1", "demo:port", "demo:99999999", ":80", "::g", "x" * 64, "\u00fc" * 80, "a\x00b"],
)  # fmt: skip
def test_rejects_what_is_no_host_name(typed: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a host name; type only the name, such as"):
        allowed_host(typed)


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], None]:
    """`interfaces({"eth0": ["192.0.2.7"]})`: the machine `pi` has these; one whose name ends with - is down."""

    def set_interfaces(addresses: dict[str, list[str]]) -> None:
        found = {name: [SimpleNamespace(address=each) for each in listed] for name, listed in addresses.items()}
        is_up = {name: SimpleNamespace(isup=not name.endswith("-")) for name in addresses}
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
        monkeypatch.setattr(psutil, "net_if_stats", lambda: is_up)
        monkeypatch.setattr(socket, "gethostname", lambda: "Pi")

    return set_interfaces


def test_lists_addresses_that_others_reach(interfaces: Callable[[dict[str, list[str]]], None]) -> None:
    loopback, hardware = ["127.0.0.1", "::1"], "02:fc:00:00:00:01"
    wired = ["fe80::1%eth0", "fd00::7", "192.0.2.7", hardware]
    interfaces({"lo": loopback, "eth0": wired, "wlan0": ["169.254.3.4", "198.51.100.7"], "usb0-": ["203.0.113.7"]})
    assert reachable_hosts(with_ipv6=False) == ["192.0.2.7", "198.51.100.7", "pi.local"]
    assert reachable_hosts(with_ipv6=True) == ["192.0.2.7", "198.51.100.7", "[fd00::7]", "pi.local"]
    interfaces({"lo": loopback, "eth0-": wired})
    assert reachable_hosts(with_ipv6=True) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [("edge.lab.example", "edge.lab.example"), ("pi.local", "pi.local"), ("localhost", None), ("my pi", None)],
)
def test_lists_the_name_of_this_machine(
    interfaces: Callable[[dict[str, list[str]]], None], monkeypatch: pytest.MonkeyPatch, name: str, shown: str | None
) -> None:
    interfaces({"eth0": ["192.0.2.7"]})
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert reachable_hosts(with_ipv6=False) == ["192.0.2.7", *([shown] if shown else [])]


def test_needs_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a DNS lookup may hang")

    for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "getfqdn"):
        monkeypatch.setattr(socket, name, refuse)
    assert isinstance(reachable_hosts(with_ipv6=True), list)
    assert hosts.own_names()
