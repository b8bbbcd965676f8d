"""The façade on real parts: one night, and the same night again."""

from collections.abc import Callable

from clip_courier.courier import Courier
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW


def test_night_and_returns_then_nothing_is_due(stage: Stage, courier: Courier, truth: dict[str, str]) -> None:
    first = courier.night(NIGHT)
    assert first.is_new
    assert not first.failures
    for vendor in stage.vendors.values():
        assert vendor.work(truth, NOW)
    assert courier.returns().is_new
    assert not courier.night(NIGHT).is_new
    assert not courier.returns().is_new
    assert not courier.recall().is_new
    assert courier.verify().counts["clips"]


def test_night_is_the_same_under_another_root(
    stage: Stage, make_courier: Callable[..., Courier], tmp_path_factory: object
) -> None:
    one = make_courier(stage).select(NIGHT)
    assert one.counts["selected"]
