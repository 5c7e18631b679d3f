"""An HTTP transport that reads no more of an answer, and no longer, than a stranger's server may send."""

import math
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2 as httpcore
import httpx2 as httpx

from ajbench.core.errors import UsageError

MOST = 1 << 20  # bytes of an answer: a chat about one clip takes a few thousand


class Bounded(httpx.BaseTransport):
    """httpx's own transport; an answer that is longer than `MOST`, or compressed, is a broken connection.

    The time-out for reading is that of the whole answer, from the start of the request on: httpx's is that of
    each piece, and a server may send one byte at a time. An answer is read by the thread that asked for it.

    Args:
        proxy: the address of an HTTP proxy that every request goes through; None: none does.
    """

    def __init__(self, proxy: str | None = None) -> None:
        context = httpx.create_ssl_context()
        self._inner, self._deadline = httpx.HTTPTransport(verify=context), _Deadline()
        # httpx has no option for the sockets of its pool. Without a limit of connections, no request waits.
        options: dict[str, Any] = {"ssl_context": context, "keepalive_expiry": 5.0}
        options["network_backend"] = _Sockets(self._deadline)
        if proxy is None:
            self._inner._pool = httpcore.ConnectionPool(**options)
        else:
            through = httpx.Proxy(proxy)
            self._inner._pool = httpcore.HTTPProxy(str(through.url), proxy_auth=through.raw_auth, **options)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, asking for an answer that is not compressed."""
        self._deadline.end = time.monotonic() + (request.extensions["timeout"]["read"] or math.inf)
        request.headers["Accept-Encoding"] = "identity"
        response = self._inner.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise httpx.ReadError("the answer is compressed")
        response.stream = _Counted(response.stream)
        return response

    def close(self) -> None:
        """Close all connections."""
        self._inner.close()


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for a server (`https_proxy`, `no_proxy`); None for none.

    A server on this machine is reached directly.

    Raises:
        UsageError: the proxy is not an HTTP proxy.
    """
    parts = urlsplit(url)
    host, known = parts.hostname or "", getproxies()
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return None
    proxy = known.get(parts.scheme) or known.get("all")
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise UsageError(
            f"proxy {urlsplit(proxy).scheme}://: allowed: http, https; name the server in $no_proxy to reach "
            "it directly"
        )
    return proxy or None


class _Counted(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > MOST:
                raise httpx.ReadError(f"the answer is longer than {MOST} bytes")
            yield part

    def close(self) -> None:
        self._stream.close()


class _Deadline(threading.local):
    """When the answer that this thread waits for must have ended, in seconds of the monotonic clock."""

    end = math.inf


class _Sockets(httpcore.SyncBackend):
    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _InTime(super().connect_tcp(*args, **options), self._deadline)


class _InTime(httpcore.NetworkStream):
    """A connection that reads until the deadline only."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer takes too long")
        return self._inner.read(max_bytes, left if timeout is None else min(timeout, left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _InTime(self._inner.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
