"""Pictures by timestamp, turned as the file says; sound in step with them; bad files and their reasons."""

import io
import threading
import tracemalloc
import types

import av
import numpy as np
import pytest
from fakes import broken_videos, video_bytes
from hypothesis import given
from hypothesis import strategies as st

from ajbench.core.errors import MissingError
from ajbench.data import audio, container, video
from ajbench.data.video import VideoDefect

# Uneven steps of 1 ms to 1 s; the header's rate of 25 fps would put the frames elsewhere.
TIMES = (0.0, 0.04, 0.5, 0.501, 0.52, 1.4, 2.4, 2.44, 2.6, 2.61)


def grey(number):
    return 20 + 20 * number


@pytest.fixture(scope="module")
def uneven():
    """An MP4 of variable frame rate."""
    return video_bytes([(time, grey(k)) for k, time in enumerate(TIMES)], sound_s=3.0)


def fragmented(content):
    """The same video with a header that counts no frame: they are in fragments behind it."""
    out = io.BytesIO()
    with (
        av.open(io.BytesIO(content)) as before,
        av.open(out, "w", "mp4", options={"movflags": "frag_keyframe+empty_moov"}) as after,
    ):
        stream = before.streams.video[0]
        copied = after.add_stream_from_template(stream)
        for packet in before.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                after.mux(packet)
    return out.getvalue()


def numbers(images):
    """The frames' numbers, by their grey levels."""
    levels = images.reshape(len(images), -1).mean(axis=1)
    return [round((level - 20) / 20) for level in levels]


@given(st.lists(st.floats(-1, 3.4), min_size=1, max_size=12))
def test_the_frame_shown_at_each_time_is_found_by_its_timestamp(uneven, times):
    # Apart from frame borders, where rounding decides.
    times = [t for t in times if min(abs(t - border) for border in TIMES) > 1e-3] or [0.01]
    shown = [max(0, int(np.searchsorted(TIMES, t, side="right")) - 1) for t in times]
    assert numbers(video.frames(uneven, times)) == shown


