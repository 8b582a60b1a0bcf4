"""Imports never run upwards: DESIGN's "Layers, from the ground", and no circles among modules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "machinectl_py"

GROUND = {"", "errors", "record", "codec", "log", "thirdparty"}  # "" is the version
# Each layer and what it may import besides its own.
LAYERS = {
    "kernel": GROUND,
    "config": GROUND,
    "plan": GROUND | {"layout", "config", "kernel"},
    "managers": GROUND | {"layout", "kernel"},
    "network": GROUND | {"layout", "kernel"},
    "images": GROUND | {"layout", "kernel"},
}
LAYERS["runtime"] = {"layout", *LAYERS, *GROUND}
LAYERS["service"] = LAYERS["cli"] = {*LAYERS["runtime"], "runtime"}
LAYERS["__main__"] = {"cli"}
# The plan's protocols and their records are made to be implemented by the layers beside it.
EXCEPTIONS = {
    ("managers", "machinectl_py.plan.ports"),
    ("cli", "machinectl_py.service.server"),  # the verb that is the service's process
}


def layer_of(module: str) -> str:
    """Return "kernel" of "machinectl_py.kernel.mount", "" of the package itself."""
    return module.partition(".")[2].partition(".")[0]


def module_names() -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


MODULES = module_names()


def source_of(module: str) -> str:
    path = PACKAGE.parent / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def imported(nodes: list[ast.stmt] | ast.AST) -> set[str]:
    """Return the modules of ours that import statements name, wherever they stand."""
    tree = ast.Module(nodes, []) if isinstance(nodes, list) else nodes
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return {name for name in found if name.split(".")[0] == "machinectl_py"}


def upward(module: str, source: str) -> set[str]:
    """Return the imports of a module that its layer may not have."""
    layer = layer_of(module)
    allowed = LAYERS.get(layer, GROUND) | {layer}
    return {
        name
        for name in imported(ast.parse(source))
        if layer_of(name) not in allowed and (layer, name) not in EXCEPTIONS
    }


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_nothing_from_above(module):
    assert upward(module, source_of(module)) == set()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("machinectl_py.kernel.mount", "from machinectl_py.layout import RUN_DIR"),
        ("machinectl_py.kernel.mount", "import machinectl_py.config.spec"),
        ("machinectl_py.config.spec", "from machinectl_py.kernel import const"),
        ("machinectl_py.plan.step", "def f():\n    from machinectl_py.runtime import state"),
        ("machinectl_py.managers.systemd", "from machinectl_py.plan.facts import HostFacts"),
        ("machinectl_py.images.store", "from machinectl_py.plan.ports import CgroupPlace"),
        ("machinectl_py.runtime.state", "from machinectl_py.cli import render"),
        ("machinectl_py.cli.main", "from machinectl_py.service import bus"),
        ("machinectl_py.errors", "from machinectl_py import layout"),
    ],
)
def test_an_import_from_above_is_seen(module, line):
    assert upward(module, line)


def test_every_package_has_a_layer():
    assert {layer_of(name) for name in MODULES} <= {*LAYERS, *GROUND, "layout"}


def test_no_circle_among_imports_at_module_level():
    # What only the type checker sees stands in `if TYPE_CHECKING:`, what is late in a function.
    late = (ast.If, ast.FunctionDef, ast.ClassDef)
    edges = {}
    for module in MODULES:
        body = [node for node in ast.parse(source_of(module)).body if not isinstance(node, late)]
        edges[module] = imported(body) - {module}
    while leaves := {module for module, names in edges.items() if not names & edges.keys()}:
        for module in leaves:
            del edges[module]
    assert edges == {}
