"""curl: what no library does, or none shows: HEAD, compression both ways, validators, odd but legal requests."""

import gzip
import json
import os
import re
import subprocess
import tempfile

from common import TOKEN, URL, VERSION, report

DATA = f"/services/data/v{VERSION}"
folder = tempfile.TemporaryDirectory()


def curl(path, *more, body=None, session=("Authorization", f"Bearer {TOKEN}")):
    """One request: status, headers by lower-case name, body as bytes."""
    heads, got = (os.path.join(folder.name, name) for name in ("heads", "got"))
    open(got, "wb").close()
    command = ["curl", "--silent", "--show-error", "--max-time", "60", "--path-as-is", "--dump-header", heads, "--output", got]
    if session:
        command += ["--header", f"{session[0]}: {session[1]}"]
    if body is not None:
        command += ["--data-binary", "@-"]
    subprocess.run([*command, *more, URL + path], input=body or b"", check=True)
    with open(heads, "rb") as file:
        head = file.read()
    # The last head: others are interim answers.
    lines = head.decode("latin-1").replace("\r", "").strip().split("\n\n")[-1].split("\n")
    headers = dict((part.strip() for part in line.split(":", 1)) for line in lines[1:])
    with open(got, "rb") as file:
        got = file.read()
    # For HEAD curl prints the head where the body would go.
    got = b"" if got == head else got
    return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}, got


def words(answer, *names):
    """Status, some headers, and the body as JSON if it is."""
    status, headers, body = answer
    try:
        body = json.loads(body)
    except ValueError:
        body = body.decode("utf-8", "replace")
    return [status, [headers.get(name) for name in names], body]


JSON = ("--header", "Content-Type: application/json")
result = {}
result["versions"] = words(curl("/services/data/", session=None), "content-type")[:2]
resources = words(curl(f"{DATA}/"))
result["resources"] = [resources[0], resources[2]["identity"].startswith(URL + "/id/"), resources[2]["query"]]
status, headers, body = curl(f"{DATA}/sobjects/Account/describe", "--head")
result["head"] = [status, headers["content-type"], len(body)]
plain = curl(f"{DATA}/sobjects/Account/describe")
packed = curl(f"{DATA}/sobjects/Account/describe", "--header", "Accept-Encoding: gzip")
result["gzip"] = [packed[0], packed[1].get("content-encoding"), json.loads(gzip.decompress(packed[2])) == json.loads(plain[2])]
since = plain[1]["last-modified"]
result["not_modified"] = words(curl(f"{DATA}/sobjects/Account/describe", "--header", f"If-Modified-Since: {since}"))

row = gzip.compress(json.dumps({"Name": "Packed", "Ext_Id__c": "a/b%c"}).encode())
created = words(curl(f"{DATA}/sobjects/Account", *JSON, "--header", "Content-Encoding: gzip", body=row))
result["packed_body"] = created
at = f"{DATA}/sobjects/Account/{created[2]['id']}"
status, headers, _ = curl(at)
tag = headers.get("etag")
result["etag"] = [bool(tag), curl(at, "--header", f"If-None-Match: {tag}")[0]]
result["by_external_id"] = words(curl(f"{DATA}/sobjects/Account/Ext_Id__c/a%2Fb%25c"))
result["doubled_slash"] = words(curl("/" + at + "?fields=Name"))
result["oauth_scheme"] = words(curl(at + "?fields=Name", session=("Authorization", f"OAuth {TOKEN}")))
patch = json.dumps({"Name": "Patched"}).encode()
result["patch_by_post"] = words(curl(at + "?_HttpMethod=PATCH", *JSON, body=patch))
result["expect"] = words(curl(at, "--request", "PATCH", *JSON, "--header", "Expect: 100-continue", body=patch))
result["chunked"] = words(curl(at, "--request", "PATCH", *JSON, "--header", "Transfer-Encoding: chunked", body=patch))
names = ",".join(f"%27{'x' * 90}{number}%27" for number in range(110))
result["long"] = words(curl(f"{DATA}/query?q=SELECT+Name+FROM+Account+WHERE+Name+IN+({names})"))
result["delete"] = words(curl(at, "--request", "DELETE"))
result["wrong_method"] = words(curl(f"{DATA}/query", "--request", "DELETE"), "allow")

soap = f"""<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com">
<e:Header><SessionHeader><sessionId>%s</sessionId></SessionHeader></e:Header>
<e:Body><query><queryString>SELECT Name FROM Account ORDER BY Id LIMIT 2</queryString></query></e:Body></e:Envelope>"""
XML = ("--header", "Content-Type: text/xml", "--header", 'SOAPAction: ""')
for name, session in (("soap", TOKEN), ("soap_stale", "00DWk0000000001MAA!stale")):
    answer = words(curl(f"/services/Soap/u/{VERSION}", *XML, body=(soap % session).encode(), session=None), "content-type")
    # How much was used by now depends on what was answered from memory: fewer calls through the gateway.
    answer[2], uses = re.subn(r"<current>[0-9]+</current>", "<current/>", answer[2])
    result[name] = [*answer, uses]
result["nobody"] = words(curl(f"{DATA}/limits", session=None), "www-authenticate")
result["nowhere"] = words(curl("/services/data/v1.0/limits"))[:1]
report(result)
