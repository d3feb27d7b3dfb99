"""Who may import whom, as docs/ARCHITECTURE.md says: parsed from the source, so that it stays true."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"raypatch": ROOT / "raypatch", "raypatch.analysis": ROOT / "analysis"}
OPTIONAL = {"ray", "medmnist", "fvcore", "optuna", "pandas", "scipy", "sklearn", "matplotlib", "typer", "tensorboardX"}
MAY_IMPORT_RAY = {
    "raypatch.sweep.executors.tune_hooks",
    "raypatch.sweep.executors.tuner",
    "raypatch.sweep.services.ray_setup",
    "raypatch.sweep.executors.ray_cap",
    "raypatch.sweep.executors.cluster",
    "raypatch.sweep.watch.gauges",
    "raypatch.sweep.watch.tracking",
}
LAYERS = (
    (
        "raypatch.data.catalog",
        "raypatch.machine",
        "raypatch.storage",
        "raypatch.registry",
        "raypatch.words",
        "raypatch.fields",
        "raypatch",
    ),
    ("raypatch.trial_fields",),
    ("raypatch.config", "raypatch.search_settings", "raypatch.factors"),
    ("raypatch.data", "raypatch.results"),
    (
        "raypatch.tasks",
        "raypatch.machine.runtime",
        "raypatch.methods",
    ),  # raypatch.methods names its members, and loads none
    ("raypatch.models", "raypatch.selection"),
    ("raypatch.study", "raypatch.study.resolve"),
    ("raypatch.training",),
    ("raypatch.features", "raypatch.objectives"),
    ("raypatch.methods.finetune", "raypatch.methods.linear_probe", "raypatch.methods.knn", "raypatch.methods.pretrain"),
    ("raypatch.trial",),
    (
        "raypatch.sweep.stop",
        "raypatch.sweep.cost",
        "raypatch.sweep.services",
        "raypatch.sweep.watch",
    ),
    ("raypatch.sweep.session", "raypatch.sweep.executors.preflight"),
    ("raypatch.sweep.plan", "raypatch.sweep.record"),
    ("raypatch.sweep.guard", "raypatch.sweep.watch.tracking"),
    ("raypatch.sweep.parents",),
    ("raypatch.sweep.tuning", "raypatch.sweep.executors"),
    ("raypatch.sweep", "raypatch.analysis", "raypatch.predict", "raypatch.run_folders"),
    ("raypatch.explain",),
    ("raypatch.api",),
    ("raypatch.cli",),
)


def _modules() -> dict[str, ast.Module]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            found[name] = ast.parse(path.read_text("utf-8"))
    return found


def _imports(tree: ast.AST, *, top_level: bool) -> set[str]:
    names: set[str] = set()
    nodes = list(ast.iter_child_nodes(tree) if top_level else ast.walk(tree))
    for_annotations = {id(each) for node in nodes if _is_for_annotations(node) for each in ast.walk(node)}
    for node in nodes:
        if id(node) in for_annotations:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif top_level and isinstance(node, ast.Try):
            names |= _imports(ast.Module(body=node.body, type_ignores=[]), top_level=True)
    return names


def _is_for_annotations(node: ast.AST) -> bool:
    """Whether it is a block of imports that never run: only a type checker reads them."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _layer(module: str) -> int:
    matching = [
        (len(prefix), number)
        for number, layer in enumerate(LAYERS)
        for prefix in layer
        if module == prefix or (prefix != "raypatch" and module.startswith(prefix + "."))
    ]
    assert matching, f"{module} is in no layer: add it to LAYERS and to docs/ARCHITECTURE.md"
    return max(matching)[1]


def _imported_modules(module: str) -> set[str]:
    """The modules of ours that a module imports, at its start or later; `from package import module` means module."""
    found = set()
    for name in _imports(MODULES[module], top_level=False):
        if name in MODULES and name != module:
            found.add(name)
    # A package is imported on the way to each of its modules; it counts where nothing inside it is what is meant.
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


MODULES = _modules()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    for name in _imported_modules(module):
        assert _layer(name) <= _layer(module), f"{module} imports {name}, which stands above it"


def test_no_imports_go_in_a_circle() -> None:
    needs = {module: _imported_modules(module) for module in MODULES}
    while free := [module for module, needed in needs.items() if not needed & needs.keys()]:
        for module in free:
            del needs[module]
    circle = {module: sorted(needed & needs.keys()) for module, needed in needs.items()}
    assert not circle, f"these import each other, or something that does: {circle}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_ray_stays_where_it_belongs(module: str) -> None:
    uses = any(name.split(".")[0] == "ray" for name in _imports(MODULES[module], top_level=False))
    assert not uses or module in MAY_IMPORT_RAY


@pytest.mark.parametrize("module", sorted(name for name in MODULES if _layer(name) <= _layer("raypatch.trial")))
def test_the_core_needs_no_optional_package_at_import(module: str) -> None:
    roots = {name.split(".")[0] for name in _imports(MODULES[module], top_level=True)}
    assert not roots & OPTIONAL


def _is_joblib(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "joblib"


def test_nothing_pickled_is_loaded_and_no_shell_is_used() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword):
                assert node.arg != "shell", module
                if node.arg in ("allow_pickle", "weights_only"):
                    assert isinstance(node.value, ast.Constant), module
                    assert node.value.value is (node.arg == "weights_only"), module
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
                assert node.attr == "UnpicklingError", module
        assert not {"cloudpickle", "dill"} & _imports(tree, top_level=False), module
        from_joblib = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_joblib(node)}
        assert from_joblib <= {"Parallel", "delayed"}, module  # joblib.load unpickles files


def test_every_package_is_installed() -> None:
    """A package that pyproject.toml forgets is missing from the wheel alone."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    found = set()
    for name, folder in {**PACKAGES, "raypatch.search_spaces": ROOT / "search_spaces"}.items():
        for path in folder.rglob("__init__.py"):
            found.add(".".join([name, *path.parent.relative_to(folder).parts]))
    assert found == set(settings["packages"])
