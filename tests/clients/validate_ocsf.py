#!/usr/bin/env python3
"""Validate OCSF events, one JSON object a line in FILE, with the schemas in tests/data/ocsf, by the library jsonschema.

Prints how many there were. Exits 1 where one is not valid, and names what is wrong with it.
"""

import argparse
import json
import pathlib
import sys

import jsonschema

SCHEMAS = pathlib.Path(__file__).resolve().parent.parent / "data" / "ocsf"


def main():
    """Validate each event with each schema."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=pathlib.Path)
    args = parser.parse_args()
    validators = []
    for path in sorted(SCHEMAS.glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        validators.append((path.name, jsonschema.Draft202012Validator(schema)))
    if len(validators) != 2:
        sys.exit(f"validate_ocsf.py: two schemas are expected in {SCHEMAS}")
    count = 0
    faults = []
    # Not by splitlines, which also parts at characters that JSON leaves as they are.
    for count, line in enumerate(args.file.read_text(encoding="utf-8").strip("\n").split("\n"), start=1):
        event = json.loads(line)
        for name, validator in validators:
            faults += [f"event {count}, {name}, {error.json_path}: {error.message}" for error in validator.iter_errors(event)]
    if faults:
        sys.exit("\n".join(faults))
    print(count)


if __name__ == "__main__":
    main()
