// jsforce as its users use it: a brought session, a log-in by OAuth, one by SOAP; nothing changed in the library.
'use strict';

const jsforce = require('jsforce');

const env = process.env;
const url = env.INSTANCE_URL;
const version = env.API_VERSION;

// What may differ from run to run: the address, points in time, ids of what is not a record.
const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+0000|\+00:00)|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT/g;
const PASSING_ID = /\b(750|751|752|01g)[A-Za-z0-9]{12,15}\b/g;

function plain(value) {
  if (typeof value === 'string') {
    return value.replaceAll(url, '<url>').replace(TIME, '<time>').replace(PASSING_ID, '<id>');
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.keys(value).sort().map((key) => [key, plain(value[key])]));
  }
  return value;
}

async function control(what, order) {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(env.CONTROL_URL + what, { method: 'POST', headers, body: JSON.stringify(order) });
  if (!answer.ok) throw new Error(`the simulator does not want ${what}: ${await answer.text()}`);
}

async function refusal(call) {
  try {
    await call();
  } catch (problem) {
    return [problem.name, problem.errorCode ?? null, problem.message];
  }
  return ['no error'];
}

async function rows(conn) {
  const result = {};
  const account = conn.sobject('Account');
  const created = await account.create({ Name: 'Kontor & Söhne', Ext_Id__c: 'js-1' });
  result.create = created;
  result.read = await account.retrieve(created.id);
  result.update = await account.update({ Id: created.id, Name: 'Kontor' });
  result.upsert = [
    await account.upsert({ Ext_Id__c: 'js-1', Phone: '1' }, 'Ext_Id__c'),
    await account.upsert({ Ext_Id__c: 'js-2', Name: 'New' }, 'Ext_Id__c'),
  ];
  result.many = await account.create([{ Name: 'One' }, { Name: 'Two' }, {}], { allOrNone: false });
  const ids = result.many.filter((each) => each.success).map((each) => each.id);
  result.manyRead = await account.retrieve(ids);
  result.manyGone = await account.destroy(ids);
  result.destroy = await account.destroy(created.id);
  result.gone = await refusal(() => account.retrieve(created.id));
  return result;
}

async function describe(conn) {
  const overview = await conn.describeGlobal();
  const described = await conn.sobject('Account').describe();
  return [overview.sobjects.map((each) => each.name), described.fields.map((each) => each.name), described.urls];
}

async function paging(conn) {
  const soql = 'SELECT Id, Account.Name FROM Contact ORDER BY Id';
  const options = { headers: { 'Sforce-Query-Options': 'batchSize=200' } };
  const first = await conn.query(soql, options);
  const second = await conn.queryMore(first.nextRecordsUrl, options);
  const all = await conn.query(soql, { ...options, autoFetch: true, maxFetch: 10_000 });
  const found = await conn.sobject('Contact').find({ LastName: 'Abel' }, 'Id, Name').sort('Id').limit(3);
  return {
    pages: [first.records.length, first.done, second.records.length, second.done, first.totalSize],
    all: [all.length ?? all.records.length, (all.records ?? all)[0], (all.records ?? all).at(-1)],
    found,
  };
}

async function composite(conn) {
  const at = `/services/data/v${version}/sobjects`;
  const parts = (last) => ({
    allOrNone: true,
    compositeRequest: [
      { method: 'POST', url: `${at}/Account`, referenceId: 'a', body: { Name: 'Parent' } },
      { method: 'POST', url: `${at}/Contact`, referenceId: 'c', body: { ...last, AccountId: '@{a.id}' } },
    ],
  });
  return [
    await conn.requestPost(`/services/data/v${version}/composite`, parts({ LastName: 'Child' })),
    await conn.requestPost(`/services/data/v${version}/composite`, parts({})),
  ];
}

async function bulk(conn) {
  conn.bulk2.pollInterval = 50;
  conn.bulk2.pollTimeout = 60_000;
  conn.bulk.pollInterval = 50;
  conn.bulk.pollTimeout = 60_000;
  const input = [1, 2, 3].map((number) => ({ Name: `Job ${number}`, Ext_Id__c: `js-job-${number}` }));
  const loaded = await conn.bulk2.loadAndWaitForResults({ object: 'Account', operation: 'insert', input });
  const stream = await conn.bulk2.query("SELECT Id, Name FROM Account WHERE Name LIKE 'Job %' ORDER BY Name");
  const found = await stream.toArray();
  const gone = found.map((each) => ({ Id: each.Id }));
  return {
    loaded,
    found,
    first: await conn.bulk.load('Account', 'delete', gone),
    left: await (await conn.bulk.query("SELECT Id FROM Account WHERE Name LIKE 'Job %'")).toArray(),
  };
}

