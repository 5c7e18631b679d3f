import json

import numpy as np
import pytest
from fakes import caption_rows, save_captioner, video_bytes

from ajbench.captions import caption_table, visual
from ajbench.captions.caption_job import NO_VISUAL, Job
from ajbench.captions.caption_source import Clips
from ajbench.captions.visual import FrameCaptioner, Given, Seen
from ajbench.captions.writers import Template
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.corpora import mini_video
from ajbench.data.manifest import Row
from ajbench.data.video import duration_s as container_end


def test_given_captions_are_those_of_the_column():
    rows = [
        *caption_rows(1),
        *caption_rows(1, visual_caption="  "),
        *caption_rows(1, visual_caption=" a dog "),
    ]
    assert Given().captions(rows) == [None, None, Seen(["a dog"])]


@pytest.fixture(scope="module", params=["blip", "blip-2", "git"])
def folder(request, tmp_path_factory):
    return save_captioner(request.param, tmp_path_factory.mktemp("captioners") / request.param)


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return FrameCaptioner(save_captioner("blip", tmp_path_factory.mktemp("captioners") / "blip"), "cpu")


@pytest.fixture
def video(tmp_path):
    """A video of 12 s whose grey level is 20 times the second."""
    path = tmp_path / "a.mp4"
    path.write_bytes(video_bytes([(t, 20 * t) for t in range(12)]))
    return str(path)


def test_a_captioner_describes_different_images_and_repeats_itself(folder):
    rng = np.random.default_rng(0)
    images = [np.full((20, 30, 3), 10, np.uint8), *rng.integers(0, 255, (4, 20, 30, 3), np.uint8)]
    captioner = FrameCaptioner(folder, "cpu")
    texts = captioner._describe(images)
    assert len(texts) == 5 and len(set(texts)) > 1 and all(text and "[" not in text for text in texts)
    assert texts == FrameCaptioner(folder, "cpu")._describe(images)
    assert captioner.about["model"] == folder.name and len(captioner.about["model_hash"]) == 16


@pytest.mark.parametrize(("start_s", "duration_s"), [(0.0, 11.0), (4.0, 6.0), (0.0, None), (3.0, None)])
def test_frames_are_those_at_a_third_half_and_three_quarters(blip, video, start_s, duration_s):
    times, frames = blip._frames(Row("a", "", start_s, duration_s, video=video))
    length = duration_s or container_end(video) - start_s
    assert times == pytest.approx([start_s + length * place for place in (1 / 3, 1 / 2, 3 / 4)])
    assert np.allclose(frames.mean((1, 2, 3)), [20 * int(time) for time in times], atol=4)


def test_frames_are_those_of_the_clip_where_it_is_shorter_than_its_video(tmp_path, video):
    own = FrameCaptioner(save_captioner("blip", tmp_path / "blip"), "cpu", clip_s=6.0)
    for row, starts in ((Row("a", "", video=video), 0.0), (Row("a", "", 3.0, 8.0, video=video), 3.0)):
        assert own._frames(row)[0] == pytest.approx([starts + 2, starts + 3, starts + 4.5])
    assert own._frames(Row("a", "", 0.0, 3.0, video=video))[0] == pytest.approx([1, 1.5, 2.25])
    assert own.about["clip_s"] == 6.0


def test_captions_are_three_and_unusable_videos_are_counted(blip, video, tmp_path, monkeypatch):
    monkeypatch.setattr(visual, "AT_ONCE", 2)
    (tmp_path / "b.mp4").write_text("not a video")
    rendered = mini_video.video_path(0, 1, mini_video.NAMES[0], 5.04)
    videos = [video, None, str(tmp_path / "b.mp4"), rendered, str(tmp_path / "none.mp4")]
    rows = [Row(f"c{i}", "", 0.0, 5.04, ("Dog",), video=one) for i, one in enumerate(videos)]
    blip.defects.clear()
    found = blip.captions(rows)
    assert [one and len(one.texts) for one in found] == [3, None, None, 3, None]
    assert np.allclose(found[0].times_s, [1.68, 2.52, 3.78])
    assert blip.defects.total() == 2 and "missing" in blip.defects
    Job(("visual", "merge"), Template(), blip, {}).run(Clips(lambda: rows, "rows"), tmp_path / "t")
    table = caption_table.read(tmp_path / "t").to_pylist()
    assert [(row["clip_id"], row["kind"], row["fallback"]) for row in table] == [
        ("c0", "visual", None),
        ("c0", "merge", None),
        ("c1", "merge", NO_VISUAL),
        ("c2", "merge", NO_VISUAL),
        ("c3", "visual", None),
        ("c3", "merge", None),
        ("c4", "merge", NO_VISUAL),
    ]
    assert table[0]["frames"] == found[0].times_s and table[0]["sources"] == found[0].texts
    assert table[0]["text"] in found[0].texts


def test_folders_without_a_captioner_are_refused(tmp_path, blip):
    with pytest.raises(MissingError, match="config"):
        FrameCaptioner(tmp_path / "none", "cpu")
    other = save_captioner("git", tmp_path / "git")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(UsageError, match="bert"):
        FrameCaptioner(other, "cpu")
    (other / "config.json").write_text(json.dumps(config))
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(IntegrityError, match="git"):
        FrameCaptioner(other, "cpu")
