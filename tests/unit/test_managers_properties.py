from __future__ import annotations

import os

import pytest

from machinectl_py.managers import properties

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512M", 512 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("50%", MEMORY // 2),
        ("infinity", properties.INFINITY),
    ],
)
def test_bytes_are_read_as_systemd_reads_them(text, value):
    assert properties.parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "101%", "1e3", "nan%", "17E8", "0x10"])
def test_bytes_that_systemd_refuses_are_refused(text):
    with pytest.raises(ValueError, match=r"number of bytes|percentage"):
        properties.parse_bytes(text)


def test_tasks_as_number_share_and_infinity():
    assert properties.parse_tasks("100") == 100
    assert properties.parse_tasks("infinity") == properties.INFINITY
    assert 1 <= properties.parse_tasks("1%") < properties.parse_tasks("100%") <= 1 << 22


@pytest.mark.parametrize("text", ["0", "-5", "1K", "", "10 %"])
def test_tasks_refused(text):
    with pytest.raises(ValueError, match=r"a number of tasks|percentage"):
        properties.parse_tasks(text)


@pytest.mark.parametrize(
    ("text", "value"), [("20%", 200_000), ("150%", 1_500_000), ("", properties.INFINITY)]
)
def test_quota_is_microseconds_per_second(text, value):
    assert properties.parse_quota(text) == value


@pytest.mark.parametrize("text", ["20", "0%", "-1%", "%"])
def test_quota_refused(text):
    with pytest.raises(ValueError, match=r"percentage|share"):
        properties.parse_quota(text)


@pytest.mark.parametrize("text", ["0", "10001", "idle", "1.5", ""])
def test_weight_refused(text):
    with pytest.raises(ValueError, match="1 to 10000"):
        properties.parse_weight(text)


def test_numbers_are_sorted_and_ranges_resolved():
    assert properties.parse_numbers("5 0-2,1") == (0, 1, 2, 5)
    assert properties.parse_numbers("") == ()


@pytest.mark.parametrize("text", ["a", "3-1", "-", "1-", "0-99999999"])
def test_numbers_refused(text):
    with pytest.raises(ValueError, match="ranges"):
        properties.parse_numbers(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90_000_000), ("1min 30s", 90_000_000), ("1min30", 90_000_000), ("5ms", 5000), ("0", 0)],
)
def test_time_spans(text, value):
    assert properties.parse_time(text) == value


@pytest.mark.parametrize("text", ["", "s", "5 parsecs", "-1", "1s;"])
def test_time_spans_refused(text):
    with pytest.raises(ValueError, match="time span"):
        properties.parse_time(text)
