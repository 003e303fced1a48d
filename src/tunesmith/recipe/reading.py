"""From a YAML file and `--set` options to a checked recipe: every fault named with its place, all in one go.

The YAML is composed to nodes, never constructed to objects: tags, anchors and duplicate keys are refused here,
numbers follow YAML 1.2 (`1e-4` is a number, `NO` is a word).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tunesmith.errors import Fault, RecipeError
from tunesmith.folder import write_json, write_text
from tunesmith.recipe import Recipe, methods, remedies, tasks
from tunesmith.recipe.contradictions import contradictions
from tunesmith.recipe.joint import AnyRecipe, JointRecipe, page_of
from tunesmith.recipe.suggestions import KeyPath, dotted, nearest_setting, settings_at

SCHEMA_FILE = Path(__file__).with_name("schema.json")
LARGEST_RECIPE_BYTES = 1_000_000
DEEPEST = 50

_NUMBER = re.compile(r"[-+]?([0-9]+(_[0-9]+)*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")


@dataclass
class Located:
    """Raw values of a recipe, and where each key stands (`file:line:column`, 1-based)."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def place(self, path: KeyPath) -> str:
        """The place of a key, or of its nearest parent that was written down."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.places.get((), ""))


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe file, of one task or of several, and apply `key=value` overrides. Paths come out absolute.

    Raises:
        RecipeError: with one fault for each thing that is wrong.
    """
    recipe = check_recipe(locate(path := Path(path), overrides)).anchored(path.absolute().parent)
    if recipe.output == "auto":
        name = path.stem if path.stem != "recipe" else path.absolute().parent.name
        recipe = recipe.but(output=str(path.absolute().parent / "runs" / name))
    return recipe


def read_single(path: str | Path) -> Recipe:
    """Read a recipe that is of one task.

    Raises:
        RecipeError: it is of several.
    """
    recipe = read_recipe(path)
    if isinstance(recipe, JointRecipe):
        remedy = f"name one of them: {', '.join(f'tasks/{name}' for name in recipe.tasks)}"
        raise RecipeError("this holds several tasks", str(path), remedy)
    return recipe


def locate(path: Path, overrides: Sequence[str] = ()) -> Located:
    """The raw values of a recipe file with its overrides, and where each stands."""
    located = parse_yaml(_text_of(path), str(path))
    for override in overrides:
        apply_override(located, override)
    return located


def write_recipe(recipe: AnyRecipe, path: Path) -> None:
    """Write a recipe with every choice in it, its paths as seen from the file."""
    values = recipe.relative_to(path.absolute().parent).model_dump(mode="json")
    write_text(path, f"{schema_line(path.absolute().parent)}\n{to_yaml(values)}")


def schema_line(folder: Path) -> str:
    """The first line of every recipe we write: editors complete and check by the schema it names."""
    return f"# yaml-language-server: $schema={os.path.relpath(SCHEMA_FILE, folder)}"


