"""simple-salesforce's own log-ins: by SOAP and OAuth, at hosts that are built into it."""

import os

from common import VERSION, control, refusal, report
from simple_salesforce import Salesforce

NAME, PASSWORD = os.environ["LOGIN_NAME"], os.environ["PASSWORD"]
APP = {"consumer_key": os.environ["CLIENT_ID"], "consumer_secret": os.environ["LOGIN_SECRET"]}
OWN_APP = {"consumer_key": os.environ["CLIENT_ID"], "consumer_secret": os.environ["CLIENT_SECRET"], "domain": "acme.my"}
USER = {"username": NAME, "password": PASSWORD}

LOGINS = {
    "soap": {**USER, "security_token": ""},
    "soap_with_security_token": {**USER, "security_token": "Token123"},
    "soap_at_its_domain": {**USER, "security_token": "", "domain": "acme.my"},
    "soap_for_an_organization": {**USER, "organizationId": "00DWk0000000001MAA"},
    "password": {**USER, **APP},
    "client_credentials": OWN_APP,
}

result, sessions = {}, {}
for how, credentials in LOGINS.items():
    sf = sessions[how] = Salesforce(version=VERSION, **credentials)
    row = sf.Account.create({"Name": how, "Ext_Id__c": how})["id"]
    result[how] = [
        sf.sf_instance,
        sf.session_id.split("!")[0],
        sf.Account.get(row)["Name"],
        sf.query_all("SELECT Id FROM Contact", headers={"Sforce-Query-Options": "batchSize=200"})["totalSize"],
        sf.bulk.Account.query(f"SELECT Name FROM Account WHERE Id = '{row}'"),
        sf.Account.delete(row),
    ]

# All sessions of Salesforce idle out: the library logs in again by itself, or need not.
control("advance", {"seconds": 10_000})
for how, sf in sessions.items():
    result[how].append(sf.query("SELECT COUNT() FROM Account")["totalSize"])

WRONG = {
    "soap": {"username": NAME, "password": "wrong", "security_token": ""},
    "password": {"username": NAME, "password": "wrong", **APP},
    "client_credentials": {**OWN_APP, "consumer_secret": "wrong"},
}


def words(credentials):
    """What a refused log-in says."""
    try:
        Salesforce(version=VERSION, **credentials)
    except Exception as problem:  # Whatever the client raises is the result.
        return [type(problem).__name__, problem.code, problem.auth_message]
    return ["no error"]


result["wrong"] = {how: words(credentials) for how, credentials in WRONG.items()}
report(result)
