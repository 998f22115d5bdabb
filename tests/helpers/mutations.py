"""Changes to one token or one statement of a source file: bugs that somebody might write.

`mutants_of` finds them all, the same each time. Left out is what changes no result: messages,
annotations, hints on speed.
"""

import ast
import difflib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

OTHERS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.MatMult: ast.Mult,
}  # fmt: skip
NEGATED = ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn  # whose others are negations

CALLED = [  # each name becomes the next one, the last the first
    ("train", "eval"), ("argmax", "argmin"), ("mean", "sum", "amax"), ("amax", "amin"),
    ("max", "min"), ("floor", "ceil"), ("zeros", "ones"), ("zeros_like", "ones_like"),
    ("any", "all"), ("sin", "cos"), ("exp", "log"), ("stack", "cat"), ("sqrt", "square"),
]  # fmt: skip
READ = [
    ("train", "val", "test"), ("mean", "std"), ("height", "width"), ("wide", "tall"),
    ("rows", "columns"), ("left", "top"), ("red", "green", "blue"), ("val_accuracy", "val_loss"),
    ("val_accuracy", "train_accuracy"), ("val_loss", "train_loss"), ("correct", "total"),
]  # fmt: skip

SPEED = {"strict", "non_blocking", "memory_format", "set_to_none", "fused", "dynamic"}
TOLD = {"log", "bar", "live"}  # whose methods only say how it goes
SAYING = {"__repr__", "_bar", "log_epoch"}
MODULES = {"torch", "np", "nn", "F", "math", "geometry", "color", "self", "super"}


@dataclass(frozen=True)
class Mutant:
    """A file with one change in it.

    Attributes:
        id: file, function, kind of change, and a hash of the changed lines: it stays when code
            elsewhere in the file changes.
        place: the function, "Trainer.step"; empty outside of any.
        line: of the change, from 1.
        source: the whole file with the change.
    """

    id: str
    file: str
    place: str
    line: int
    source: str = field(repr=False)
    original: str = field(repr=False)

    @property
    def held_back(self) -> bool:
        """Whether it is of the third that nobody looks at while checks are written."""
        return draw("held back", self.id) % 3 == 0

    def diff(self) -> str:
        """The changed lines, before and after."""
        both = (text.splitlines() for text in (self.original, self.source))
        _, _, _, *changed = difflib.unified_diff(*both, n=0, lineterm="")
        return "\n".join([f"{self.id}, line {self.line}", *changed])


def draw(*words: object) -> int:
    """A number that looks random, the same each time for the same words."""
    return int.from_bytes(hashlib.sha256("\n".join(map(str, words)).encode()).digest()[:8])


def mutants_of(file: str, source: str, functions: set[str] | None = None) -> list[Mutant]:
    """All mutants of a file, or of its functions with these names, in the order of its lines."""
    text, found, count = source.encode(), {}, {}
    starts = [0]  # of each line in bytes, as ast counts columns
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for kind, place, node, new in _changes(ast.parse(source), "", None):
        if functions is not None and not functions & set(place.split(".")):
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        start -= kind == "decorator"  # its @
        changed = (text[:start] + new.encode() + text[end:]).decode()
        if changed == source or changed in found:
            continue
        before, after = starts[node.lineno - 1], starts[node.end_lineno]
        lines = text[before:after], text[before:start] + new.encode() + text[end:after]
        name = f"{file}:{place or 'module'}:{kind}:{draw(*lines) % 2**32:08x}"
        count[name] = count.get(name, 0) + 1
        name += f"~{count[name]}" if count[name] > 1 else ""
        found[changed] = Mutant(name, file, place, node.lineno, changed, source)
    return sorted(found.values(), key=lambda mutant: mutant.line)


Change = tuple[str, str, ast.AST, str]  # kind, function, the node that is replaced, by which text


def _changes(node: ast.AST, place: str, function: ast.AST | None) -> Iterator[Change]:
    """Changes in a node and all below it."""
    if _is_silent(node, function):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        for decorator in node.decorator_list:
            if ast.unparse(decorator).startswith("torch."):
                yield "decorator", f"{place}.{node.name}".strip("."), decorator, ""
        place = f"{place}.{node.name}".strip(".")
        function = node if isinstance(node, ast.FunctionDef) else function
    where = place if function else ""
    for kind, replaced, new in _of_statement(node, function):
        yield kind, where, replaced, new
    for kind, replaced, new in _of_expression(node, function):
        compound = ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp | ast.IfExp
        text = new if isinstance(new, str) else ast.unparse(new)
        yield kind, where, replaced, f"({text})" if isinstance(new, compound) else text
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child, place, function)


