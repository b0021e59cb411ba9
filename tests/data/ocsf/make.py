#!/usr/bin/env python3
"""Write the JSON schemas of OCSF's Device Inventory Info into this folder, from the package ocsf-json-schema.

  inventory_info-VERSION.schema.json   as the package gives it: types, required attributes, constraints, no others
  inventory_info-VERSION.strict.json   the same, and what OCSF's own validator warns of or a JSON schema of the package
                                       does not have: enum siblings, deprecated attributes, the type_uid's sum, the
                                       applied profiles; seconds for milliseconds. Each attribute says whether it is
                                       required, recommended or optional (x-ocsf-requirement)

`make.py --check` writes nothing and exits 1 where a file is not what it would write.
"""

import argparse
import copy
import json
import pathlib
import sys

import ocsf_json_schema

VERSION = "1.6.0"
CLASS = "inventory_info"
PROFILES = ["cloud", "datetime", "host"]
# As many seconds are the year 5138, as many milliseconds 1973: what is below is seconds.
EARLIEST_MS = 100_000_000_000
FOLDER = pathlib.Path(__file__).resolve().parent


def sibling_rule(number, attribute):
    """The caption's attribute says what the number says; with 99 it is the source's own word."""
    sibling, captions = attribute["sibling"], attribute["enum"]

    def pair(value, caption):
        word = {"not": {"const": caption}} if value == "99" else {"const": caption}
        return {"properties": {number: {"const": int(value)}, sibling: word}}

    choices = [pair(value, entry["caption"]) for value, entry in sorted(captions.items(), key=lambda item: int(item[0]))]
    return {"if": {"required": [number, sibling]}, "then": {"anyOf": choices}}


def tighten(schema, attributes):
    """Add to the schema of an object or class what the package leaves out."""
    rules = []
    for name, property_schema in sorted(schema["properties"].items()):
        attribute = attributes[name]
        property_schema["x-ocsf-requirement"] = attribute["requirement"]
        if "@deprecated" in attribute:
            property_schema["not"] = {}
        if attribute["type"] == "timestamp_t":
            property_schema["minimum"] = EARLIEST_MS
        is_single = attribute.get("enum") and not attribute.get("is_array")
        if is_single and attribute.get("sibling") in schema["properties"]:
            rules.append(sibling_rule(name, attribute))
    if rules:
        schema["allOf"] = rules


def strict(schema, source):
    """The package's schema with the rules that it has not."""
    schema = copy.deepcopy(schema)
    schema["$id"] = f"urn:ocsf:{VERSION}:{CLASS}:strict"
    attributes = source["classes"][CLASS]["attributes"]
    tighten(schema, attributes)
    for name, definition in schema["$defs"].items():
        tighten(definition, source["objects"][name]["attributes"])
    uid = source["classes"][CLASS]["uid"]
    sums = [
        {"properties": {"activity_id": {"const": int(value)}, "type_uid": {"const": 100 * uid + int(value)}}}
        for value in sorted(attributes["activity_id"]["enum"], key=int)
    ]
    applied = {
        "type": "array", "uniqueItems": True, "minItems": len(PROFILES), "items": {"enum": PROFILES},
    }
    metadata = {"required": ["profiles"], "properties": {"version": {"const": VERSION}, "profiles": applied}}
    schema["allOf"] += [{"anyOf": sums}, {"properties": {"metadata": metadata}}]
    return schema


def as_text(schema):
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main():
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare with the files that are there")
    args = parser.parse_args()
    source = ocsf_json_schema.get_ocsf_schema(VERSION)
    schema = ocsf_json_schema.OcsfJsonSchemaEmbedded(source).get_class_schema(CLASS, PROFILES)
    # The package lists what an enum may be in no order of its own.
    for holder in [schema, *schema["$defs"].values()]:
        for property_schema in holder["properties"].values():
            for list_or_item in (property_schema, property_schema.get("items", {})):
                if "enum" in list_or_item:
                    list_or_item["enum"].sort()
    files = {
        f"{CLASS}-{VERSION}.schema.json": as_text(schema),
        f"{CLASS}-{VERSION}.strict.json": as_text(strict(schema, source)),
    }
    for name, text in files.items():
        path = FOLDER / name
        if not args.check:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            sys.exit(f"make.py: {name} is not what the package gives")


if __name__ == "__main__":
    main()
