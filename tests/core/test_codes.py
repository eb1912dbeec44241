import numpy as np

from npga_jax.core.codes import most_neutral_row, neutral_first


def test_small_codes_come_first_and_equals_keep_their_order():
    codes = np.array([[3.0, 4.0], [0.0, -1.0], [1.0, 0.0], [0.2, 0.1]])
    assert neutral_first(codes).tolist() == [3, 1, 2, 0]
    assert most_neutral_row(codes) == 3