async function errors(conn) {
  const result = {
    field: await refusal(() => conn.query('SELECT Nothing FROM Account')),
    object: await refusal(() => conn.sobject('Nothing__c').describe()),
    required: await refusal(() => conn.sobject('Contact').create({ FirstName: 'No last name' })),
    duplicate: await refusal(() => conn.sobject('Contact').create({ LastName: 'Same', Ext_Id__c: 'Contact-00001' })),
    stale: await refusal(() =>
      new jsforce.Connection({ instanceUrl: url, accessToken: '00DWk0000000001MAA!stale', version }).query('SELECT Id FROM Account'),
    ),
  };
  const limit = JSON.stringify([{ message: 'TotalRequests Limit exceeded.', errorCode: 'REQUEST_LIMIT_EXCEEDED' }]);
  const answer = { status: 403, body: limit, content_type: 'application/json;charset=UTF-8' };
  await control('faults', { action: { answer }, times: 1 });
  result.limit = await refusal(() => conn.query('SELECT Id FROM Account'));
  // jsforce repeats a GET after 503: twice unavailable is nothing its user sees.
  await control('faults', { action: { unavailable: { html: false } }, times: 2, method: 'GET' });
  result.repeated = (await conn.query('SELECT COUNT() FROM Contact')).totalSize;
  return result;
}

// What a log-in says, whether later calls stay at the address it was made at, and what happens when the session ends.
async function session(conn, login) {
  const info = await login();
  const result = { stays: conn.instanceUrl === url, hasId: Boolean(info.id ?? conn.userInfo?.id) };
  const who = await conn.identity();
  result.identity = [who.username, who.urls.rest, new URL(who.id).pathname];
  result.count = (await conn.query('SELECT COUNT() FROM Account')).totalSize;
  // Its own token is revoked while it is in use.
  const before = conn.accessToken;
  const revoke = await fetch(`${url}/services/oauth2/revoke`, { method: 'POST', body: new URLSearchParams({ token: before }) });
  result.revoked = revoke.status;
  result.afterRevoke = (await conn.query('SELECT COUNT() FROM Account')).totalSize;
  result.newToken = conn.accessToken !== before;
  // All sessions that were logged in to end by idling.
  await control('advance', { seconds: 10_000 });
  const calls = [1, 2, 3, 4, 5].map(() => conn.query('SELECT COUNT() FROM Account'));
  result.afterIdling = (await Promise.all(calls)).map((each) => each.totalSize);
  await conn.logout();
  return result;
}

async function main() {
  const conn = new jsforce.Connection({ instanceUrl: url, accessToken: env.TOKEN, version });
  const result = {
    describe: await describe(conn),
    rows: await rows(conn),
    paging: await paging(conn),
    composite: await composite(conn),
    bulk: await bulk(conn),
    errors: await errors(conn),
    limit: conn.limitInfo.apiUsage.limit,
  };
  const oauth2 = { loginUrl: url, clientId: env.CLIENT_ID, clientSecret: env.LOGIN_SECRET };
  const byOAuth = new jsforce.Connection({ oauth2, version });
  result.oauth = await session(byOAuth, () => byOAuth.login(env.LOGIN_NAME, env.PASSWORD));
  const bySoap = new jsforce.Connection({ loginUrl: url, version });
  result.soap = await session(bySoap, () => bySoap.login(env.LOGIN_NAME, env.PASSWORD));
  // The client credentials flow has no refresh of its own: the app says how to log in again.
  const grant = { grant_type: 'client_credentials' };
  const refreshFn = (again, done) => again.authorize(grant).then(() => done(null, again.accessToken), done);
  const app = { ...oauth2, clientSecret: env.CLIENT_SECRET };
  const credentials = new jsforce.Connection({ oauth2: app, version, refreshFn });
  result.credentials = await session(credentials, () => credentials.authorize(grant));
  result.wrong = [
    await refusal(() => new jsforce.Connection({ oauth2, version }).login(env.LOGIN_NAME, 'wrong')),
    await refusal(() => new jsforce.Connection({ loginUrl: url, version }).login(env.LOGIN_NAME, 'wrong')),
  ];
  console.log(JSON.stringify(plain(result)));
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
