import numpy as np
import pytest

from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence

# By the metric files of haoheliu/audioldm_eval (commit 8dc07ee) and hkchengrex/av-benchmark (050a5cd) on the
# arrays below, in float64; benchmarks/evaluator_parity.py runs them on larger ones and on real clips.
# Both tools' FD, and FD of the first ten clips of each set, fewer than the 16 dimensions.
FD, FD_OF_FEW = 54.76786010145699, 101.39252972519378
# Both tools' inception score, mean and standard deviation.
IS = (2.6402209840855, 0.6207100510455293)
# KL by epsilon and link: audioldm_eval adds 1e-6, av-benchmark nothing.
KL = {
    (1e-6, "softmax"): 5.827806429833872,
    (1e-6, "sigmoid"): 13.969435407477235,
    (0.0, "softmax"): 8.976759478626665,
    (0.0, "sigmoid"): 18.111795123802445,
}


@pytest.fixture(scope="module")
def arrays():
    """Features [40, 16] and [50, 16], rectified, and two [40, 20] of logits whose scale differs by clip."""
    rng = np.random.default_rng(42)
    x, y = (np.maximum(rng.normal(size=(n, 16)) @ rng.normal(size=(16, 16)) + 0.5, 0) for n in (40, 50))
    gen, ref = (rng.normal(size=(40, 20)) * rng.lognormal(1, 1, (40, 1)) for _ in range(2))
    return x, y, gen, ref


def test_fd_is_the_tools(arrays):
    x, y, _, _ = arrays
    assert frechet_distance(x, y) == pytest.approx(FD, rel=1e-12)
    with pytest.warns(UserWarning, match="10 clips in 16 dimensions"):
        few = frechet_distance(x[:10], y[:10])
    # Their root of a singular matrix is off by 1e-8; ours has none.
    assert few == pytest.approx(FD_OF_FEW, rel=1e-7)


def test_inception_score_is_the_tools(arrays):
    assert inception_score(arrays[2]) == pytest.approx(IS, rel=1e-12)


@pytest.mark.parametrize(("eps", "link"), KL)
def test_kl_is_the_tools(arrays, eps, link):
    _, _, gen, ref = arrays
    assert kl_divergence(gen, ref, link, eps=eps) == pytest.approx(KL[eps, link], rel=1e-12)
