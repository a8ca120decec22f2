import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from students.heads import halves, packed, unpacked, unpacked_rows


def test_packed_numbers_are_the_nearest_of_half_precision():
    values = np.random.default_rng(0).normal(size=300)
    assert unpacked(packed(values), "x", "fit-x") == halves(values)
    assert halves(values) == pytest.approx(values, rel=2**-11)
    assert len(packed(values)) == 800
    # Byte for byte on any machine: IEEE 754 binary16, least byte first.
    assert packed([1.0, -2.0]) == "ADwAwA=="


def test_halves_are_stored_as_they_are():
    values = halves(np.random.default_rng(1).normal(size=50) * 1e-5)
    assert unpacked(packed(values), "x", "fit-x") == values


@pytest.mark.parametrize("number", [70_000.0, -1e9, 1e-9])
def test_numbers_beyond_half_precision_stay_decimals(number: float):
    assert packed([1.0, number]) == [1.0, number]
    assert unpacked(packed([1.0, number]), "x", "fit-x") == (1.0, number)
    assert unpacked_rows(packed([[1.0], [number]]), 2, "x", "fit-x") == ((1.0,), (number,))


def test_rows_come_back_in_order():
    table = ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert unpacked_rows(packed(table), 2, "x", "fit-x") == table
    assert unpacked_rows([list(row) for row in table], 2, "x", "fit-x") == table
    assert unpacked_rows(packed([]), 0, "x", "fit-x") == ()


@pytest.mark.parametrize("value", [None, 5, "not base64!", "AA==", "AAAA", "é", [1, "2"], [[1.0]], [float("nan")]])
def test_anything_else_is_refused(value: object):
    with pytest.raises(
        PocketiqaError, match=r"heads\.x is .* half precision in base64; fit it anew with `pocketiqa f`"
    ):
        unpacked(value, "heads.x", "f")
