"""Frames of a rendered scene as an MP4 file in memory."""

import io

import numpy as np
from numpy.typing import NDArray


def encode(frames: NDArray[np.uint8], fps: int) -> bytes:
    """Encode RGB frames [n, H, W, 3] as H.264 at `fps` frames per second; H and W are even.

    Two calls with the same frames return the same bytes, given the same PyAV and kind of processor.
    """
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # Slower presets write other bytes from call to call.
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
