"""An HTTP transport that reads no more of an answer than a stranger's server may send."""

from collections.abc import Iterator

import httpx2 as httpx

MOST = 1 << 20  # bytes of an answer: a chat about one clip takes a few thousand


class Bounded(httpx.BaseTransport):
    """httpx's own transport; an answer that is longer than `MOST`, or compressed, is a broken connection."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, asking for an answer that is not compressed."""
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