def _is_silent(node: ast.AST, function: ast.AST | None) -> bool:
    """Whether nothing in it bears on results."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Raise() | ast.JoinedStr():
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.Subscript(value=ast.Name(id="Annotated")):
            return True
        case ast.FunctionDef(name=name):
            return name in SAYING
        case ast.Expr(value=ast.Call(func=called)):
            return function is None or ast.unparse(called).split(".")[0] in TOLD
        case ast.keyword(arg=name):
            return name in SPEED
    return False


def _of_statement(node: ast.AST, function: ast.AST | None) -> Iterator[tuple[str, ast.AST, str]]:
    match node:
        case ast.Expr(value=ast.Call()):
            yield "delete", node, "pass"
        case ast.AugAssign(target, operator, value):
            yield "delete", node, "pass"
            yield "operator", node, ast.unparse(ast.AugAssign(target, _other(operator), value))
        case ast.Assign(targets=[target]) if function and _runs_without(node, target, function):
            yield "delete", node, "pass"
        case ast.With(items, body) if not any(item.optional_vars for item in items):
            indent = "\n" + " " * node.col_offset
            lines = [line for part in body for line in ast.unparse(part).splitlines()]
            yield "context", node, indent.join(lines)


def _runs_without(node: ast.Assign, target: ast.AST, function: ast.FunctionDef) -> bool:
    """Whether what an assignment sets is there before it."""
    if not isinstance(target, ast.Name):
        return not isinstance(target, ast.Tuple) and function.name != "__init__"
    before = [n for n in ast.walk(function) if getattr(n, "lineno", node.lineno) < node.lineno]
    names = {n.id for n in before if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return target.id in names | {n.arg for n in ast.walk(function.args) if isinstance(n, ast.arg)}


def _of_expression(
    node: ast.AST, function: ast.AST | None
) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    match node:
        case ast.Compare(left, operators, values):
            for i, operator in enumerate(operators):
                changed = [*operators[:i], _other(operator), *operators[i + 1 :]]
                yield "compare", node, ast.Compare(left, changed, values)
        case ast.BinOp(left, operator, right) if type(operator) in OTHERS:
            yield "operator", node, ast.BinOp(left, _other(operator), right)
        case ast.BoolOp(operator, values):
            yield "boolean", node, ast.BoolOp(_other(operator), values)
            for i in range(len(values)):
                rest = [*values[:i], *values[i + 1 :]]
                yield "operand", node, rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield "sign", node, operand
        case ast.Constant(bool() as value):
            yield "constant", node, ast.Constant(not value)
        case ast.Constant(int() as value):
            yield "constant", node, ast.Constant(value + 1)
        case ast.Constant(float() as value):
            yield "constant", node, ast.Constant(2 * value or 1.0)
        case ast.Constant(str() as value):
            for other in _siblings(value, READ):
                yield "sibling", node, ast.Constant(other)
        case ast.Attribute(value, name, ast.Load()) if not ast.unparse(value).endswith("config"):
            for other in _siblings(name, READ):
                yield "sibling", node, ast.Attribute(value, other, node.ctx)
        case ast.Name(name, ast.Load()) if function:
            there = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
            there |= {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
            for other in _siblings(name, READ):
                if other in there:
                    yield "sibling", node, other
        case ast.Call():
            yield from _of_call(node)
        case ast.Slice(lower, upper):
            for bound, operator in ((lower, ast.Add()), (upper, ast.Sub())):
                if bound is not None and not isinstance(bound, ast.Constant):
                    yield "bound", bound, ast.BinOp(bound, operator, ast.Constant(1))
        case ast.Return(ast.Call(args=[first, *_]) as value) if not isinstance(first, ast.Starred):
            yield "argument", value, first
    if isinstance(node, ast.Return | ast.Assign) and isinstance(node.value, ast.Tuple):
        yield from _swaps(node.value, node.value.elts, lambda parts: ast.Tuple(parts, ast.Load()))
    tests = node.ifs if isinstance(node, ast.comprehension) else [getattr(node, "test", None)]
    for test in filter(None, tests):
        plain = isinstance(test, ast.Compare) and isinstance(test.ops[0], NEGATED)
        if not plain and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            yield "negate", test, ast.UnaryOp(ast.Not(), test)


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    called, args, keywords = node.func, node.args, node.keywords
    yield from _swaps(node, args, lambda parts: ast.Call(called, parts, keywords))
    for keyword in keywords:
        if keyword.arg and keyword.arg not in SPEED:
            rest = [other for other in keywords if other is not keyword]
            yield "keyword", node, ast.Call(called, args, rest)
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    for other in _siblings(name, CALLED):
        if isinstance(called, ast.Attribute):
            yield "sibling", called, ast.Attribute(called.value, other, ast.Load())
        elif name in ("min", "max", "any", "all"):
            yield "sibling", called, ast.Name(other, ast.Load())
    if isinstance(called, ast.Attribute) and ast.unparse(called).split(".")[0] not in MODULES:
        yield "method", node, called.value


def _swaps(
    node: ast.AST, parts: list[ast.AST], made: Callable[[list[ast.AST]], ast.AST]
) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Two neighbours of positional arguments, or of what is returned or assigned, change places."""
    for i in range(len(parts) - 1):
        first, second = parts[i : i + 2]
        starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
        if not starred and ast.unparse(first) != ast.unparse(second):
            yield "swap", node, made([*parts[:i], second, first, *parts[i + 2 :]])


def _other(operator: ast.AST) -> ast.AST:
    return OTHERS.get(type(operator), type(operator))()


def _siblings(name: str, families: list[tuple[str, ...]]) -> list[str]:
    """What comes after the name in each family that has it."""
    return [names[(names.index(name) + 1) % len(names)] for names in families if name in names]
