"""What the report says of an F that is exact, and of one that is wrong by 3 mm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.distillation.distill import initial_forward
from npga_jax.distillation.motion_report import check_report, measure_forward
from npga_jax.nphm.config import METRES_PER_UNIT
from tests.distillation.ball_person import CODES, HELD_OUT, OPTIONS, distilled

SHIFT_MM = 3.0


def still_head(shift_mm: float):
    """A head model that takes every point a constant way along x."""
    _, domain, backward = distilled()
    *layers, last = backward.layers
    bias = np.zeros_like(last["b"])
    bias[0] = shift_mm / 1000 / METRES_PER_UNIT
    last = {"w": jnp.zeros_like(last["w"]), "b": jnp.asarray(bias)}
    return domain, backward._replace(layers=[*layers, last])


def report(params, domain, backward, codes=HELD_OUT):
    domain = domain._replace(surface=domain.surface[::2])
    return measure_forward(params, backward, domain, codes, octaves=OPTIONS.octaves)


def verdicts(measured):
    return {check.name: check.is_met for check in check_report(measured)}


@pytest.mark.parametrize("shift", [0.0, SHIFT_MM])
def test_an_f_that_does_nothing_misses_by_what_the_model_moves(shift):
    domain, backward = still_head(shift)
    params = initial_forward(CODES[0], 1.0, num_features=2, options=OPTIONS)
    measured = report(params, domain, backward)
    assert measured.num_codes == len(HELD_OUT) and measured.num_points > 1000
    for figure in (
        measured.cycle_median_mm,
        measured.cycle_p95_mm,
        measured.cycle_max_mm,
        measured.roots_median_mm,
        measured.roots_p95_mm,
    ):
        assert figure == pytest.approx(shift, abs=2e-4)
    assert measured.roots_found == 1.0 and measured.folded == 0.0
    assert measured.smallest_determinant == pytest.approx(1.0, abs=1e-5)
    # Nothing parts: there are no lips to speak of.
    assert measured.lips_closed_mm == measured.lips_open_mm == 0.0
    met = verdicts(measured)
    assert met["cycle error on the skin"] is (shift == 0)
    assert met["distance from Broyden's roots"] is (shift == 0)
    assert met["smallest det(J) away from the lips"]


def test_a_distilled_f_is_between():
    params, domain, backward = distilled()
    measured = report(params, domain, backward)
    assert 0 < measured.cycle_median_mm < measured.cycle_p95_mm < measured.cycle_max_mm
    assert measured.cycle_median_mm < 0.5
    # A field that hardly stretches: the way back and the way forth differ alike.
    assert measured.roots_median_mm == pytest.approx(measured.cycle_median_mm, rel=0.2)
    assert 0.5 < measured.smallest_determinant < 1.0


def test_folds_are_counted():
    params, domain, backward = distilled()
    wild = jax.tree.map(jnp.asarray, params)
    wild["out_w"] = 300.0 * wild["out_w"]
    measured = report(wild, domain, backward, HELD_OUT[:1])
    assert measured.folded > 0.01 and measured.smallest_determinant < 0
    assert not verdicts(measured)["smallest det(J) away from the lips"]
