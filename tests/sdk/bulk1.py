"""salesforce-bulk 2.2: Bulk 1.0 in XML and CSV, the session in `X-SFDC-Session`."""

import csv
import io

from common import TOKEN, URL, VERSION, control, refusal, report
from salesforce_bulk import CsvDictsAdapter, SalesforceBulk

bulk = SalesforceBulk(sessionId=TOKEN, host=URL, API_version=VERSION)
result = {}


def run(job, batch):
    bulk.wait_for_batch(job, batch, timeout=30, sleep_interval=0.1)
    return bulk.get_batch_results(batch, job)


def query(soql):
    job = bulk.create_query_job("Account", contentType="CSV")
    batch = bulk.query(job, soql)
    bulk.close_job(job)
    bulk.wait_for_batch(job, batch, timeout=30, sleep_interval=0.1)
    rows = []
    for found in bulk.get_all_results_for_query_batch(batch, job):
        rows.extend(csv.DictReader(io.StringIO(found.read().decode())))
    return rows


job = bulk.create_insert_job("Account", contentType="CSV")
batch = bulk.post_batch(job, CsvDictsAdapter(iter([{"Name": f"Plain {at}", "Ext_Id__c": f"plain-{at}"} for at in range(4)])))
result["insert"] = [list(row) for row in run(job, batch)]
bulk.close_job(job)
result["job"] = [bulk.job_state(job), bulk.batch_state(batch, job)]
result["query"] = query("SELECT Id, Name FROM Account WHERE Name LIKE 'Plain %' ORDER BY Name")

job = bulk.create_upsert_job("Account", "Ext_Id__c", contentType="CSV")
batch = bulk.post_batch(job, CsvDictsAdapter(iter([{"Ext_Id__c": "plain-1", "Name": "Changed"}, {"Ext_Id__c": "plain-9", "Name": "New"}])))
result["upsert"] = [list(row) for row in run(job, batch)]
result["whole"] = len(query("SELECT Id FROM Account"))

job = bulk.create_query_job("Account", contentType="CSV")
bulk.abort_job(job)
result["aborted"] = bulk.job_state(job)

# The sessions of all users who logged in end; a brought one that never idles and a gateway's identity go on.
control("advance", {"seconds": 10_000})
result["after_expiry"] = len(query("SELECT Id FROM Account"))

stale = SalesforceBulk(sessionId="00DWk0000000001MAA!stale", host=URL, API_version=VERSION)
result["errors"] = {
    "stale": refusal(lambda: stale.create_query_job("Account")),
    "no_such_object": refusal(lambda: query("SELECT Id FROM Nothing__c")),
    "no_such_job": refusal(lambda: bulk.job_status("750Wk0000000999AAA")),
}
report(result)
