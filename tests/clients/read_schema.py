#!/usr/bin/env python3
"""Print the latest schema of a subject in the schema registry, as Confluent's client has it: {"id", "version", "schema"}."""

import argparse
import json
import sys

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError


def main():
    """Ask for one subject."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", required=True, help="URL of the schema registry")
    parser.add_argument("--subject", required=True)
    args = parser.parse_args()
    try:
        found = SchemaRegistryClient({"url": args.registry}).get_latest_version(args.subject)
    except SchemaRegistryError as failure:
        sys.exit(f"read_schema.py: {args.subject}: {failure}")
    print(json.dumps({"id": found.schema_id, "version": found.version, "schema": json.loads(found.schema.schema_str)}))


if __name__ == "__main__":
    main()
