"""Measure the corpus `mini`: rendered clips and videos per second on one core, mAP of a linear classifier.

Run from the repository root: `OMP_NUM_THREADS=1 python benchmarks/measure_mini.py` (about a minute).
"""

import sys
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from ajbench.core.recipe import Data
from ajbench.data import audio
from ajbench.data.corpora import mini, mini_video

N_CLIPS = 800
N_VIDEOS = 160
TRAIN_SIZES = (240, 800)


def features(wav: np.ndarray) -> np.ndarray:
    """Mean, deviation, 90th percentile and mean absolute frame difference of 64 log-mel bands → [256]."""
    shape = {"n_fft": 1024, "win": 640, "hop": 160, "n_mels": 64, "f_min": 0, "f_max": 8000}
    bands = audio.log_mel(torch.from_numpy(wav)[None], **shape)[0].numpy()
    steps = np.abs(np.diff(bands, axis=1))
    return np.concatenate([bands.mean(1), bands.std(1), np.percentile(bands, 90, axis=1), steps.mean(1)])


def main() -> None:
    """Print the speed, and for each corpus size the mAP on fold 5 of the largest corpus."""
    torch.set_num_threads(1)
    started = time.process_time()
    clips = [mini.render(0, index) for index in range(N_CLIPS)]
    seconds = time.process_time() - started
    sys.stdout.write(f"{N_CLIPS / seconds:.0f} clips of 5.04 s a second of CPU time\n")
    videos = [str(row.video) for row in mini.read(Data(n_clips=N_VIDEOS, video="tiny_video")).rows]
    started = time.process_time()
    size = sum(len(mini_video.render(path)) for path in videos)
    seconds = time.process_time() - started
    sys.stdout.write(f"{N_VIDEOS / seconds:.0f} videos of them, {size / N_VIDEOS / 1000:.0f} kB each\n")
    manifest = mini.read(Data(n_clips=N_CLIPS))
    targets = manifest.label_set.multi_hot([row.labels for row in manifest.rows])
    held_out = np.array([row.split == "eval" for row in manifest.rows])
    table = StandardScaler().fit_transform(np.stack([features(wav) for wav, _, _ in clips]))
    for size in TRAIN_SIZES:
        train = ~held_out & (np.arange(N_CLIPS) < size)
        model = LogisticRegression(C=0.02, max_iter=500)
        fits = (model.fit(table[train], column) for column in targets[train].T)
        scores = np.stack([fit.predict_proba(table[held_out])[:, 1] for fit in fits], axis=1)
        value = average_precision_score(targets[held_out], scores)
        sys.stdout.write(f"{train.sum()} training clips: mAP {value:.3f} on {held_out.sum()} clips\n")


if __name__ == "__main__":
    main()
