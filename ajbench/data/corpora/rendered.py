"""Videos that corpora render on demand: their paths in a manifest name no file."""

from ajbench.data.corpora import avdigits, mini_video

RENDERERS = {"mini": mini_video.render, "avdigits": avdigits.render}


def video_source(path: str) -> str | bytes:
    """Return the content of an MP4 file if a corpus renders the video, else the path as it is.

    Raises:
        UsageError: a path of such a corpus that it cannot have written.
    """
    render = RENDERERS.get(path.partition(":")[0])
    return render(path) if render else path
