"""What the Python clients of this suite share: their surroundings, and the one line they print.

A result must be the same whichever way it was got, so what may differ from run to run is replaced: the address, points
in time, and ids of what is not a record.
"""

import json
import os
import re
import urllib.request

URL = os.environ["INSTANCE_URL"]
HOST = URL.removeprefix("https://")
TOKEN = os.environ["TOKEN"]
VERSION = os.environ["API_VERSION"]

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+0000|\+00:00)|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
# Jobs, batches, results and query cursors; record ids are the same in each new org.
PASSING_ID = re.compile(r"\b(750|751|752|01g)[A-Za-z0-9]{12,15}\b")


def plain(value):
    """`value` without what may differ."""
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    if isinstance(value, str):
        return PASSING_ID.sub("<id>", TIME.sub("<time>", value.replace(URL, "<url>")))
    return value


def control(what, order):
    """Tells the simulator something behind the client's back."""
    request = urllib.request.Request(
        os.environ["CONTROL_URL"] + what, json.dumps(order).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def refusal(call):
    """What the client makes of an error: the kind of exception, the status, and Salesforce's own words."""
    try:
        call()
    except Exception as problem:  # Whatever the client raises is the result.
        status = getattr(problem, "status", None) or getattr(problem, "status_code", None)
        return [type(problem).__name__, status, getattr(problem, "content", str(problem))]
    return ["no error"]


def report(result):
    """Prints the result, on one line."""
    print(json.dumps(plain(result), sort_keys=True))
