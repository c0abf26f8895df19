"""The mathematics touches no file, clock or flag; what only reads records starts without JAX."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diet_jax"
PURE = (
    "models optim compact train touched unroll metagrad bilevel influence memory outlook metrics "
    "ranking baselines"
).split()
EDGE = (
    "data checkpoint record console report summary export files run main evaluate job opened rates "
    "resume same_log tune"
).split()
OUTSIDE = "os pathlib logging absl orbax time".split()


def module_of(path: Path) -> str:
    return ".".join(("diet_jax", *path.relative_to(PACKAGE).with_suffix("").parts))


SOURCES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """All modules that a module names in its imports, `a.b` for `from a import b` too."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(imported: set[str], packages: list[str]) -> set[str]:
    return {i for i in imported for p in packages if i == p or i.startswith(f"{p}.")}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_edge(name):
    family = [m for m in SOURCES if within({m}, [f"diet_jax.{name}"])]
    assert family
    for module in family:
        forbidden = [f"diet_jax.{edge}" for edge in EDGE] + OUTSIDE
        assert not within(imports(module), forbidden), module


def test_only_commands_import_the_story():
    for module in SOURCES:
        seen = within(imports(module), ["diet_jax.run", "diet_jax.main", "diet_jax.evaluate"])
        commands = ("diet_jax.main", "diet_jax.evaluate", "diet_jax.rates")
        assert not seen or module in commands and within(seen, ["diet_jax.run"]) == seen, module


@pytest.mark.parametrize("name", ["report", "summary", "record", "same_log", "console", "files"])
def test_what_reads_records_imports_no_jax(name):
    for module in SOURCES:
        if within({module}, [f"diet_jax.{name}"]):
            assert not within(imports(module), ["jax", "jaxlib", "flax", "optax"]), module


def test_only_sharding_knows_devices_and_processes():
    words = ("jax.devices", "process_index", "process_count", "jax.distributed", "multihost")
    for module, path in SOURCES.items():
        if module not in ("diet_jax.sharding", "diet_jax.data.feed"):  # it is given a sharding
            assert not [word for word in words if word in path.read_text()], module
