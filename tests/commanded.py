"""`eval-gen` of two folders by a classifier that was never trained, as tests call it."""

from ajbench import classifiers


def untrained(folder, labels, samples):
    """Save a classifier of random weights and return its folder."""
    about = {"name": "taltrans-small", "labels": list(labels), "clip_samples": samples, "options": {}}
    classifiers.save(classifiers.build("taltrans-small", len(labels)), folder, **about, extra={})
    return folder


def eval_gen(folders, judge, resamples):
    """Return the command that compares the folders gen and ref below `folders`."""
    sets = ["--gen", str(folders / "gen"), "--ref", str(folders / "ref"), "--work", str(folders / "w")]
    return ["eval-gen", *sets, "--features", f"reference={judge}", "--bootstrap", resamples]
