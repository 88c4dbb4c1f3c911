"""The rules of the house: which way imports point, and where heavy libraries live."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "paretone"

# from top to bottom; a part imports only parts of lower rows
ROWS = [
    {"__main__"},
    {"cli"},
    {"study"},
    {"api"},
    {"report", "stepwise"},
    {"transform", "train", "evaluation"},
    {"plan", "model"},
    {"checkpoint", "families", "methods", "data", "results"},
    {"modules"},
    {"groups"},
    {"folders", "memory", "parallel", "progress", "terminal"},
    {"errors", "version"},
]
ROW_OF = {part: number for number, row in enumerate(ROWS) for part in row}
HOMES = {
    "jiwer": {"results"},
    "soundfile": {"data"},
    "soxr": {"data"},
    "datasets": {"data"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "typer": {"cli"},
    "huggingface_hub": {"checkpoint"},
    "safetensors": {"checkpoint"},
    "peft": {"model"},
    "wrapt": {"model"},
    "transformers": {"model", "train", "evaluation", "results"},
    "yaml": {"plan"},
    "ray": {"study"},
    "pyarrow": {"study"},
}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem != "__init__")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
    return names


def test_every_part_has_a_row() -> None:
    assert {part_of(path) for path in FILES} <= set(ROW_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = part_of(path)
    for name in imported(path):
        if name.startswith("paretone.") and (part := name.split(".")[1]) != here:
            assert ROW_OF[part] > ROW_OF[here], f"{here} imports {part}"


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_have_one_home(library: str) -> None:
    users = {part_of(path) for path in FILES for name in imported(path) if name.split(".")[0] == library}
    assert users <= HOMES[library]


@pytest.mark.parametrize("part", ["families", "methods"])
def test_families_and_methods_see_no_disk_and_no_model(part: str) -> None:
    allowed = {"torch", "numpy", "annotated_types", "paretone", *sys.stdlib_module_names} - {
        "pathlib",
        "os",
        "io",
        "shutil",
    }
    for path in (PACKAGE / part).glob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "words", [["--help"], ["compress", "--help"], ["evaluate", "--help"], ["finetune", "--help"], ["demo", "--help"]]
)
def test_help_imports_no_torch(words: list[str]) -> None:
    loaded = run(
        f"import sys; sys.argv = ['paretone', *{words}]\n"
        "from paretone.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print('heavy:', *sorted(heavy))"
    )
    assert loaded.rstrip().endswith("heavy:")


def test_importing_the_package_starts_nothing() -> None:
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "import paretone\n"
        "assert dict(os.environ) == before\n"
        "print(*sorted({'torch', 'transformers', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    )
    assert run(code).strip() == ""


@pytest.mark.parametrize("part", ["families", "methods"])
def test_a_new_file_is_found_without_a_list(part: str) -> None:
    module = __import__(f"paretone.{part}", fromlist=["known"])
    known = getattr(module, f"known_{part}")()
    assert known == sorted(p.stem for p in (PACKAGE / part).glob("[!_]*.py"))
