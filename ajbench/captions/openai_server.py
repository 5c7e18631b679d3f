"""Backend `openai`: any server that speaks OpenAI's protocol (vLLM, llama.cpp, Ollama and others)."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import xxhash

from ajbench.captions.answers import CUT
from ajbench.captions.backends import Answer
from ajbench.core.console import counted
from ajbench.core.errors import MissingError, UsageError

KEY, URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
APIS = ("chat", "completions")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
REFUSED = {401: "the key", 403: "the key", 404: "the model or the address"}
RETRIED = (408, 409, 429)  # and all from 500 on


class OpenAIServer:
    """A language model on a server; many requests at once.

    A request is sent again after a time-out, HTTP 408, 409, 429 or 5xx, a broken connection and an answer
    that is not what the protocol says: after 0.5 s, 1 s, 2 s …, or as long as the server asks for, at most
    30 s. The key is neither kept in messages nor stored.

    Attributes:
        retried: reason → requests that were sent again.
        requests: prompts that have an answer, or were given up.

    Args:
        model: the server's name of the model.
        url: of the server, such as http://localhost:8000/v1; by default `$OPENAI_BASE_URL`.
        key: by default `$OPENAI_API_KEY`; servers of your own usually need none.
        concurrency: requests at once.
        retries: of one request.
        timeout_s: of one request, up to the end of its answer.
        api: `chat` (a prompt is a user's message) or `completions` (for base models).

    Raises:
        UsageError: an option out of range, no model, or a proxy that is not an HTTP proxy.
        MissingError: the package openai or the address is missing.
    """

    name = "openai"

    def __init__(
        self,
        model: str = "",
        url: str = "",
        key: str = "",
        concurrency: int = 16,
        retries: int = 5,
        timeout_s: float = 60.0,
        api: str = "chat",
    ) -> None:
        if not model:
            raise UsageError("backend openai: --model is missing; name the model as the server does")
        if api not in APIS:
            raise UsageError(f"backend openai: api={api}; allowed: {', '.join(APIS)}")
        if concurrency < 1 or retries < 0 or timeout_s <= 0:
            raise UsageError(
                f"backend openai: concurrency={concurrency}, retries={retries}, timeout_s={timeout_s:g}; "
                "allowed: at least 1, at least 0, more than 0"
            )
        url = url or os.environ.get(URL, "")
        if not url:
            raise MissingError(f"backend openai: --url is missing; give the server's address, or set ${URL}")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("backend openai: --url must look like http://localhost:8000/v1")
        try:
            import openai

            from ajbench.captions.bounded_http import Bounded, proxy_of
        except ImportError:
            raise MissingError(
                "backend openai: the package openai is not installed; pip install 'ajbench[llm]'"
            ) from None
        # The two interfaces answer in different ways.
        identity = model if api == "chat" else f"{model} {api}"
        self.model, self.model_hash = model, xxhash.xxh3_64_hexdigest(identity.encode())
        self.concurrency, self.retries, self.api = concurrency, retries, api
        self.retried: Counter[str] = Counter()
        self.requests = 0
        self._began: float | None = None
        self._lock = threading.Lock()
        self._address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._client = openai.OpenAI(
            base_url=url,
            api_key=key or os.environ.get(KEY) or "none",
            max_retries=0,
            timeout=timeout_s,
            http_client=openai.DefaultHttpxClient(transport=Bounded(proxy_of(url))),
        )

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        grammar: str | None = None,
        seed: int = 0,
    ) -> list[Answer]:
        """Complete each prompt; see `backends.Backend`.

        Raises:
            MissingError: no server answers at the address, or the server refuses the key or the model.
        """
        options: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "seed": seed,
        }
        if grammar:  # llama.cpp's name for it, and vLLM's
            options["extra_body"] = {"grammar": grammar, "structured_outputs": {"grammar": grammar}}
        if self.api == "completions" and stop:
            options["stop"] = list(stop)
        self._began = self._began or time.monotonic()
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            return list(pool.map(lambda prompt: self._answer(prompt, options, stop), prompts))
        finally:
            pool.shutdown(cancel_futures=True)

    def summary(self) -> str:
        """Return how many requests were made, at what rate, and why how many were sent again."""
        seconds = time.monotonic() - (self._began or time.monotonic())
        rate = f", {self.requests / seconds:.3g}/s" if seconds else ""
        reasons = "".join(f", {n:,} sent again ({reason})" for reason, n in self.retried.most_common())
        return f"{counted(self.requests, 'request')}{rate}{reasons}"

    def _answer(self, prompt: str, options: dict[str, Any], stop: Sequence[str]) -> Answer:
        wait, jitter = FIRST_WAIT_S, random.Random(prompt)
        for left in range(self.retries, -1, -1):
            answer, asked_s = self._try(prompt, options, stop, last=not left)
            if asked_s is None or not left:
                break
            with self._lock:
                self.retried[str(answer.reason)] += 1
            time.sleep(min(max(asked_s, wait * jitter.uniform(0.75, 1.25)), LONGEST_WAIT_S))
            wait *= 2
        with self._lock:
            self.requests += 1
        return answer

    def _try(
        self, prompt: str, options: dict[str, Any], stop: Sequence[str], last: bool
    ) -> tuple[Answer, float | None]:
        """Return an answer, and where it is worth another try the seconds that the server asks to wait."""
        import openai

        try:
            if self.api == "chat":
                message: Any = {"role": "user", "content": prompt}
                reply: Any = self._client.chat.completions.create(messages=[message], **options)
                text = (reply.choices[0].message.content or "").strip()
                ended = False
            else:
                reply = self._client.completions.create(prompt=prompt, **options)
                text = _cut(reply.choices[0].text, stop)
                ended = text != reply.choices[0].text.strip()  # by one of `stop`, before the limit
            short = reply.choices[0].finish_reason == "length" and not ended
        except openai.APITimeoutError:
            return Answer(None, "time-out"), 0.0
        except openai.APIConnectionError as error:
            if last and type(error.__cause__).__name__ == "ConnectError":
                raise MissingError(
                    f"backend openai: no server answers at {self._address}; start the server and run again"
                ) from None
            return Answer(None, "connection broken"), 0.0
        except openai.APIStatusError as error:
            code = error.status_code
            if code in REFUSED:
                raise MissingError(
                    f"backend openai: {self._address} refuses {REFUSED[code]} (HTTP {code}); check --model, "
                    f"--url and ${KEY}"
                ) from None
            again = code in RETRIED or code >= 500
            return Answer(None, f"HTTP {code}"), _seconds(error.response.headers) if again else None
        except (openai.APIError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
            return Answer(None, "malformed answer"), 0.0
        if not text:
            return Answer(None, "empty answer"), 0.0
        return Answer(text, CUT if short else None), None


def _cut(text: str, stop: Sequence[str]) -> str:
    """Return a completion up to the first of `stop`, without white space around it."""
    text = text.strip()
    return text[: min((place for end in stop if (place := text.find(end)) >= 0), default=None)].strip()


def _seconds(headers: Any) -> float:
    """Return the seconds of a `Retry-After`, 0 where there is none."""
    try:
        return max(float(headers.get("retry-after", 0)), 0.0)
    except ValueError:
        return 0.0
