//! SOAP, and the forms a dead session takes in each API.

use super::{Caller, Reply, config, token};
use crate::sim::Sim;

fn envelope(session: &str, body: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:urn=\"urn:partner.soap.sforce.com\"><soapenv:Header><urn:SessionHeader><urn:sessionId>{session}\
         </urn:sessionId></urn:SessionHeader></soapenv:Header><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
    )
}

async fn call(caller: &mut Caller, session: &str, body: &str) -> (u16, String) {
    let reply: Reply = caller.send("POST", "/services/Soap/u/60.0", &envelope(session, body)).await.unwrap();
    (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    text.split(open).nth(1).unwrap_or_else(|| panic!("{open} not in {text}")).split(close).next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn login_gives_absolute_urls_and_a_session() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "").await;
    let login = |password: &str| {
        format!(
            "<urn:login><urn:username>admin@sim.example</urn:username><urn:password>{password}</urn:password></urn:login>"
        )
    };
    let (status, text) = call(&mut caller, "", &login("secret")).await;
    assert_eq!(status, 200);
    assert_eq!(
        between(&text, "<serverUrl>", "</"),
        "https://sim.my.salesforce.com/services/Soap/u/60.0/00DWk0000000001MAA"
    );
    assert!(between(&text, "<metadataServerUrl>", "</").contains("/Soap/m/60.0/"));
    let session = between(&text, "<sessionId>", "</").to_owned();
    // A login is priced like a token request.
    assert_eq!(sim.counts().charged, 0);
    let (status, text) = call(&mut caller, &session, "<urn:getUserInfo/>").await;
    assert_eq!((status, between(&text, "<userName>", "</")), (200, "admin@sim.example"));
    assert_eq!((between(&text, "<current>", "</"), between(&text, "<limit>", "</")), ("1", "100000"));
    assert_eq!(sim.counts().by_user["admin@sim.example"], 1);
    let (status, text) = call(&mut caller, "", &login("wrong")).await;
    assert_eq!((status, between(&text, "<sf:exceptionCode>", "</")), (500, "INVALID_LOGIN"));
}

#[tokio::test(start_paused = true)]
async fn records_are_written_and_read() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "").await;
    let session = token("admin");
    let (_, made) = call(
        &mut caller,
        &session,
        "<urn:create><urn:sObjects><type>Account</type><Name>A &amp; B</Name></urn:sObjects>\
         <urn:sObjects><type>Account</type></urn:sObjects></urn:create>",
    )
    .await;
    let id = between(&made, "<id>", "</").to_owned();
    assert!(made.contains("<statusCode>REQUIRED_FIELD_MISSING</statusCode>"), "{made}");
    let query = format!(
        "<urn:query><urn:queryString>SELECT Id, Name, Owner.Username FROM Account WHERE Id = '{id}'</urn:queryString></urn:query>"
    );
    let (_, found) = call(&mut caller, &session, &query).await;
    assert!(
        found.contains("<sf:Name>A &amp; B</sf:Name>")
            && found.contains("<sf:Username>admin@sim.example</sf:Username>"),
        "{found}"
    );
    let update = format!(
        "<urn:update><urn:sObjects><type>Account</type><Id>{id}</Id><fieldsToNull>Phone</fieldsToNull><Website>w</Website></urn:sObjects></urn:update>"
    );
    assert!(call(&mut caller, &session, &update).await.1.contains("<success>true</success>"));
    let upsert = "<urn:upsert><urn:externalIDFieldName>Ext_Id__c</urn:externalIDFieldName><urn:sObjects><type>Invoice__c</type><Ext_Id__c>soap-1</Ext_Id__c></urn:sObjects></urn:upsert>";
    assert!(call(&mut caller, &session, upsert).await.1.contains("<created>true</created>"));
    let gone = call(&mut caller, &session, &format!("<urn:delete><urn:ids>{id}</urn:ids></urn:delete>")).await.1;
    assert!(gone.contains("<success>true</success>"));
    let (status, fault) =
        call(&mut caller, &session, "<urn:query><urn:queryString>SELECT</urn:queryString></urn:query>").await;
    assert_eq!((status, between(&fault, "<faultcode>", "</")), (500, "sf:MALFORMED_QUERY"));
    assert!(call(&mut caller, &session, "<urn:describeGlobal/>").await.1.contains("<name>Account</name>"));
    assert_eq!(sim.counts().by_family["soap"], 7);
}

#[tokio::test(start_paused = true)]
async fn a_dead_session_is_told_in_the_form_of_each_api() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "nobody").await;
    let rest = caller.get("sobjects").await;
    assert_eq!((rest.status, rest.code().as_str()), (401, "INVALID_SESSION_ID"));
    let (status, fault) = call(&mut caller, &token("nobody"), "<urn:getUserInfo/>").await;
    assert_eq!((status, between(&fault, "<faultcode>", "</")), (500, "sf:INVALID_SESSION_ID"));
    let bulk = caller.get("/services/async/60.0/job/750").await;
    assert_eq!((bulk.status, bulk.header("content-type")), (400, "application/xml"));
    assert!(String::from_utf8_lossy(&bulk.body).contains("<exceptionCode>InvalidSessionId</exceptionCode>"));
    let mut json = Caller::of(&sim, "nobody").await.with("content-type", "application/json");
    let bulk = json.get("/services/async/60.0/job/750").await;
    assert_eq!(
        (bulk.header("content-type"), bulk.json()["exceptionCode"].as_str()),
        ("application/json", Some("InvalidSessionId"))
    );
    assert_eq!(sim.counts().unauthenticated, 4);
    // A session in the form of a JWT is good for REST, never for SOAP (facts 2.5).
    assert!(sim.script().grant("eyJ.x.y", "admin@sim.example", None));
    assert_eq!(Caller::with_token(&sim, "eyJ.x.y").await.get("sobjects").await.status, 200);
    let (status, fault) = call(&mut caller, "eyJ.x.y", "<urn:getUserInfo/>").await;
    assert_eq!((status, between(&fault, "<faultcode>", "</")), (500, "sf:INVALID_SESSION_ID"));
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_as_a_fault() {
    let mut config = config();
    config.daily.limit = 1;
    let sim = Sim::new(config);
    let mut caller = Caller::of(&sim, "").await;
    assert_eq!(call(&mut caller, &token("admin"), "<urn:getUserInfo/>").await.0, 200);
    let (status, fault) = call(&mut caller, &token("admin"), "<urn:getUserInfo/>").await;
    assert_eq!((status, between(&fault, "<sf:exceptionCode>", "</")), (500, "REQUEST_LIMIT_EXCEEDED"));
    assert!(fault.contains("TotalRequests Limit exceeded."));
    assert_eq!((sim.counts().refused_daily, sim.counts().charged), (1, 2));
    assert_eq!(call(&mut caller, "x", "not xml").await.0, 500);
}
