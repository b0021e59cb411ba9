#!/usr/bin/env python3
"""Take everybody's right to write to a topic away, or give it back with --lift."""

import argparse
import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)


PATIENCE = 120  # seconds


def main():
    """Create or delete the rule; brokers that have other worries are asked until it is so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--lift", action="store_true")
    args = parser.parse_args()

    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    rule = (ResourceType.TOPIC, args.topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*")
    rule += (AclOperation.WRITE, AclPermissionType.DENY)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if args.lift:
                done = admin.delete_acls([AclBindingFilter(*rule)], request_timeout=30)
            else:
                done = admin.create_acls([AclBinding(*rule)], request_timeout=30)
            for future in done.values():
                future.result()
            return
        except KafkaException:
            if time.monotonic() > deadline:
                raise


if __name__ == "__main__":
    main()
