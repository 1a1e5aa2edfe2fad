"""Inputs of test vectors: fixed for ever."""

import numpy as np
import pytest

from minissl.vectors import values


def test_numbers_are_those_of_shake128():
    # written down once: another Python, NumPy or machine must give the same
    assert (64 * values.uniform("a", (6,))).tolist() == [-123, -56, -34, -120, -46, -120]


@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_distinct_values_differ_and_none_is_zero(size):
    found = values.distinct("name", (size,))
    assert len(set(found)) == size and 0 not in found
    assert np.abs(found).min() >= values.STEP / 2
    assert np.diff(np.sort(found)).min(initial=values.STEP) == values.STEP


def test_names_give_different_numbers():
    assert not np.array_equal(values.uniform("a", (20,)), values.uniform("b", (20,)))


def test_shares_and_integers_stay_in_their_range():
    shares = values.share("x", (300,))
    assert shares.min() > 0 and shares.max() < 1
    assert set(values.integers("x", (100,), 4)) == {0.0, 1.0, 2.0, 3.0}


def test_sparse_matrices_have_zero_rows_columns_and_single_zeros():
    w = values.sparse("statistics", (8, 5, 3, 3), zeros=0.7).reshape(8, -1)
    dead_rows, dead_columns = ~w.any(axis=1), ~w.any(axis=0)
    assert dead_rows.any() and dead_columns.any() and not dead_rows.all()
    assert (w[~dead_rows][:, ~dead_columns] == 0).any()
