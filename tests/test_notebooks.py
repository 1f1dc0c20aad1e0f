"""The notebooks as they are committed; `just notebooks` executes them."""

import ast
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from test_docs import check, commands

FILES = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def cells(file: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == kind]


def imports(source: str) -> list[tuple[str, list[str]]]:
    """(module, names taken from it) of each import."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((str(node.module), [alias.name for alias in node.names]))
    return found


def check_imports(source: str) -> None:
    for module, names in imports(source):
        loaded = import_module(module)
        for name in names:
            assert hasattr(loaded, name), f"{module} has no {name}"


def test_the_notebooks_are_in_order() -> None:
    numbers = [int(file.name[:2]) for file in FILES]
    assert numbers == sorted(set(numbers))
    assert {1, 2, 3, 4, 6} <= set(numbers)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_notebook_is_valid_and_holds_no_output(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_imports_only_what_exists(file: Path) -> None:
    check_imports("\n".join(source for source in cells(file, "code") if not source.startswith("%%")))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_runs_only_commands_that_parse(file: Path) -> None:
    shell = [
        f"```bash\n{source.partition(chr(10))[2]}\n```" for source in cells(file, "code") if source[:6] == "%%bash"
    ]
    for words in commands("\n".join([*shell, *cells(file, "markdown")])):
        if words[0] == "vlakit" and len(words) > 1 and not any("my_robot" in word for word in words):
            check(words)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_shell_would_expand_the_braces_of_an_override(file: Path) -> None:
    for source in cells(file, "code"):
        if source.startswith("%%bash"):
            unquoted = re.sub(r"\"[^\"]*\"|'[^']*'", "", source)
            assert not re.search(r"\{[^}\s]*,[^}]*\}", unquoted)


def test_a_name_that_is_gone_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="nobody"):
        check_imports("from vlakit.schema import nobody")
    with pytest.raises(ModuleNotFoundError):
        check_imports("import vlakit.nothing")
