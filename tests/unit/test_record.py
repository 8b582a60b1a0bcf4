"""Records: frozen, slotted, keyword-only; the same before and after plain data."""

from __future__ import annotations

import pytest

from machinectl_py.record import Record


class Point(Record):
    """A record with a default."""

    x: int
    y: int = 0


class Named(Point):
    """A record on top of another."""

    name: str = ""


class Path(Record):
    """A record of records."""

    points: tuple[Point, ...] = ()
    end: Point | None = None
    pairs: tuple[tuple[str, int], ...] = ()
    origin: Point = Point(x=0)


def test_defaults_fill_what_is_not_given():
    assert Point(x=1).y == 0
    assert Point(x=1, y=2).y == 2


def test_a_missing_field_is_named():
    with pytest.raises(TypeError, match="Point: field 'x' is missing"):
        Point(y=1)


def test_an_unknown_field_is_named():
    with pytest.raises(TypeError, match="Point: unknown field 'z'"):
        Point(x=1, z=1)


def test_fields_are_given_by_name_only():
    with pytest.raises(TypeError):
        Point(1, 2)


def test_a_record_never_changes():
    point = Point(x=1)
    with pytest.raises(AttributeError, match=r"Point\.x is frozen"):
        point.x = 2
    with pytest.raises(AttributeError, match=r"Point\.x is frozen"):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 1
    assert point == Point(x=1)


def test_a_record_has_no_dictionary_of_its_own():
    assert not hasattr(Point(x=1), "__dict__")
    assert not hasattr(Named(x=1), "__dict__")


def test_equal_fields_of_the_same_class_are_equal_and_hash_alike():
    assert Point(x=1) == Point(x=1, y=0)
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != Named(x=1)
    assert len({Point(x=1), Point(x=1, y=0), Point(x=2)}) == 2


def test_repr_is_the_call_that_makes_it():
    assert repr(Named(x=1, name="a")) == "Named(x=1, y=0, name='a')"
    assert eval(repr(Path(end=Point(x=1)))) == Path(end=Point(x=1))


def test_replace_gives_a_changed_copy():
    point = Named(x=1, name="a")
    assert point.replace(y=5) == Named(x=1, y=5, name="a")
    assert point.y == 0


def test_data_is_plain_and_leads_back():
    path = Path(points=(Point(x=1), Point(x=2)), end=Point(x=3), pairs=(("a", 1), ("b", 2)))
    assert path.to_data() == {
        "points": [{"x": 1, "y": 0}, {"x": 2, "y": 0}],
        "end": {"x": 3, "y": 0},
        "pairs": [["a", 1], ["b", 2]],
        "origin": {"x": 0, "y": 0},
    }
    assert Path.from_data(path.to_data()) == path
    assert Path.from_data(Path().to_data()) == Path()


def test_data_of_a_newer_version_loses_only_what_is_not_known_here():
    assert Point.from_data({"x": 1, "colour": "red"}) == Point(x=1)


def test_class_attributes_of_a_base_stay_defaults():
    assert Named.from_data({"x": 1}) == Named(x=1, y=0, name="")


class Circle(Record):
    radius: int
    filled: bool = False


class Shapes(Record):
    parts: tuple[Circle | Point, ...] = ()


def test_data_of_one_of_several_records_leads_back_to_that_one():
    shapes = Shapes(parts=(Point(x=1), Circle(radius=2, filled=True), Point(x=3, y=4)))
    assert Shapes.from_data(shapes.to_data()) == shapes
