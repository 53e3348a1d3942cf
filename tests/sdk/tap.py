"""tap-salesforce as its users run it: discovery, a sync by REST and one by Bulk API 1.0, and its quotas."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import report

TAP = Path(sys.executable).with_name("tap-salesforce")
ACCOUNT = {
    "client_id": os.environ["CLIENT_ID"],
    "client_secret": os.environ["LOGIN_SECRET"],
    "refresh_token": os.environ["REFRESH_TOKEN"],
    "start_date": "2000-01-01T00:00:00Z",
    "select_fields_by_default": "true",
    "is_sandbox": "false",
}
WANTED = {"Account", "Contact"}
USED = re.compile(r"Used (\d+) of (\d+) daily REST API quota")
folder = Path(tempfile.mkdtemp())


def tap(config, *arguments):
    """Runs it; its exit code, what it wrote, and what it logged."""
    file = folder / "config.json"
    file.write_text(json.dumps({**ACCOUNT, **config}))
    done = subprocess.run([TAP, "--config", file, *arguments], capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout, done.stderr


def last(logged):
    """The last line of the log, without its date and level."""
    return logged.strip().splitlines()[-1].split(" ", 1)[-1]


def synced(api):
    """What a sync of two objects brings."""
    code, written, logged = tap({"api_type": api}, "--discover")
    if code:
        sys.exit(logged)
    catalog = json.loads(written)
    for stream in catalog["streams"]:
        if stream["stream"] in WANTED:
            stream["metadata"].append({"breadcrumb": [], "metadata": {"selected": True}})
            top = [each for each in stream["metadata"] if each["breadcrumb"] == []]
            merged = {key: value for each in top for key, value in each["metadata"].items()}
            stream["metadata"] = [each for each in stream["metadata"] if each["breadcrumb"] != []]
            stream["metadata"].append({"breadcrumb": [], "metadata": merged})
    # Discovery goes through a set.
    catalog["streams"].sort(key=lambda stream: stream["stream"])
    file = folder / "catalog.json"
    file.write_text(json.dumps(catalog))
    code, written, logged = tap({"api_type": api}, "--properties", str(file))
    if code:
        sys.exit(logged)
    messages = [json.loads(line) for line in written.splitlines()]
    records = [message for message in messages if message["type"] == "RECORD"]
    usage = [(int(used), int(limit)) for used, limit in USED.findall(logged)]
    return {
        "streams": [stream["stream"] for stream in catalog["streams"]],
        "account": next(stream for stream in catalog["streams"] if stream["stream"] == "Account")["schema"],
        "records": {name: sum(each["stream"] == name for each in records) for name in sorted(WANTED)},
        "first": next(each["record"] for each in records if each["stream"] == "Account"),
        "state": messages[-1]["value"]["bookmarks"],
        # Its parser, which is anchored at both ends, read every answer's header; the count never goes back.
        "usage": [len(usage) >= 2, usage == sorted(usage), {limit for _, limit in usage} == {100_000}],
    }


result = {"rest": synced("REST"), "bulk": synced("BULK")}
code, _, logged = tap({"api_type": "REST", "quota_percent_total": "0.0001"}, "--discover")
result["over_quota"] = [code, re.sub(r"\d+/\d+ \( *[\d.]+%\)", "<used>", last(logged))]
code, _, logged = tap({"api_type": "REST", "refresh_token": "wrong"}, "--discover")
result["wrong"] = [code, last(logged)]
report(result)