def test_the_number_of_frames_in_the_header_does_not_matter(uneven):
    none = fragmented(uneven)
    shots = [(k / 25, grey(k // 5)) for k in range(50)]
    avi = bytearray(video_bytes(shots, container="avi", codec="mpeg4"))
    for place in (avi.index(b"avih") + 8 + 16, avi.index(b"strh") + 8 + 32):  # dwTotalFrames, dwLength
        assert int.from_bytes(avi[place : place + 4], "little") == 50
        avi[place : place + 4] = (400).to_bytes(4, "little")
    for content, wrong in ((none, 0), (bytes(avi), 400)):
        with av.open(io.BytesIO(content)) as opened:
            assert opened.streams.video[0].frames == wrong
    assert numbers(video.frames(none, TIMES)) == list(range(len(TIMES)))
    assert numbers(video.frames(bytes(avi), [0.1, 0.3, 1.1, 1.9])) == [0, 1, 5, 9]


def test_a_time_exactly_at_a_border_gets_the_new_frame(uneven):
    assert numbers(video.frames(uneven, TIMES)) == list(range(len(TIMES)))
    thirds = [k / 3 for k in range(9)]  # Matroska rounds them to milliseconds
    content = video_bytes([(t, grey(k)) for k, t in enumerate(thirds)], container="mkv")
    assert numbers(video.frames(content, thirds)) == list(range(9))


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"),
                                               ("avi", "mpeg4"), ("mov", "libx264")])  # fmt: skip
def test_the_usual_containers_have_pictures_and_sound_in_step(tmp_path, suffix, codec):
    path = tmp_path / f"a.{suffix}"
    shots = [(k / 25, grey(k // 5)) for k in range(50)]
    path.write_bytes(video_bytes(shots, container=suffix, sound_s=2.0, codec=codec))
    assert numbers(video.frames(path, [0.1, 0.3, 1.1, 1.9])) == [0, 1, 5, 9]
    assert video.duration_s(path) == pytest.approx(2.0, abs=0.1)
    wav = audio.read(path)
    assert wav.dtype == np.float32 and len(wav) == pytest.approx(32_000, abs=1600)
    spectrum = np.abs(np.fft.rfft(wav[8000:24_000]))
    assert np.argmax(spectrum) == 440
    part = audio.read(path, start_s=0.5, duration_s=1.0)
    assert len(part) == 16_000
    np.testing.assert_allclose(part[2000:14_000], wav[10_000:22_000], atol=0.02)


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_pictures_are_turned_as_the_file_says(turn):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (250, 20, 20)  # red at the top left
    found = video.frames(video_bytes([(0.0, image), (0.04, image)], turn=turn), [0.0])[0]
    expected = np.rot90(image, turn // 90)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected)[4:-4, 4:-4].mean() < 12
    small = next(video.shown(video_bytes([(0.0, image)], turn=turn), [0.0], size=(8, 12)))
    assert small.shape == (8, 12, 3)


def test_a_seek_finds_the_same_frames_as_decoding_from_the_start(monkeypatch):
    content = video_bytes([(k / 10, k % 250) for k in range(200)], sound_s=20.0)
    times = [12.01, 12.55, 18.35]
    sought = video.frames(content, times), video.audio(content, 12.0, 1.0)[0]
    monkeypatch.setattr(container, "SEEK_MARGIN_S", 1e9)
    np.testing.assert_array_equal(sought[0], video.frames(content, times))
    np.testing.assert_allclose(sought[1], video.audio(content, 12.0, 1.0)[0], atol=1e-4)
    assert [round(float(image.mean())) for image in sought[0]] == pytest.approx([120, 125, 183], abs=3)


def test_the_last_picture_stays_while_the_file_lasts_and_after_its_end():
    still = video_bytes([(0.0, 90)], sound_s=2.0)  # a picture and a song
    np.testing.assert_allclose(video.frames(still, [0.0, 1.0, 1.9, 5.0]).mean(axis=(1, 2, 3)), 90, atol=3)
    with pytest.raises(VideoDefect) as caught:
        video.frames(still, [60.0, 61.0])
    assert caught.value.reason == "too short"


def test_frames_before_a_break_are_usable(tmp_path):
    whole = video_bytes([(k / 25, grey(k // 25)) for k in range(250)], container="mkv", sound_s=10.0)
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    ends = video.duration_s(path)
    assert 3 < ends < 7
    assert numbers(video.frames(path, [0.5, 1.5, 2.5])) == [0, 1, 2]
    assert len(audio.read(path, duration_s=2.0)) == 32_000
    with pytest.raises(VideoDefect) as caught:
        video.frames(path, [0.5, 9.5])
    assert caught.value.reason == "truncated" and caught.value.detail
    with pytest.raises(audio.AudioError) as refused:
        audio.read(path)
    assert refused.value.reason.startswith("truncated (")


def test_only_one_picture_at_a_time_is_held():
    content = video_bytes([(k / 25, k % 250) for k in range(100)], size=(480, 640))
    tracemalloc.start()
    for image in video.shown(content, [k / 25 for k in range(100)], size=(16, 16)):
        assert image.shape == (16, 16, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 480 * 640 * 3


def test_fifty_bad_videos_give_a_reason_and_their_sound_where_it_is_whole(tmp_path):
    before = threading.active_count()
    reasons = set()
    for number, (kind, suffix, content, pictures, sound) in enumerate(broken_videos()):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content)
        try:
            images = video.frames(path, [0.1, 1.0, 1.9])
            assert images.shape[0] == 3 and pictures is not False, kind
        except VideoDefect as defect:
            assert pictures is not True, (kind, defect)
            assert str(defect) == f"{path}: {defect.text}" and defect.text.startswith(defect.reason)
            reasons.add(defect.reason)
        try:
            assert len(audio.read(path, duration_s=2.0)) > 30_000 and sound is not False, kind
        except audio.AudioError as defect:
            assert sound is not True, (kind, defect)
    assert reasons <= set(video.REASONS) and {"empty", "unreadable", "no video stream"} <= reasons
    assert threading.active_count() == before


def test_a_picture_too_large_is_refused(monkeypatch):
    content = video_bytes([(0.0, 90)])
    monkeypatch.setattr(container, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(VideoDefect) as caught:
        video.frames(content, [0.0])
    assert caught.value.reason == "too large" and "64 × 48" in caught.value.detail


def test_sound_that_is_longer_than_can_be_held_is_refused_and_its_parts_are_read(uneven, monkeypatch):
    whole, rate = video.audio(uneven)
    monkeypatch.setattr(video, "MOST_VALUES", whole.size // 2)
    with pytest.raises(VideoDefect, match=r"unreadable \(more than 2 s at once\)"):
        video.audio(uneven)
    assert np.array_equal(video.audio(uneven, 1.0, 0.5)[0], whole[rate : round(1.5 * rate)])


def test_a_pause_that_cannot_be_held_is_refused_before_it_is_filled(monkeypatch):
    monkeypatch.setattr(video, "MOST_VALUES", 100_000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.float32), "fltp", "mono")
    frame.sample_rate = 16_000
    track = types.SimpleNamespace(time=0.0, failure="")

    def decoded():
        for track.time in (0.0, 500.0):
            yield frame

    with pytest.raises(ValueError, match="no sound for 500 s"):
        video._samples(track, decoded(), 16_000, 0, float("inf"))


def test_a_lack_of_memory_is_not_blamed_on_the_file(uneven, tmp_path, monkeypatch):
    def lack(*about):
        raise MemoryError("Unable to allocate 4.00 MiB")

    with monkeypatch.context() as changed:
        changed.setattr(video.np, "concatenate", lack)
        with pytest.raises(MemoryError):
            video.audio(uneven)

    def short():
        raise MissingError("out of memory")

    monkeypatch.setattr(container, "need_reserve", short)
    (tmp_path / "bad.mp4").write_bytes(b"this is not a video" * 50)
    for read in (video.audio, video.duration_s, lambda path: video.frames(path, [0.0])):
        with pytest.raises(MissingError, match="out of memory") as caught:
            read(tmp_path / "bad.mp4")
        assert not isinstance(caught.value, VideoDefect)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path, reason in ((tmp_path / "a.mp4", "missing"), (tmp_path, "not a file")):
        with pytest.raises(VideoDefect) as caught:
            video.frames(path, [0.0])
        assert caught.value.reason == reason
    with pytest.raises(ValueError, match="ascending"):
        next(video.shown(b"", [1.0, 0.5]))
    assert video.frames(video_bytes([(0.0, 9)]), []).shape == (0, 0, 0, 3)
