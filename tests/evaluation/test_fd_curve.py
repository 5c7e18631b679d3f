import pytest
from fakes import measured, overall, pair_of


def test_the_curve_goes_from_few_clips_to_all_and_to_the_limit(kinds):
    found = measured(pair_of(kinds), ["fd", "fd_inf"], curve=True)
    *own, last = found.curve
    assert [line["n"] for line in own] == [3, 6, 12, 24] and last["n"] == "inf"
    assert own[-1]["fd"] == pytest.approx(overall(found)["fd"], rel=1e-9) and own[-1]["low"] is None
    assert last["fd"] == overall(found)["fd_inf"] and own[0]["fd"] > own[2]["fd"] > last["fd"]
    assert all(line["low"] < line["fd"] < line["high"] for line in own[:-1])
    slope = (own[1]["fit"] - last["fit"]) * 6
    assert own[3]["fit"] == pytest.approx(last["fit"] + slope / 24, rel=1e-9)
