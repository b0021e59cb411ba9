#!/usr/bin/env python3
"""Give Kafka users passwords (SCRAM) and permissions (ACLs), as read from standard input: one JSON object with `users`, a
list of [user, mechanism, password], and `acls`, a list of [user, resource type, name, operation]; a name that ends with * is a prefix."""

import json
import sys

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

TYPES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.BROKER,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


def binding(user, kind, name, operation):
    """One permission, from any host."""
    pattern = ResourcePatternType.LITERAL
    if name.endswith("*"):
        pattern, name = ResourcePatternType.PREFIXED, name[:-1]
    operation = getattr(AclOperation, operation.upper())
    return AclBinding(TYPES[kind], name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def main():
    """Apply what is asked for, and wait until it is."""
    asked = json.load(sys.stdin)
    admin = AdminClient({"bootstrap.servers": sys.argv[1]})
    changes = []
    for user, mechanism, password in asked["users"]:
        info = ScramCredentialInfo(getattr(ScramMechanism, mechanism.replace("-", "_")), 4096)
        changes.append(UserScramCredentialUpsertion(user, info, password.encode()))
    futures = list(admin.alter_user_scram_credentials(changes).values()) if changes else []
    acls = [binding(*acl) for acl in asked["acls"]]
    if acls:
        futures += admin.create_acls(acls).values()
    for future in futures:
        future.result()


if __name__ == "__main__":
    main()
