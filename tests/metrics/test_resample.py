import numpy as np
import pytest

from ajbench.metrics.resample import ends


def test_ends_are_centred_on_the_value_and_not_beyond_what_can_be():
    draws = np.linspace(0.3, 0.9, 601)  # their mean is 0.6
    assert ends(0.8, draws) == pytest.approx((0.515, 1.085))
    assert ends(0.8, draws, limits=(0, 1)) == pytest.approx((0.515, 1))
    assert ends(0.1, draws, limits=(0, 1)) == pytest.approx((0, 0.385))
    assert ends(-1e-14, draws * 1e-15, limits=(0, np.inf))[0] == -1e-14  # of two equal sets
    assert np.isnan(ends(0.8, draws[:0], limits=(0, 1))).all()
