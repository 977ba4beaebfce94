"""The simulated batch: workers that share a disk are as fast as the disk lets them be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulate_batch import Parts, scaling, simulate

PARTS = Parts(10, 5, 1, 5, model_bytes=1e9, state_bytes=2e9, pair_bytes=4e8, steps=600)
FAST = 1e15  # bytes a second: a disk that nobody waits for


def test_states_are_saved_early_and_then_by_minutes() -> None:
    assert PARTS.saves() == [30, 330]
    assert replace(PARTS, save_minutes=20).saves() == [30]
    assert replace(PARTS, step=10).saves()[0] == 60
    assert PARTS.bytes_written() == pytest.approx(4.4e9)


def test_one_worker_takes_the_sum_of_its_parts() -> None:
    alone, busy = simulate(PARTS, FAST, 1, 3)
    assert alone == pytest.approx(10 + 3 * 610, rel=0.05)
    assert busy == pytest.approx(0, abs=0.01)
    slow, busy = simulate(PARTS, 1e8, 1, 3)
    assert slow == pytest.approx(alone + 10 + 3 * 44, rel=0.05)
    assert busy == pytest.approx(10 + 3 * 44, rel=0.05)


def test_without_a_limit_workers_do_not_wait_for_each_other() -> None:
    for rate in scaling(PARTS, FAST):
        assert rate.efficiency == pytest.approx(1, abs=0.06)  # the slowest run's jitter


def test_many_workers_write_no_more_than_the_disk_takes() -> None:
    disk = 1e8
    rates = scaling(PARTS, disk)
    most = disk / PARTS.bytes_written() * 3600
    assert all(rate.images_per_hour < most for rate in rates)
    assert rates[-1].images_per_hour > 0.8 * most
    assert rates[-1].disk_busy > 0.95
    assert rates[-1].efficiency < 0.5 < rates[0].efficiency


def test_jobs_are_given_to_whoever_is_free() -> None:
    one, _ = simulate(PARTS, FAST, 1, 4)
    many, _ = simulate(PARTS, FAST, 9, 4)
    assert many == pytest.approx(one / 4, rel=0.1)
