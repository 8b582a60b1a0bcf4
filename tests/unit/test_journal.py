"""Each act on the host is found again by the name that the journal has of it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from machinectl_py.errors import PymachineError
from machinectl_py.plan import steps
from machinectl_py.plan.step import Step
from machinectl_py.runtime.journal import step_class


def kinds_of(base):
    for kind in base.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def test_each_step_that_outlives_its_process_is_found_by_its_name():
    for module in pkgutil.iter_modules(steps.__path__):
        importlib.import_module(f"{steps.__name__}.{module.name}")
    found = {kind for kind in kinds_of(Step) if kind.name and kind.lifetime == "host"}
    assert len(found) >= 7
    assert {step_class(kind.name) for kind in found} == found


def test_a_step_that_is_not_known_is_refused():
    with pytest.raises(PymachineError, match="'paint'"):
        step_class("paint")
