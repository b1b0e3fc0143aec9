"""Numbers that a candidate's source gives to random generators; the seed of a run is the referee's.

Guarantees: a warning names the line of the call, and the line of the constant that it passes on. It is a warning and no
refusal: a lucky seed does not survive a confirmation, which has a fresh one. Does not: follow a number through calls,
containers or files.
"""

from __future__ import annotations

import ast
import itertools

_MAX_WARNINGS = 10
_SEEDERS = frozenset(
    {
        "manual_seed",
        "manual_seed_all",
        "default_rng",
        "RandomState",
        "SeedSequence",
        "PCG64",
        "PCG64DXSM",
        "MT19937",
        "Philox",
        "SFC64",
    }
)
_RANDOM_SEEDERS = frozenset({"seed", "Random"})  # too common as names: they count only on a module `random`
_SEEDED_PACKAGES = frozenset({"random", "numpy", "torch"})


def seed_warnings(tree: ast.Module) -> tuple[str, ...]:
    """Return a warning for each call that seeds a generator with a number, in the order of the lines; at most ten."""
    nodes = list(ast.walk(tree))
    numbers, imported, modules = _numbers(nodes), _imported_names(nodes), _random_modules(nodes)
    calls = sorted((node for node in nodes if isinstance(node, ast.Call)), key=lambda call: (call.lineno, call.col_offset))
    found = (warning for call in calls if (warning := _warning(call, numbers, imported, modules)))
    return tuple(itertools.islice(found, _MAX_WARNINGS))


def _warning(call: ast.Call, numbers: dict[str, int], imported: dict[str, str], modules: set[str]) -> str:
    """Return what is to say about one call, empty for nothing."""
    name = _seeder(call, imported, modules)
    if not name:
        return ""
    for value in [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "seed")]:
        if (constants := _constants_of(value, numbers)) is not None:
            origin = ", ".join(f"{constant} of line {numbers[constant]}" for constant in constants)
            number = f"a number ({origin})" if origin else "a number"
            return f"line {call.lineno}: {name}(...) has {number}; the seed is the referee's: use prepare.SEED"
    return ""


def _seeder(call: ast.Call, imported: dict[str, str], modules: set[str]) -> str:
    """Return the name of the seeding function that is called, empty for any other."""
    if isinstance(call.func, ast.Name):
        name = imported.get(call.func.id, call.func.id)
        return name if name in _SEEDERS or (name in _RANDOM_SEEDERS and call.func.id in imported) else ""
    if not isinstance(call.func, ast.Attribute):
        return ""
    name, owner = call.func.attr, call.func.value
    owner_name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return name if name in _SEEDERS or (name in _RANDOM_SEEDERS and owner_name in modules) else ""


def _constants_of(node: ast.expr, numbers: dict[str, int]) -> list[str] | None:
    """Return the named numbers that an expression is made of, if it is made of numbers alone; else None."""
    if isinstance(node, ast.Constant):
        return [] if isinstance(node.value, (int, float)) else None
    if isinstance(node, ast.Name):
        return [node.id] if node.id in numbers else None
    if isinstance(node, ast.UnaryOp):
        return _constants_of(node.operand, numbers)
    if isinstance(node, ast.BinOp):
        left, right = _constants_of(node.left, numbers), _constants_of(node.right, numbers)
        return None if left is None or right is None else list(dict.fromkeys([*left, *right]))
    return None


def _numbers(nodes: list[ast.AST]) -> dict[str, int]:
    """Return name -> line of the names that a number is assigned to anywhere in the file, also through other names."""
    pairs: list[tuple[ast.expr, ast.expr]] = []
    for node in nodes:
        if isinstance(node, ast.Assign):
            pairs += [pair for target in node.targets for pair in _pairs(target, node.value)]
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            pairs.append((node.target, node.value))
    pairs.sort(key=lambda pair: pair[0].lineno)
    numbers: dict[str, int] = {}
    for target, value in pairs:
        if isinstance(target, ast.Name) and _constants_of(value, numbers) is not None:
            numbers.setdefault(target.id, target.lineno)
    return numbers


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Take `a, b = 1, 2` apart."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _imported_names(nodes: list[ast.AST]) -> dict[str, str]:
    """Return what the file calls the names that it imports from the packages with generators."""
    return {
        alias.asname or alias.name: alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in _SEEDED_PACKAGES
        for alias in node.names
    }


def _random_modules(nodes: list[ast.AST]) -> set[str]:
    """Return the names under which a module `random` is reached: the standard one, numpy's, torch's."""
    aliases = {
        alias.asname
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if alias.asname and alias.name.rpartition(".")[2] == "random"
    }
    return {"random", *aliases}
