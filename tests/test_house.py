"""The house rules that no linter knows: what imports what, how long things are, and that every plug-in is tested."""

from __future__ import annotations

import ast
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "nuclens"
KINDS = ("networks", "encodings", "datasets", "readers", "formats", "metrics", "protocols", "engines")
HEAVY = {"cv2", "imagecodecs", "matplotlib", "openslide", "openvino", "pyarrow", "pydantic", "shapely", "tifffile"}
HEAVY |= {"torch"}
NEED_TORCH = ("networks.", "engines.torch")
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 500, 45, 6

# Imports each module after forgetting all others of ours, so that it must bring what it needs; torch may be walled off.
ALONE = """
import importlib, importlib.abc, sys
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "lightning"}:
            raise ModuleNotFoundError(f"{name} behind the wall", name=name)
walled, names = sys.argv[1] == "wall", sys.argv[2:]
if walled:
    sys.meta_path.insert(0, Wall())
for name in names:
    # Lists, as a thread that a library began may import meanwhile.
    for known in [known for known in list(sys.modules) if known.partition(".")[0] == "nuclens"]:
        del sys.modules[known]
    importlib.import_module(name)
    print(name, *(known for known in list(sys.modules) if known.startswith("nuclens.")))
"""


def plugins(kind: str) -> tuple[str, ...]:
    return tuple(name for _, name, _ in pkgutil.iter_modules([str(SOURCE / kind)]) if not name.startswith("_"))


PLUGINS = [f"{kind}.{name}" for kind in KINDS for name in plugins(kind)]
LIGHT = [plugin for plugin in PLUGINS if not plugin.startswith(NEED_TORCH)]
TRAINED = [plugin for plugin in PLUGINS if plugin.startswith(NEED_TORCH)]


def python(*arguments: str) -> str:
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(run.stderr)
    return run.stdout


def project_files() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: which files belong to the project is unknown")
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for path in map(ROOT.joinpath, names) if path.is_file()]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    doc = function.body[0] if ast.get_docstring(function) else None
    documented = (doc.end_lineno or 0) - doc.lineno + 1 if doc else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    spec = function.args
    names = [argument.arg for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_importing_nuclens_loads_nothing_heavy() -> None:
    loaded = set(python("-c", "import sys, nuclens; print(*sys.modules)").split())
    assert "nuclens" in loaded
    assert loaded & HEAVY == set()


def test_every_light_plugin_imports_alone_and_without_torch() -> None:
    check_alone("wall", LIGHT)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_every_other_plugin_imports_alone() -> None:
    check_alone("open", TRAINED)


def check_alone(wall: str, names: list[str]) -> None:
    lines = python("-c", ALONE, wall, *(f"nuclens.{name}" for name in names)).splitlines()
    assert len(lines) == len(names)
    for line in lines:
        module, *loaded = line.split()
        room = module.split(".")[1]
        assert {name.split(".")[1] for name in loaded} <= {room, "core"}, f"{module} drags in {loaded}"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_plugin_has_its_contract_test(plugin: str) -> None:
    kind, _, name = plugin.partition(".")
    assert name in contract_tests(kind), f"tests/{kind} needs a subclass of nuclens.testing.{kind}'s suite for {name!r}"


def contract_tests(kind: str) -> set[str]:
    """Names of the plug-ins that a `Test...` class below a suite of `nuclens.testing` gives as its `name`."""
    found = set()
    for path in (ROOT / "tests" / kind).glob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        suites = {alias.name for node in imports if node.module == f"nuclens.testing.{kind}" for alias in node.names}
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and suites & {ast.unparse(base) for base in node.bases}:
                found |= set(re.findall(r"^    name = '(\w+)'$", ast.unparse(node), re.MULTILINE))
    return found


def test_files_stay_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    assert {str(path): count for path, count in lines.items() if count > MAX_FILE} == {}


def test_functions_stay_short() -> None:
    found = {f"{path}:{one.lineno} {one.name}": one for path in SOURCE.rglob("*.py") for one in functions(path)}
    assert {place: code_lines(one) for place, one in found.items() if code_lines(one) > MAX_FUNCTION} == {}
    assert {place: parameters(one) for place, one in found.items() if parameters(one) > MAX_PARAMETERS} == {}


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "common", "base", "misc"}
    assert [path for path in SOURCE.rglob("*") if path.stem in drawers] == []


def test_no_machine_paths() -> None:
    pattern = re.compile(r"/(?:work|root|home)/|/tmp/[a-z]|/opt/[a-z]")
    found = [path for path in project_files() if pattern.search(path.read_text(encoding="utf-8", errors="ignore"))]
    assert found == []


def test_wheel_carries_weights_types_and_pictures(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    built = next(wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    packed = set(zipfile.ZipFile(built).namelist())
    data = {path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    missing = {str(path.relative_to(SOURCE.parent)) for path in data} - packed
    assert missing == set()
    assert {"nuclens/py.typed", "nuclens/weights/LICENSE.md"} <= packed
