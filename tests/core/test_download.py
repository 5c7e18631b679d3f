"""Downloads of weights from a local server: complete, broken off, wrong, absent; and `doctor`."""

import hashlib
import http.server
import json
import re
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console, weights
from ajbench.core.download import fetch
from ajbench.core.errors import IntegrityError, MissingError, UsageError

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` and notes the requested ranges; can break off, and ignore ranges."""

    content, breaks_after, ranges = CONTENT, None, True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/deep/weights.pt":
            self.send_error(404)
            return
        begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        if begin >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            whole = len(self.server.content)
            self.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def weight_file(server):
    """weight_file(**changes) -> a pinned WeightFile at the server."""

    def make(**changes):
        url = f"http://127.0.0.1:{server.server_port}/deep/weights.pt"
        digest = hashlib.sha256(CONTENT).hexdigest()
        whole = weights.WeightFile("toy", "tests", "toy/w.pt", url, len(CONTENT), digest, "MIT")
        return whole._replace(**changes)

    return make


def test_a_file_is_downloaded_verified_and_not_requested_again(server, weight_file, tmp_path):
    advanced = []
    path = fetch(weight_file(), tmp_path / "new", advanced.append)
    assert path == tmp_path / "new" / "toy" / "w.pt" and path.read_bytes() == CONTENT
    assert sum(advanced) == len(CONTENT) and [p.name for p in path.parent.iterdir()] == ["w.pt"]
    assert fetch(weight_file(), tmp_path / "new") == path and server.asked == [None]


@pytest.mark.parametrize("pinned", [True, False])
def test_a_broken_download_is_resumed(server, weight_file, tmp_path, pinned):
    file = weight_file() if pinned else weight_file(bytes=None, sha256="")
    server.breaks_after = 1_234_567
    with pytest.raises(MissingError, match="1234567 bytes are kept") as error:
        fetch(file, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path / "toy" / "w.pt") in str(error.value)
    assert not (tmp_path / "toy" / "w.pt").exists()
    server.breaks_after = None
    advanced = []
    assert fetch(file, tmp_path, advanced.append).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1234567-"] and sum(advanced) == len(CONTENT)


def test_a_server_without_ranges_starts_over(server, weight_file, tmp_path):
    server.breaks_after = 1_000_000
    with pytest.raises(MissingError):
        fetch(weight_file(), tmp_path)
    server.breaks_after, server.ranges = None, False
    assert fetch(weight_file(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-"]


def test_a_partial_file_that_is_too_long_is_discarded(server, weight_file, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "w.pt.part").write_bytes(CONTENT + b"more")
    assert fetch(weight_file(), tmp_path).read_bytes() == CONTENT


def test_another_file_is_refused_and_not_kept(server, weight_file, tmp_path):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(IntegrityError, match="SHA-256") as error:
        fetch(weight_file(), tmp_path)
    assert "\n" not in str(error.value) and list((tmp_path / "toy").iterdir()) == []
    server.content = CONTENT[:-1]
    with pytest.raises(IntegrityError, match=r"2999999 bytes.*3000000"):
        fetch(weight_file(), tmp_path)
    (tmp_path / "toy" / "w.pt").write_bytes(b"mine")
    with pytest.raises(IntegrityError, match=r"toy/w.pt"):
        fetch(weight_file(), tmp_path)
    assert (tmp_path / "toy" / "w.pt").read_bytes() == b"mine"


def test_failures_are_one_line_with_url_and_place(server, weight_file, tmp_path):
    absent = weight_file(url=weight_file().url + "x")
    with pytest.raises(MissingError, match=r"weights.ptx .*Not Found.*/toy/w.pt$"):
        fetch(absent, tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(MissingError, match=r"weights.pt .*refused.*/toy/w.pt$") as error:
        fetch(weight_file(), tmp_path)
    assert "\n" not in str(error.value)


# The command


@pytest.fixture
def doctor(weight_file, tmp_path, monkeypatch):
    """doctor(*arguments) -> result, with two published files; AJBENCH_WEIGHTS is tmp_path."""
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(weights, "listed", lambda: (weight_file(), weight_file(name="free", sha256="")))
    yield lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])
    console.configure()


def test_doctor_downloads_only_what_is_named_and_shows_the_state(doctor, server, tmp_path):
    shown = doctor("--weights", "--json")
    assert [line["state"] for line in json.loads(shown.stdout)] == ["missing", "missing"]
    assert f"put it at {tmp_path}/toy/w.pt" in shown.stdout and server.asked == []
    got = doctor("--weights", "--download", "toy", "--json")
    assert got.exit_code == 0 and server.asked
    assert [line["state"] for line in json.loads(got.stdout)] == ["right", "right size, hash not pinned"]
    alone = doctor("--download", "toy", "--json")
    assert json.loads(alone.stdout)[0]["path"] == str(tmp_path / "toy" / "w.pt")
    assert doctor("--download", "toy, free").exit_code == 0
    (tmp_path / "toy" / "w.pt").write_bytes(b"x" * len(CONTENT))
    assert "SHA-256 begins with" in json.loads(doctor("--weights", "--json").stdout)[0]["state"]
    assert doctor("--download", "toy").exit_code == IntegrityError.exit_code


def test_failures_of_doctor_are_one_line(doctor, server, monkeypatch):
    assert doctor("--download", "tois").exit_code == UsageError.exit_code
    server.breaks_after = 5
    broken = doctor("--download", "toy", "-q")
    assert broken.exit_code == MissingError.exit_code and broken.stderr.count("\n") == 1
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    unset = doctor("--download", "toy")
    assert unset.exit_code == UsageError.exit_code and "AJBENCH_WEIGHTS is not set" in unset.stderr
