"""The openai backend against a real server process that fails in every way that servers do."""

import contextlib
import http.client
import http.server
import os
import subprocess
import sys
import threading
import time
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from fakes import openai_process

from ajbench.captions import backends, caption_table, openai_server
from ajbench.captions.answers import CUT
from ajbench.captions.backends import Answer
from ajbench.captions.bounded_http import proxy_of
from ajbench.core.errors import MissingError, UsageError

OPTIONS = {"max_tokens": 20, "stop": ("\n",)}
FAULTS = {
    "busy": "HTTP 429",
    "error": "HTTP 503",
    "slow": "time-out",
    "drip": "time-out",
    "drip-head": "time-out",
    "malformed": "malformed answer",
    "nonsense": "malformed answer",
    "cut": "connection broken",
    "endless": "connection broken",
    "deep": "malformed answer",
    "empty": "empty answer",
}


@pytest.fixture(scope="module")
def server():
    with openai_process(delay_s=0.05) as running:
        yield running


@pytest.fixture
def load(server, monkeypatch):
    monkeypatch.setattr(openai_server, "FIRST_WAIT_S", 0.01)

    def make(fault="", **options):
        wait = 1.5 if fault in ("slow", "drip", "drip-head") else 60
        given = {"model": "fake", "url": server[1], "timeout_s": wait, "retries": 2} | options
        return backends.load("openai", **given)

    return make


@pytest.mark.parametrize("api", openai_server.APIS)
def test_every_prompt_gets_its_own_answer_in_order(server, load, api):
    prompts = [f"an instruction\n{api} {n}" for n in range(60)]
    backend = load(api=api, concurrency=8)
    rest = (
        "\nand more" if api == "chat" else ""
    )  # a chat may think first; `answers.sentence` finds the sentence
    expected = [Answer(f"answer to {api} {n}{rest}", None) for n in range(60)]
    assert backend.complete(prompts, **OPTIONS) == expected
    log = server[2]()
    assert all(log["seen"][f"{api} {n}"] == 1 for n in range(60))
    assert 4 <= log["most"] <= 8
    assert backend.requests == 60 and not backend.retried and "60 requests" in backend.summary()


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
def test_a_failed_request_is_sent_again_and_the_reason_recorded(load, fault, reason):
    backend = load(fault)
    answers = backend.complete([f"{fault} 1", "fine 1", f"{fault} 2"], **OPTIONS)
    assert [answer.text for answer in answers] == [
        f"answer to {p}\nand more" for p in (f"{fault} 1", "fine 1", f"{fault} 2")
    ]
    assert backend.retried == {reason: 2} and reason in backend.summary()


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
def test_after_the_retries_there_is_an_answer_without_text(server, load, fault, reason):
    backend = load(fault, retries=1)
    given_up, fine = backend.complete([f"always-{fault} 3", f"fine {fault}"], **OPTIONS)
    assert given_up == Answer(None, reason) and fine == Answer(f"answer to fine {fault}\nand more", None)
    assert server[2]()["seen"][f"always-{fault} 3"] == 2