def to_yaml(values: dict[str, Any], width: int = 120) -> str:
    yaml = YAML(typ="rt")
    yaml.width = width
    yaml.default_flow_style = False
    yaml.representer.add_representer(type(None), lambda rep, _: rep.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.representer.add_representer(str, _represent_text)
    out = StringIO()
    yaml.dump(values, out)
    return out.getvalue()


def _represent_text(rep: Any, text: str) -> Any:
    """A text in quotes wherever our own reader would take it for something else."""
    quoted = scalar(text) is not text or any(mark in text for mark in "\n\x85\u2028\u2029\ufeff")
    return rep.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


def _text_of(path: Path) -> str:
    where = str(path)
    try:
        if path.is_dir():
            raise RecipeError("this is a folder, not a recipe", where, "name the .yaml file")
        if path.stat().st_size > LARGEST_RECIPE_BYTES:
            raise RecipeError(
                f"larger than {LARGEST_RECIPE_BYTES:,} bytes: not a recipe", where, "name the recipe, not its data"
            )
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise RecipeError("no such recipe", where, "name a .yaml file; the README shows a first one") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"not UTF-8 text (byte {error.start})", where, "save it as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"cannot be read ({error.strerror})", where) from None


def parse_yaml(text: str, name: str) -> Located:
    """YAML text to plain values with places. Raises RecipeError where there is no reading on."""
    yaml = YAML(typ="safe", pure=True)
    located = Located(places={(): f"{name}:1:1"})
    try:
        _look_through(yaml.parse(text), located, name)
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise RecipeError(f"not valid YAML ({error.problem})", where, remedies.of_yaml(str(error.problem))) from None
    except (YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"not valid YAML ({type(error).__name__}: {error})", name) from None
    if root is None:
        raise RecipeError("the recipe is empty", name, "it needs at least `model:` and `data:`")
    if not isinstance(root, MappingNode):
        raise RecipeError("a recipe is a mapping of keys to values", f"{name}:1:1", "start with `model: ...`")
    located.values = _value(root, (), located, name)
    return located


def _look_through(events: Iterator[Any], located: Located, name: str) -> None:
    """Refuse what a recipe has no use for, event by event, before anything is composed of it."""
    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise RecipeError(f"nested deeper than {DEEPEST}", _place(name, event), "no setting is nested so deep")
        if isinstance(event, AliasEvent):
            raise RecipeError("aliases (*name) are not allowed", _place(name, event), "write the value out")
        if getattr(event, "anchor", None):
            located.faults.append(Fault(_place(name, event), "anchors (&name) are not allowed", "remove it"))
        tag = getattr(event, "tag", None) if isinstance(event, NodeEvent) else None
        if tag:
            located.faults.append(Fault(_place(name, event), f"tags ({tag}) are not allowed", "remove it"))


def _place(name: str, item: Any) -> str:
    return f"{name}:{item.start_mark.line + 1}:{item.start_mark.column + 1}"


def _value(node: Node, path: KeyPath, located: Located, name: str) -> Any:
    if isinstance(node, SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            located.places[*path, index] = _place(name, item)
            items.append(_value(item, (*path, index), located, name))
        return items
    if isinstance(node, MappingNode):
        return _mapping(node, path, located, name)
    assert isinstance(node, ScalarNode)
    return node.value if node.style in ("'", '"', "|", ">") else scalar(node.value)


def _mapping(node: MappingNode, path: KeyPath, located: Located, name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = _place(name, key_node)
        if not isinstance(key_node, ScalarNode):
            located.faults.append(Fault(place, "a key must be a plain word", "take the brackets away"))
            continue
        key = str(key_node.value)
        if key in values:
            located.faults.append(Fault(place, f"{dotted((*path, key))}: this key is given twice", "keep one"))
            continue
        located.places[*path, key] = place
        values[key] = _value(value_node, (*path, key), located, name)
    return values


def scalar(text: str) -> Any:
    """A plain YAML 1.2 scalar: null, true/false, number or text."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INTEGER.fullmatch(text) and len(text) < 400:
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text.replace("_", ""))
    if text.lower() in (".inf", "-.inf", "+.inf", ".nan"):
        return math.nan
    return text


def apply_override(located: Located, override: str) -> None:
    """Apply one `--set dotted.key=value`; the value is read as YAML."""
    key, equals, text = override.partition("=")
    where = f"--set {override}"
    parts = key.strip().split(".")
    if not equals or not all(parts):
        located.faults.append(Fault(where, "not of the form key=value", "for example --set train.epochs=2"))
        return
    try:
        inner = parse_yaml(f"'{key.strip()}': {text}", where)
        faults: Sequence[Fault] = inner.faults
        if len(inner.values) != 1:
            faults = [*faults, Fault(where, "more than one setting", "give each its own --set")]
    except RecipeError as error:
        faults = error.faults
    if faults:
        located.faults.extend(Fault(where, fault.message, fault.remedy) for fault in faults)
        return
    value = inner.values.get(key.strip())
    path: list[str | int] = list(parts)
    if parts[0] == "stages" and len(parts) > 2:  # the second part counts the stages, from 0
        stages = located.values.get("stages")
        many = len(stages) if isinstance(stages, list) else 0
        if not parts[1].isdecimal() or int(parts[1]) >= many:
            located.faults.append(Fault(where, f"there is no stage {parts[1]!r}", f"the recipe has {many}, from 0"))
            return
        path[1] = int(parts[1])
    for part in [path[:depth] for depth in range(1, len(path) + 1)]:
        located.places.setdefault(tuple(part), where)
    located.places[tuple(path)] = where
    _put(located.values, path, value)


def _put(target: Any, path: Sequence[str | int], value: Any) -> None:
    """Set a value at a key. Another kind of method or task starts from its own defaults."""
    for part in path[:-1]:
        inner = target[part] if isinstance(part, int) else target.get(part)
        if isinstance(inner, str) and part in ("method", "task"):
            inner = {"kind": inner}
        target[part] = list(inner) if isinstance(inner, list) else dict(inner) if isinstance(inner, dict) else {}
        target = target[part]
    if path[-1] == "kind" and value != target.get("kind"):
        target.clear()  # another kind has other settings
    target[path[-1]] = value


def check_recipe(located: Located) -> AnyRecipe:
    """Check raw values against the settings; all faults in one error."""
    faults = [*located.faults, *contradictions(located.values, located.place)]
    try:
        recipe = page_of(located.values).model_validate(located.values)
    except ValidationError as error:
        faults.extend(faults_of(error, located))
        recipe = None
    if faults or recipe is None:
        raise RecipeError(faults[0].message, faults=faults)
    return recipe


def faults_of(error: ValidationError, located: Located) -> Iterator[Fault]:
    """One fault for each key; the messages of a union's branches are joined."""
    merged: dict[KeyPath, list[dict[str, Any]]] = {}
    for detail in error.errors(include_url=False):
        path = _key_path(detail["loc"], located.values, missing=detail["type"] == "missing")
        merged.setdefault(path, []).append(dict(detail))
    for path, details in merged.items():
        if any(len(other) > len(path) > 0 and other[: len(path)] == path for other in merged):
            continue  # the entry that is wrong is told, not also the list that it stands in
        if not path and details[0]["type"] == "value_error":  # a rule between settings names its key first
            path = tuple(str(details[0]["ctx"]["error"]).partition(":")[0].split("."))
        message, remedy = _explain(path, details, located.values)
        yield Fault(located.place(path), message, remedy)


def _key_path(location: tuple[str | int, ...], values: Any, missing: bool) -> KeyPath:
    """Pydantic's location without the names of union branches, which are no keys of the user's."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(values, dict) and (part in values or (last and missing)):
            path.append(part)
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            path.append(part)
            values = values[part]
    return tuple(path)


def _explain(path: KeyPath, details: list[dict[str, Any]], values: dict[str, Any]) -> tuple[str, str]:
    kind, name = details[0]["type"], dotted(path)
    if kind == "extra_forbidden":
        return f"{name or '(nothing)'}: no such setting", nearest_setting(path, values)
    if kind == "missing":
        return f"{name}: missing", "add it"
    if kind == "union_tag_invalid":
        given = str((details[0]["input"] or {}).get("kind"))
        known = methods.KINDS if "method" in path else tasks.KINDS
        return f"{name}: no such kind {given!r}", remedies.did_you_mean(given, list(known))
    if kind == "union_tag_not_found":
        return f"{name}: `kind` is missing", "for example `method: lora` or `method: {kind: lora, rank: 8}`"
    if kind == "value_error":
        message = str(details[0]["ctx"]["error"])
        return (message if message.startswith(name) else f"{name}: {message}"), "choose one that fits, or leave it out"
    wanted = dict.fromkeys(_wanted(detail) for detail in details)
    given = details[0]["input"]
    message = f"{name}: {remedies.shown(given)} is not {' or '.join(wanted)}"
    return message, remedies.of_value(given, details, _default(path, values))


def _default(path: KeyPath, values: dict[str, Any]) -> Any:
    """A setting's default, as one would write it; None where there is none to name."""
    here = settings_at(path[:-1], values, page_of(values)) if path else None
    info = here.model_fields.get(str(path[-1])) if here else None
    default = info.default if info else None
    return default if isinstance(default, str | int | float) else None


def _wanted(detail: dict[str, Any]) -> str:
    if detail["type"] == "literal_error":
        return str(detail["ctx"]["expected"])
    if detail["type"] in ("dict_type", "model_type", "model_attributes_type"):
        return "a mapping of settings"
    if detail["type"] == "string_pattern_mismatch":
        return "a plain name (letters, digits, - and _, up to 64, a letter or digit first)"
    if detail["type"] == "too_short":
        return "a list of one entry or more"
    return str(detail["msg"]).removeprefix("Input should be ").removeprefix("Value error, ").partition(",")[0]


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, as shipped in `tunesmith/recipe/schema.json`."""
    from pydantic.json_schema import GenerateJsonSchema

    single, several = (page.model_json_schema(schema_generator=GenerateJsonSchema) for page in (Recipe, JointRecipe))
    shared = {**single.pop("$defs"), **several.pop("$defs")}
    for page in (single, several, shared["Member"], shared["Stage"]):
        _allow_bare_kinds(page["properties"])
    pages = {"if": {"required": ["tasks"]}, "then": {"$ref": "#/$defs/JointRecipe"}, "else": {"$ref": "#/$defs/Recipe"}}
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Recipe", **pages}
    return {**made, "$defs": {**shared, "Recipe": single, "JointRecipe": several}}


def _allow_bare_kinds(properties: dict[str, Any]) -> None:
    """`method: lora` besides the mapping."""
    for section in ("method", "task"):
        if section in properties:
            inner = properties[section]
            default = {key: inner.pop(key) for key in ("default", "description") if key in inner}
            kinds = list(methods.KINDS if section == "method" else tasks.KINDS)
            properties[section] = {"anyOf": [{"enum": kinds}, inner], **default}


def main() -> None:
    """`python -m tunesmith.recipe.reading`: write schema.json anew (a test compares it with the settings)."""
    write_json(SCHEMA_FILE, schema())


if __name__ == "__main__":
    main()
