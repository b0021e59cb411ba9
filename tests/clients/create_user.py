#!/usr/bin/env python3
"""Create an IAM user or role with an inline policy in the test EC2 server; print what is needed to act as it, as JSON.

create_user.py … --user NAME --policy JSON [--enforce]     {"access_key_id": …, "secret_access_key": …}
create_user.py … --user NAME --policy JSON --change        {}: only its policy is replaced
create_user.py … --as-role ROLE --policy JSON --trust JSON {"arn": …}

With --enforce the server checks every signature and policy from then on: for a server of the test's own. To change
something then, enforcement is lifted for the time of the script: run it with --change --enforce.
"""

import argparse
import json
import urllib.request

import _aws

POLICY = "inventory"


def enforce(endpoint, free_calls):
    """Make the server check all calls but the next so many."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=str(free_calls).encode(), headers=plain)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request):
        pass


def create_user(iam, args):
    """Create the user, unless only the policy is to be replaced."""
    created = {}
    if not args.change:
        iam.create_user(UserName=args.user)
        key = iam.create_access_key(UserName=args.user)["AccessKey"]
        created = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
    iam.put_user_policy(UserName=args.user, PolicyName=POLICY, PolicyDocument=args.policy)
    return created


def create_role(iam, args):
    """Create the role, unless only the policy is to be replaced."""
    created = {}
    if not args.change:
        role = iam.create_role(RoleName=args.as_role, AssumeRolePolicyDocument=args.trust)["Role"]
        created = {"arn": role["Arn"]}
    iam.put_role_policy(RoleName=args.as_role, PolicyName=POLICY, PolicyDocument=args.policy)
    return created


def main():
    """Create, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _aws.add_endpoint(parser)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="NAME")
    who.add_argument("--as-role", metavar="NAME")
    parser.add_argument("--policy", required=True, metavar="JSON")
    parser.add_argument("--trust", metavar="JSON", help="the role's trust policy")
    parser.add_argument("--change", action="store_true", help="it is there already: only replace its policy")
    parser.add_argument("--enforce", action="store_true", help="from then on check every call")
    _aws.add_role(parser)
    args = parser.parse_args()
    if args.as_role and not args.change and not args.trust:
        parser.error("--as-role needs --trust")

    enforce(args.endpoint, float("inf"))
    # Global services answer in any region; a role is entered before anything is checked.
    iam = _aws.client("iam", args.endpoint, "us-east-1", args.role)
    created = create_user(iam, args) if args.user else create_role(iam, args)
    if args.enforce:
        enforce(args.endpoint, 0)
    print(json.dumps(created))


if __name__ == "__main__":
    main()
