"""simple-salesforce as its users use it: `instance_url` and `session_id`, nothing changed."""

import json
import re

from common import HOST, TOKEN, URL, VERSION, control, refusal, report
from simple_salesforce import Salesforce

sf = Salesforce(instance_url=URL, session_id=TOKEN, version=VERSION, client_id="sdk-suite")
result = {}

# Describe.
overview = sf.describe()
described = sf.Account.describe()
result["describe"] = {
    "objects": sorted(each["name"] for each in overview["sobjects"]),
    "fields": [field["name"] for field in described["fields"]],
    "urls": described["urls"],
    "metadata": sf.Account.metadata()["objectDescribe"]["label"],
}

# Create, read, update, upsert, delete.
created = sf.Account.create({"Name": "Kontor & Söhne", "Ext_Id__c": "sdk-1", "NumberOfEmployees": 7})
row = created["id"]
result["create"] = created
result["read"] = sf.Account.get(row)
result["update"] = sf.Account.update(row, {"Name": "Kontor", "Industry": "Retail"})
result["by_external_id"] = sf.Account.get_by_custom_id("Ext_Id__c", "sdk-1")["Name"]
result["upsert"] = [
    sf.Account.upsert("Ext_Id__c/sdk-1", {"Phone": "1"}),
    sf.Account.upsert("Ext_Id__c/sdk-2 %2F?", {"Name": "Odd key"}),
    sf.Account.upsert("Ext_Id__c/sdk-2 %2F?", {"Name": "Odd key again"}),
]
result["after"] = sf.query(f"SELECT Name, Industry, Phone FROM Account WHERE Id = '{row}'")
result["delete"] = sf.Account.delete(row)
result["gone"] = refusal(lambda: sf.Account.get(row))

# Query with paging, over relationships.
pages = sf.query_all("SELECT Id, Name, Account.Name, Owner.Username FROM Contact ORDER BY Id", headers={"Sforce-Query-Options": "batchSize=200"})
first = sf.query("SELECT Id FROM Contact ORDER BY Id", headers={"Sforce-Query-Options": "batchSize=200"})
second = sf.query_more(first["nextRecordsUrl"], identifier_is_url=True)
result["paging"] = {
    "all": [pages["totalSize"], pages["done"], len(pages["records"]), pages["records"][0], pages["records"][-1]],
    "pages": [len(first["records"]), first["done"], len(second["records"]), second["done"]],
    "relative": first["nextRecordsUrl"].startswith("/services/data/"),
    "iterated": sum(1 for _ in sf.query_all_iter("SELECT Id FROM Account")),
    "count": sf.query("SELECT COUNT() FROM Contact"),
}
result["search"] = sf.quick_search("Harbour")["searchRecords"][:3]

# Composite and collections.
composite = {
    "allOrNone": True,
    "compositeRequest": [
        {"method": "POST", "url": f"/services/data/v{VERSION}/sobjects/Account", "referenceId": "a", "body": {"Name": "Parent"}},
        {
            "method": "POST",
            "url": f"/services/data/v{VERSION}/sobjects/Contact",
            "referenceId": "c",
            "body": {"LastName": "Child", "AccountId": "@{a.id}"},
        },
        {"method": "GET", "url": f"/services/data/v{VERSION}/sobjects/Contact/@{{c.id}}", "referenceId": "r"},
    ],
}
result["composite"] = sf.restful("composite", method="POST", data=json.dumps(composite))
composite["compositeRequest"][1]["body"].pop("LastName")
result["composite_refused"] = sf.restful("composite", method="POST", data=json.dumps(composite))
rows = [{"attributes": {"type": "Account"}, "Name": name} for name in ("One", "Two", "")]
collection = sf.restful("composite/sobjects", method="POST", data=json.dumps({"allOrNone": False, "records": rows}))
result["collection"] = collection
ids = [each["id"] for each in collection if each["success"]]
result["collection_read"] = sf.restful("composite/sobjects/Account", params={"ids": ",".join(ids), "fields": "Name"})
result["collection_delete"] = sf.restful("composite/sobjects", method="DELETE", params={"ids": ",".join(ids)})
batch = {"batchRequests": [{"method": "GET", "url": f"v{VERSION}/limits"}, {"method": "GET", "url": f"v{VERSION}/nothing"}]}
answers = sf.restful("composite/batch", method="POST", data=json.dumps(batch))
result["batch"] = [answers["hasErrors"], [each["statusCode"] for each in answers["results"]]]

# Bulk 1.0 and 2.0.
names = [{"Name": f"Bulk {number}", "Ext_Id__c": f"bulk-{number}"} for number in range(5)]
inserted = sf.bulk.Account.insert(names, batch_size=3)
result["bulk1"] = {
    "insert": inserted,
    "upsert": sf.bulk.Account.upsert(names, "Ext_Id__c"),
    "query": sf.bulk.Account.query("SELECT Name FROM Account WHERE Name LIKE 'Bulk %' ORDER BY Name"),
    "delete": sf.bulk.Account.delete([{"Id": each["id"]} for each in inserted]),
}
inserted = sf.bulk2.Account.insert(records=[{"Name": f"Job {number}", "Ext_Id__c": f"job-{number}"} for number in range(4)])
job = inserted[0]["job_id"]
found = "".join(sf.bulk2.Account.query("SELECT Id, Name FROM Account WHERE Name LIKE 'Job %' ORDER BY Name"))
result["bulk2"] = {
    "insert": inserted,
    "successful": sf.bulk2.Account.get_successful_records(job),
    "failed": sf.bulk2.Account.get_failed_records(job),
    "query": found,
}

# Errors, each with the exception the library makes of it.
stale = Salesforce(instance_url=URL, session_id="00DWk0000000001MAA!stale", version=VERSION)
result["errors"] = {
    "no_such_field": refusal(lambda: sf.query("SELECT Nothing FROM Account")),
    "no_such_object": refusal(lambda: sf.Nothing__c.describe()),
    "required": refusal(lambda: sf.Contact.create({"FirstName": "No last name"})),
    "duplicate": refusal(lambda: sf.Contact.create({"LastName": "Same", "Ext_Id__c": "Contact-00001"})),
    "stale_session": refusal(lambda: stale.query("SELECT Id FROM Account")),
    "bulk1_stale": refusal(lambda: stale.bulk.Account.query("SELECT Id FROM Account")),
}
control("set", {"maintenance": "read_only"})
result["errors"]["read_only"] = refusal(lambda: sf.Account.create({"Name": "Not now"}))
control("set", {"maintenance": "none"})
code = [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]
answer = {"status": 403, "body": json.dumps(code), "content_type": "application/json;charset=UTF-8"}
control("faults", {"action": {"answer": answer}, "times": 1})
result["errors"]["limit"] = refusal(lambda: sf.query("SELECT Id FROM Account"))

# The sessions of all users who logged in end: a client of the gateway's identity does not notice, a brought token that
# never idles neither.
control("advance", {"seconds": 10_000})
result["after_expiry"] = sf.query("SELECT COUNT() FROM Account")

# Usage: the library's own parser, and tap-salesforce's, which is anchored at both ends.
used, total = sf.api_usage["api-usage"]
raw = sf.session.get(f"{URL}/services/data/v{VERSION}/limits", headers=sf.headers).headers["Sforce-Limit-Info"]
match = re.search(r"^api-usage=(\d+)/(\d+)$", raw)
result["usage"] = [total, used > 20, bool(match), int(match.group(1)) > used, match.group(2)]
report(result)
