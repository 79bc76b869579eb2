"""Host names and IP addresses: those that a request may name, and those at which others reach this machine."""

from __future__ import annotations

import argparse
import ipaddress
import re
import socket
import unicodedata

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+$){_LABEL}")


def parse_host(header: str) -> str | None:
    """The host of a Host header: lower case, without port, brackets and final dot. None if the header is invalid."""
    match = _HOST.fullmatch(header)
    if match is None:
        return None
    name = match[1].lower().strip("[]").removesuffix(".")
    return str(to_address(name) or name)


def allowed_host(text: str) -> str:
    """argparse type: a host as `parse_host` returns it. Names may have any letters; a port is ignored."""
    name = unicodedata.normalize("NFKC", text.strip().lower()).replace("\u3002", ".")  # the Chinese full stop
    labels = (label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in name.split("."))
    host = str(to_address(name) or parse_host(".".join(labels)) or "")
    if not (to_address(host) or _NAME.fullmatch(host)):
        hint = "type only the name, such as raspberrypi.local or demo.example"
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name; {hint}")
    return host


def to_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address, without brackets and interface (%eth0), or None for a name."""
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def own_names() -> set[str]:
    """This machine's names, also with `.local` for mDNS. No DNS lookup, which could hang."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return {name, short, f"{short}.local"}


def reachable_hosts(with_ipv6: bool) -> list[str]:
    """This machine's addresses on networks that are up, IPv4 first, then its name. Empty without a network."""
    import psutil

    is_up = {interface: stats.isup for interface, stats in psutil.net_if_stats().items()}
    entries = [entry for interface, found in psutil.net_if_addrs().items() if is_up.get(interface) for entry in found]
    addresses = [address for entry in entries if (address := to_address(entry.address)) is not None]
    addresses = [each for each in addresses if not (each.is_loopback or each.is_link_local)]
    hosts = [str(each) for each in addresses if each.version == 4]
    hosts += [f"[{each}]" for each in addresses if each.version == 6 and with_ipv6]
    name = socket.gethostname().lower()
    name = name if "." in name else f"{name}.local"
    is_usable = _NAME.fullmatch(name) and not name.startswith("localhost")
    return [*hosts, name] if hosts and is_usable else hosts
