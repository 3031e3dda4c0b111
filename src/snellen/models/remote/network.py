"""The machine's network: which proxy leads to a server, and which certificates are trusted."""

from __future__ import annotations

import ipaddress
import os
import platform
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from snellen._util.redaction import redact
from snellen.errors import BadOption

__all__ = ["certificates", "proxy_of", "without_password"]

#: Where systems keep certificates (Debian, Red Hat, SUSE, Alpine).
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def certificates() -> ssl.SSLContext:
    """Return a context that trusts what this machine does. OpenSSL knows neither the keychain of macOS nor
    certificates that Windows has yet to fetch, and some builds of Python look in the wrong place.

    Raises:
        BadOption: ``SSL_CERT_FILE`` is no file.
    """
    named, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if named and not Path(named).is_file():
        raise BadOption(
            f"SSL_CERT_FILE={named}: no such file. Set it to a file of certificates, or unset it."
        )
    if not named and not folder and platform.system() in ("Darwin", "Windows"):
        import truststore

        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return context
    context = ssl.create_default_context()
    places = ssl.get_default_verify_paths()
    if not places.cafile and not (places.capath and any(Path(places.capath).iterdir())):
        for bundle in filter(Path.is_file, map(Path, BUNDLES)):
            context.load_verify_locations(bundle)
    return context


def proxy_of(address: str) -> str | None:
    """Return the proxy for an address, if there is one; this machine itself needs none.

    Raises:
        BadOption: it is not one that can be used.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    if _is_here(host) or _bypassed(host, parts.port):
        return None
    known = getproxies()
    proxy = known.get(parts.scheme) or known.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        found = urlsplit(proxy)
        fine = found.scheme in ("http", "https") and found.hostname and (found.port or True)
    except ValueError:
        fine = False
    if not fine:
        raise BadOption(
            f"The proxy {without_password(proxy)} for {host} cannot be used; usable: http://HOST:PORT, with "
            f"/, @ and the like in a password percent-encoded. To ask {host} directly: export NO_PROXY={host}"
        )
    return proxy


def _bypassed(host: str, port: int | None) -> bool:
    """Whether ``NO_PROXY`` or the system names a host: by name, domain, port, address or network."""
    if proxy_bypass(host):
        return True
    for entry in map(str.strip, getproxies().get("no", "").lower().split(",")):
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        with suppress(ValueError):
            named = urlsplit(entry if "://" in entry else f"//{entry}")
            name = (named.hostname or "").removeprefix("*").removeprefix(".")
            same = host == name or host.endswith(f".{name}") or entry == "*"
            if entry and same and named.port in (None, port):
                return True
    return False


def without_password(proxy: str | None) -> str:
    """Return a proxy without its password."""
    return redact((proxy or "").rpartition("@")[2].rpartition("//")[2])


def _is_here(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
