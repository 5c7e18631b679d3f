"""The training of the codec as a stage."""

from ajbench.pipeline.codec_training import codec_stage


def test_the_stage_is_identified_by_its_sounds_and_settings(tmp_path, write_wav):
    write_wav("sounds/a.wav")

    def key(steps=1):
        return codec_stage(tmp_path, [tmp_path / "sounds"], steps, 2, 1, 0).fingerprint

    first = key()
    assert key() == first
    assert key(steps=2) != first
    write_wav("sounds/b.wav")
    assert key() != first
