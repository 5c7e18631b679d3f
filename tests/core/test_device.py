"""The device of a process and the precision of a training."""

import pytest

from ajbench.core.device import resolve_precision


@pytest.mark.parametrize(("device", "auto"), [("cpu", "fp32"), ("mps", "fp32"), ("cuda", "bf16")])
def test_auto_is_bf16_on_cuda_alone_and_a_named_precision_is_kept(device, auto):
    assert resolve_precision("auto", device) == auto
    assert [resolve_precision(name, device) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
