#!/usr/bin/env python3
"""Validate Kubernetes manifests, a JSON list in FILE, with the strict schemas of Kubernetes' versions, by kubernetes-validate.

validate_manifests.py FILE 1.27 1.37: prints how many validations there were. Exits 1 where a manifest is not valid, and
names what is wrong with it.
"""

import argparse
import functools
import json
import pathlib
import sys

from kubernetes_validate import SchemaNotFoundError, ValidationError, utils

# It reads some megabytes of definitions anew for each manifest.
utils.schema_contents = functools.cache(utils.schema_contents)


def main():
    """Validate each manifest with each version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("version", nargs="+")
    args = parser.parse_args()
    manifests = json.loads(args.file.read_text(encoding="utf-8"))
    faults = []
    count = 0
    for version in args.version:
        for manifest in manifests:
            name = f"{version}, {manifest['kind']} {manifest['metadata']['name']}"
            try:
                used = utils.validate(manifest, version, strict=True)
                if used != version:
                    faults.append(f"{name}: there are only schemas of {used}")
            except ValidationError as error:
                faults.append(f"{name}, {'.'.join(map(str, error.path))}: {error.message}")
            except SchemaNotFoundError as error:
                faults.append(f"{name}: {error.message}")
            count += 1
    if faults:
        sys.exit("\n".join(faults))
    print(count)


if __name__ == "__main__":
    main()
