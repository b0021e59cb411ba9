#!/usr/bin/env python3
"""Validate OCSF events, one JSON object a line in FILE, with the schemas in tests/data/ocsf, by the library jsonschema.

With --as VERSION the events are taken for ones of that version of OCSF, and the schema is what ocsf-json-schema gives
for it. Prints how many there were. Exits 1 where one is not valid, and names what is wrong with it.
"""

import argparse
import json
import pathlib
import sys

import jsonschema
import ocsf_json_schema

SCHEMAS = pathlib.Path(__file__).resolve().parent.parent / "data" / "ocsf"


def schemas(version):
    """Each schema with its name."""
    if version:
        source = ocsf_json_schema.OcsfJsonSchemaEmbedded(ocsf_json_schema.get_ocsf_schema(version))
        return [(version, source.get_class_schema("inventory_info", ["cloud", "datetime", "host"]))]
    found = [(path.name, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(SCHEMAS.glob("*.json"))]
    if len(found) != 2:
        sys.exit(f"validate_ocsf.py: two schemas are expected in {SCHEMAS}")
    return found


def main():
    """Validate each event with each schema."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--as", dest="version", help="another version of OCSF")
    args = parser.parse_args()
    validators = []
    for name, schema in schemas(args.version):
        jsonschema.Draft202012Validator.check_schema(schema)
        validators.append((name, jsonschema.Draft202012Validator(schema)))
    count = 0
    faults = []
    # Not by splitlines, which also parts at characters that JSON leaves as they are.
    for count, line in enumerate(args.file.read_text(encoding="utf-8").strip("\n").split("\n"), start=1):
        event = json.loads(line)
        if args.version:
            event["metadata"]["version"] = args.version
        for name, validator in validators:
            faults += [f"event {count}, {name}, {error.json_path}: {error.message}" for error in validator.iter_errors(event)]
    if faults:
        sys.exit("\n".join(faults))
    print(count)


if __name__ == "__main__":
    main()
