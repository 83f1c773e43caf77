"""Checks a JSON value against a schema: the keywords of JSON Schema 2020-12 that docs/ uses."""

import re

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
# Those that only say something.
WORDS = {"$schema", "$id", "title", "description", "$defs"}


def is_type(value, name):
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def check_object(value, schema, root, place):
    properties = schema.get("properties", {})
    for key in schema.get("required", []):
        if key not in value:
            yield f"{place}: {key} is missing"
    for key, member in value.items():
        if key in properties:
            yield from errors(member, properties[key], root, f"{place}.{key}")
        elif schema.get("additionalProperties", True) is False:
            yield f"{place}: {key} is not in the schema"


def check_array(value, schema, root, place):
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{place}: {len(value)} items"
    for i, item in enumerate(value):
        yield from errors(item, schema.get("items", {}), root, f"{place}[{i}]")


def check_number(value, schema, place):
    if ("minimum" in schema and value < schema["minimum"]
            or "maximum" in schema and value > schema["maximum"]
            or "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]):
        yield f"{place}: {value} is out of range"


KEYWORDS = WORDS | {"$ref", "anyOf", "const", "enum", "type", "properties", "required",
                    "additionalProperties", "items", "minItems", "maxItems", "minimum", "maximum",
                    "exclusiveMinimum", "pattern"}


def errors(value, schema, root=None, place="$"):
    """Yields what is wrong, each with its place. An unknown keyword is a mistake of the schema."""
    root = root or schema
    unknown = set(schema) - KEYWORDS
    if unknown:
        raise ValueError(f"{place}: the checker does not know {sorted(unknown)}")
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        yield from errors(value, target, root, place)
    if "anyOf" in schema and all(list(errors(value, one, root, place)) for one in schema["anyOf"]):
        yield f"{place}: {value!r} is none of what it may be"
    if "const" in schema and value != schema["const"]:
        yield f"{place}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is not one of {schema['enum']}"
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(is_type(value, name) for name in names):
            yield f"{place}: {value!r} is no {' or '.join(names)}"
            return
    if isinstance(value, dict):
        yield from check_object(value, schema, root, place)
    elif isinstance(value, list):
        yield from check_array(value, schema, root, place)
    elif isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{place}: {value!r} does not match {schema['pattern']}"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from check_number(value, schema, place)