@pytest.mark.parametrize("api", openai_server.APIS)
def test_an_answer_that_is_cut_at_the_limit_says_so(load, api):
    assert load(api=api).complete(["always-short 1"], **OPTIONS) == [Answer("answer to", CUT)]


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests for any host on to the fake server, and notes which host they were for."""

    asked: ClassVar[list[str]] = []
    server_url = ""

    def do_POST(self):
        self.asked.append(urlsplit(self.path).hostname)
        there = urlsplit(self.server_url)
        connection = http.client.HTTPConnection(there.hostname, there.port, timeout=60)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        self.send_response(answer.status)
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            while piece := answer.read1(1 << 16):
                self.wfile.write(piece)

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("fault", ["", "endless", "drip"])
def test_a_proxy_of_the_environment_is_used_with_the_same_limits(server, load, monkeypatch, fault):
    Proxy.asked.clear()
    Proxy.server_url = server[1]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        backend = load(fault, url="http://models.example/v1")
        (answer,) = backend.complete([f"{fault or 'by proxy'} 7 {fault}"], **OPTIONS)
        proxy.shutdown()
    assert answer.text == f"answer to {fault or 'by proxy'} 7 {fault}\nand more"
    assert set(Proxy.asked) == {"models.example"}
    assert backend.retried == ({FAULTS[fault]: 1} if fault else {})


def test_a_server_here_or_in_no_proxy_is_reached_directly(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "models.example")
    assert proxy_of("https://api.example/v1") == "http://proxy.example:3128"
    direct = (
        "https://models.example/v1",
        "https://localhost:8000/v1",
        "https://127.0.0.1/v1",
        "https://[::1]/v1",
    )
    assert [proxy_of(url) for url in direct] == [None] * 4
    monkeypatch.setenv("https_proxy", "socks5://proxy.example:1080")
    with pytest.raises(UsageError, match="proxy socks5://: allowed: http, https"):
        proxy_of("https://api.example/v1")


def test_a_refused_prompt_is_not_sent_again(server, load):
    assert load().complete(["always-refuse 1"], **OPTIONS) == [Answer(None, "HTTP 400")]
    assert server[2]()["seen"]["always-refuse 1"] == 1


def test_the_key_is_in_no_message(load, monkeypatch):
    monkeypatch.setenv(openai_server.KEY, "sk-secret")
    backend = load()
    with pytest.raises(MissingError, match=openai_server.KEY) as caught:
        backend.complete(["forbid 1"], **OPTIONS)
    shown = f"{caught.value} {backend.summary()} {backend.model_hash} {backend!r}"
    assert "secret" not in shown
    attributes = {name: value for name, value in vars(backend).items() if name != "_client"}
    assert "secret" not in str(attributes)


def test_waits_double_and_follow_the_server(load, monkeypatch):
    waits = []
    monkeypatch.setattr(openai_server, "FIRST_WAIT_S", 0.5)
    monkeypatch.setattr(time, "sleep", waits.append)
    load(retries=4).complete(["always-busy waits"], **OPTIONS)
    assert len(waits) == 4
    assert all(0.75 * 0.5 * 2**n <= wait <= 1.25 * 0.5 * 2**n for n, wait in enumerate(waits))
    assert openai_server._seconds({"retry-after": "7"}) == 7
    assert openai_server._seconds({"retry-after": "tomorrow"}) == openai_server._seconds({}) == 0


def test_a_server_killed_in_the_middle_ends_the_run_instead_of_answering_for_it(monkeypatch):
    monkeypatch.setattr(openai_server, "FIRST_WAIT_S", 0.01)
    with openai_process(delay_s=0.1) as (process, url, _):
        backend = backends.load("openai", model="fake", url=url, concurrency=2, retries=1)
        assert backend.complete(["one"], **OPTIONS)[0].text
        process.kill()
        process.wait()
        with pytest.raises(MissingError, match=r"127\.0\.0\.1"):
            backend.complete([f"prompt {n}" for n in range(10)], **OPTIONS)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"model": ""}, UsageError, "--model"),
        ({"api": "assistants"}, UsageError, "api"),
        ({"concurrency": 0}, UsageError, "concurrency"),
        ({"url": "localhost"}, UsageError, "--url"),
        ({"threads": 3}, UsageError, "threads"),
    ],
)
def test_wrong_options_are_named(load, options, error, named):
    with pytest.raises(error, match=named):
        load(**options)


def test_no_address_is_no_default(monkeypatch):
    monkeypatch.delenv(openai_server.URL, raising=False)
    with pytest.raises(MissingError, match="--url"):
        backends.load("openai", model="fake")


def test_the_hash_is_that_of_the_models_name(load):
    assert load().model_hash == load(concurrency=1).model_hash != load(model="other").model_hash


def test_an_unknown_backend_is_refused():
    with pytest.raises(UsageError, match="lamacpp"):
        backends.load("lamacpp")


def test_a_killed_command_goes_on_with_nothing_lost_and_nothing_asked_twice(tmp_path):
    clips, chunk = 120, 20
    faults = {3: "busy", 50: "malformed", 77: "error"}
    names = [f"{faults.get(n, 'sound')} {n};Rain" for n in range(clips)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["clip_id,labels", *(f"c{n},{name}" for n, name in enumerate(names))]) + "\n")

    def command(url, out):
        options = ["--labels", table, "--out", tmp_path / out, "--chunk", chunk, "--backend", "openai"]
        options += ["--url", url, "--model", "fake", "--concurrency", 4, "--timeout-s", 60, "-q"]
        return [sys.executable, "-m", "ajbench", "caption", *map(str, options)]

    quiet = {
        "env": os.environ | {openai_server.KEY: "sk-secret"},
        "cwd": tmp_path,
        "stdout": subprocess.DEVNULL,
    }
    with openai_process(delay_s=0.1) as (_, url, log):
        with subprocess.Popen(command(url, "killed"), **quiet) as process:
            while len(finished := [*(tmp_path / "killed").glob("part-*")]) < 2:
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
        assert len(finished) < clips // chunk
        subprocess.run(command(url, "killed"), **quiet, check=True)
        seen = log()["seen"]
    whole = {f"answer to {name.replace(';', ', ').lower()}." for name in names}
    rows = caption_table.read(tmp_path / "killed").to_pylist()
    assert [row["clip_id"] for row in rows] == [f"c{n}" for n in range(clips)]
    assert {row["text"].lower() for row in rows} == whole and not any(row["fallback"] for row in rows)
    done = [
        n for part in finished for n in range(chunk * int(part.stem[-5:]), chunk * (int(part.stem[-5:]) + 1))
    ]
    counts = {key.lower(): n for key, n in seen.items()}
    for n in done:
        assert counts[names[n].replace(";", ", ").lower() + "."] == (2 if n in faults else 1)
    assert b"sk-secret" not in b"".join(
        p.read_bytes() for p in (tmp_path / "killed").rglob("*") if p.is_file()
    )
