"""A room imports only rooms above it: the order that keeps the house readable."""

import ast
from pathlib import Path

import minissl

ROOT = Path(minissl.__file__).parent

# from the ground up; names in one row stand on one floor and may not import each other's row above
ORDER = [
    ["errors", "memory", "optional", "__init__"],
    ["kernels"],
    ["blob", "backend"],
    ["sparsity", "machine"],
    ["conv_modes"],
    ["formats"],
    ["data"],
    ["layers", "graph"],
    ["fusion"],
    ["fused_training"],
    ["memory_plan", "backward_plan", "net_weights"],
    ["gradient_check", "net"],
    ["channels", "solvers"],
    ["compaction", "models", "onnx", "state_dicts"],
    ["timing", "summary", "lint", "doctor", "vectors"],
    ["recipes"],
    ["report"],
    ["cli", "__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
            if node.module == "minissl":
                modules = [f"minissl.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "minissl" and len(parts) > 1:
                yield parts[1]


def test_every_module_has_a_room():
    rooms = {room_of(path) for path in ROOT.rglob("*.py")}
    assert rooms <= set(FLOOR)


def test_rooms_import_only_rooms_above_them():
    wrong = []
    for path in ROOT.rglob("*.py"):
        if path == ROOT / "__init__.py":
            continue
        for room in imported_rooms(path):
            if room in FLOOR and FLOOR[room] > FLOOR[room_of(path)]:
                wrong.append(f"{path.relative_to(ROOT)} imports {room}")
    assert not wrong
