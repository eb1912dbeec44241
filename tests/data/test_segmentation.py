import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.segmentation import REGIONS, region_mask

LABELS = np.arange(20, dtype=np.uint8).reshape(4, 5)


@pytest.mark.parametrize(
    ("region", "members"),
    [
        ("full", range(20)),
        ("head", [2, *range(4, 15)]),
        ("face", [2, *range(4, 14)]),
        ("hair", [14]),
        ("eyes", [8, 9]),
        ("mouth", [11]),
    ],
)
def test_region_holds_its_labels(region, members):
    assert LABELS[region_mask(LABELS, region)].tolist() == list(members)


def test_head_is_face_and_hair():
    assert REGIONS["head"] == REGIONS["face"] | REGIONS["hair"]
    assert REGIONS["eyes"] | REGIONS["mouth"] < REGIONS["face"]


def test_unknown_region_is_an_error():
    with pytest.raises(InputError, match=r"no region 'nose'; regions are full, head"):
        region_mask(LABELS, "nose")
