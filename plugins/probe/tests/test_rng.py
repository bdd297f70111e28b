from __future__ import annotations

import numpy as np
import pytest

from mmfw_probe.rng import Xorshift


def reference(seed, count):
    """xorshift64* in 64-bit registers that wrap by themselves; 16 numbers dropped, the high halves of the next."""
    numbers = []
    with np.errstate(over="ignore"):
        state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
        for _ in range(16 + count):
            for left, by in ((False, 12), (True, 25), (False, 27)):
                shifted = (
                    np.left_shift(state, np.uint64(by)) if left else np.right_shift(state, np.uint64(by))
                )
                state = np.bitwise_xor(state, shifted)
            numbers.append(int(np.right_shift(state * np.uint64(0x2545F4914F6CDD1D), np.uint64(32))))
    return numbers[16:]


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 12345, 2**32 - 1, 2**63 + 7])
def test_numbers_are_the_reference_generators(seed):
    rng = Xorshift(seed)
    assert [rng.below(2**32) for _ in range(200)] == reference(seed, 200)


def test_below_is_a_remainder_and_nothing_of_nothing():
    rng, expected = Xorshift(7), reference(7, 300)
    assert [rng.below(60) for _ in range(300)] == [number % 60 for number in expected]
    assert rng.below(0) == 0


def test_every_object_comes_up_about_as_often():
    rng = Xorshift(1)
    drawn = np.bincount([rng.below(60) for _ in range(12_000)], minlength=60)
    assert len(drawn) == 60
    # 200 each on the average, standard deviation 14.
    assert 130 < drawn.min() <= drawn.max() < 270
