//! The answers of SOAP `login` and `logout` (facts 5.7).

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use crate::edge::refuse::push_xml;

/// Which of the two APIs that have a log-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/services/Soap/u/`.
    Partner,
    /// `/services/Soap/c/`.
    Enterprise,
}

impl Api {
    /// The API of a route; `None` if it has no log-in.
    pub fn of(template: &str) -> Option<Self> {
        match template {
            "/services/Soap/u/{version}" => Some(Self::Partner),
            "/services/Soap/c/{version}" => Some(Self::Enterprise),
            _ => None,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Partner => 'u',
            Self::Enterprise => 'c',
        }
    }

    const fn namespace(self) -> &'static str {
        match self {
            Self::Partner => "urn:partner.soap.sforce.com",
            Self::Enterprise => "urn:enterprise.soap.sforce.com",
        }
    }
}

/// What a log-in answers.
#[derive(Debug, Clone, Copy)]
pub struct LoggedIn<'a> {
    /// Which API.
    pub api: Api,
    /// Its version without `v`, such as `62.0`.
    pub version: &'a str,
    /// Where the org is, for this caller: the gateway.
    pub public: &'a str,
    /// The org's record id.
    pub org_id: &'a str,
    /// The user's record id.
    pub user_id: &'a str,
    /// The caller's name.
    pub caller: &'a str,
    /// How long the session lives.
    pub seconds: u64,
}

/// The answer to a log-in.
pub fn logged_in(session: &str, said: LoggedIn<'_>) -> Response<Bytes> {
    let LoggedIn { api, version, public, org_id, user_id, caller, seconds } = said;
    let namespace = api.namespace();
    // Server URLs end with the org's id in its short form.
    let short = org_id.get(..15).unwrap_or(org_id);
    let (mut url, mut name) = (String::new(), String::new());
    push_xml(&mut url, public);
    push_xml(&mut name, caller);
    let mut text = String::with_capacity(2_048);
    let _ = write!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns=\"{namespace}\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body><loginResponse><result>\
         <metadataServerUrl>{url}/services/Soap/m/{version}/{short}</metadataServerUrl>\
         <passwordExpired>false</passwordExpired><sandbox>false</sandbox>\
         <serverUrl>{url}/services/Soap/{letter}/{version}/{short}</serverUrl>\
         <sessionId>{session}</sessionId><userId>{user_id}</userId><userInfo>\
         <accessibilityMode>false</accessibilityMode><chatterExternal>false</chatterExternal>\
         <currencySymbol xsi:nil=\"true\"/><orgAttachmentFileSizeLimit>26214400</orgAttachmentFileSizeLimit>\
         <orgDefaultCurrencyIsoCode xsi:nil=\"true\"/><orgDefaultCurrencyLocale xsi:nil=\"true\"/>\
         <orgDisallowHtmlAttachments>false</orgDisallowHtmlAttachments><orgHasPersonAccounts>false</orgHasPersonAccounts>\
         <organizationId>{org_id}</organizationId><organizationMultiCurrency>false</organizationMultiCurrency>\
         <organizationName></organizationName><profileId></profileId><roleId xsi:nil=\"true\"/>\
         <sessionSecondsValid>{seconds}</sessionSecondsValid><userDefaultCurrencyIsoCode xsi:nil=\"true\"/>\
         <userEmail></userEmail><userFullName>{name}</userFullName><userId>{user_id}</userId>\
         <userLanguage>en_US</userLanguage><userLocale>en_US</userLocale><userName>{name}</userName>\
         <userTimeZone>GMT</userTimeZone><userType>Standard</userType><userUiSkin>Theme3</userUiSkin>\
         </userInfo></result></loginResponse></soapenv:Body></soapenv:Envelope>",
        letter = api.letter(),
    );
    xml(StatusCode::OK, text)
}

/// The answer to a log-out.
pub fn logged_out(api: Api) -> Response<Bytes> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns=\"{}\">\
         <soapenv:Body><logoutResponse/></soapenv:Body></soapenv:Envelope>",
        api.namespace()
    );
    xml(StatusCode::OK, text)
}

/// The answer to a log-in that proves nothing.
pub fn invalid_login() -> Response<Bytes> {
    const CODE: &str = "INVALID_LOGIN";
    const MESSAGE: &str = "Invalid username, password, security token; or user locked out.";
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:sf=\"urn:fault.partner.soap.sforce.com\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
         <soapenv:Body><soapenv:Fault><faultcode>sf:{CODE}</faultcode><faultstring>{CODE}: {MESSAGE}</faultstring>\
         <detail><sf:LoginFault xsi:type=\"sf:LoginFault\"><sf:exceptionCode>{CODE}</sf:exceptionCode>\
         <sf:exceptionMessage>{MESSAGE}</sf:exceptionMessage></sf:LoginFault></detail></soapenv:Fault></soapenv:Body>\
         </soapenv:Envelope>"
    );
    xml(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn xml(status: StatusCode, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml;charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::taxonomy::said;

    #[test]
    fn a_log_in_points_to_the_gateway_and_is_well_formed() {
        let said = LoggedIn {
            api: Api::Partner,
            version: "62.0",
            public: "https://sf.acme.internal",
            org_id: "00D000000000001EAA",
            user_id: "005000000000001AAA",
            caller: "a<b",
            seconds: 7_200,
        };
        let answer = logged_in("00D!x", said);
        let text = std::str::from_utf8(answer.body()).unwrap();
        assert!(
            text.contains("<serverUrl>https://sf.acme.internal/services/Soap/u/62.0/00D000000000001</serverUrl>"),
            "{text}"
        );
        assert!(
            text.contains("<metadataServerUrl>https://sf.acme.internal/services/Soap/m/62.0/00D000000000001<"),
            "{text}"
        );
        assert!(
            text.contains("<sessionId>00D!x</sessionId>") && text.contains("<userName>a&lt;b</userName>"),
            "{text}"
        );
        // Well-formed: a session in its header could be replaced, if it had one; there is none, so it is read to its end.
        assert!(crate::salesforce::with_session(text.as_bytes(), b"x").is_none());
    }

    #[test]
    fn a_denied_log_in_is_a_login_fault() {
        let answer = invalid_login();
        assert_eq!(answer.status(), 500);
        assert_eq!(said(answer.body()).code, "INVALID_LOGIN");
    }

    #[test]
    fn only_two_apis_have_a_log_in() {
        assert_eq!(Api::of("/services/Soap/c/{version}"), Some(Api::Enterprise));
        assert_eq!(Api::of("/services/Soap/m/{version}"), None);
    }
}
