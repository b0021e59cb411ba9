#!/usr/bin/env python3
"""Print which credentials botocore's default chain finds, as JSON: {"access_key": …, "method": …}."""

import json

import botocore.session


def main():
    """Find, then print."""
    found = botocore.session.get_session().get_credentials()
    print(json.dumps({"access_key": found.access_key, "method": found.method} if found else None))


if __name__ == "__main__":
    main()
