"""Limits of subvolumes, where the kernel answers as btrfs may; the rest is in integration."""

from __future__ import annotations

import errno

import pytest

from machinectl_py.kernel import quota


@pytest.mark.parametrize(
    ("answers", "asked", "failed"),
    [
        ((None,), 1, None),
        ((errno.EDQUOT, None), 2, None),
        ((errno.EDQUOT, errno.EDQUOT), 2, errno.EDQUOT),
        ((errno.EPERM,), 1, errno.EPERM),
    ],
)
def test_a_limit_that_is_reached_is_asked_for_again(monkeypatch, tmp_path, answers, asked, failed):
    left = list(answers)

    def limit_subvolume(fd, limit):
        if answer := left.pop(0):
            raise OSError(answer, "no")

    monkeypatch.setattr(quota, "_limit_subvolume", limit_subvolume)
    if failed:
        with pytest.raises(OSError, match="ioctl: no") as caught:
            quota.set_subvolume_limit(str(tmp_path), 0)
        assert caught.value.errno == failed
    else:
        quota.set_subvolume_limit(str(tmp_path), 0)
    assert len(answers) - len(left) == asked
