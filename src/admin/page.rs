//! The page for people: files that stand in the binary. They hold no data and no secret, so that a browser can load them
//! before it is asked for the key; everything shown comes from the API.

use http::HeaderValue;

use crate::call::closed_list;

closed_list! {
    /// The files of the page.
    PageFile {
        /// The page itself.
        Index = "/",
        /// How it looks.
        Style = "/page/style.css",
        /// Its sign in the browser's tab.
        Icon = "/page/icon.svg",
        /// What begins when it is loaded.
        Main = "/page/main.js",
        /// Receives the events.
        Stream = "/page/stream.js",
        /// Puts what is received where it belongs.
        Panels = "/page/panels.js",
        /// Draws charts.
        Charts = "/page/charts.js",
        /// Asks before an order is given, and gives it.
        Orders = "/page/orders.js",
        /// Numbers and times in words.
        Words = "/page/words.js",
        /// Makes elements.
        Dom = "/page/dom.js",
    }
}

/// What the page may do in a browser: run and show what this listener serves, ask this listener, and nothing else. Text
/// never becomes markup or code.
pub(super) const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

impl PageFile {
    /// Its media type and text.
    pub(super) const fn content(self) -> (&'static str, &'static str) {
        match self {
            Self::Index => (HTML, include_str!("page/index.html")),
            Self::Style => ("text/css; charset=utf-8", include_str!("page/style.css")),
            Self::Icon => ("image/svg+xml", include_str!("page/icon.svg")),
            Self::Main => (SCRIPT, include_str!("page/main.js")),
            Self::Stream => (SCRIPT, include_str!("page/stream.js")),
            Self::Panels => (SCRIPT, include_str!("page/panels.js")),
            Self::Charts => (SCRIPT, include_str!("page/charts.js")),
            Self::Orders => (SCRIPT, include_str!("page/orders.js")),
            Self::Words => (SCRIPT, include_str!("page/words.js")),
            Self::Dom => (SCRIPT, include_str!("page/dom.js")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the whole page.
    const MOST: usize = 100 * 1024;

    #[test]
    fn the_page_is_small_and_needs_nothing_from_elsewhere() {
        let mut bytes = 0;
        for file in PageFile::ALL {
            let (_, text) = file.content();
            bytes += text.len();
            for foreign in ["https://", "//cdn", "@import", "eval(", "innerHTML", "localStorage", "sessionStorage"] {
                assert!(!text.contains(foreign), "{file}: {foreign}");
            }
            // The one name of a namespace is no address.
            let addresses = text.matches("http://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(addresses, 0, "{file}");
        }
        assert!(bytes <= MOST, "{bytes}");
    }

    #[test]
    fn nothing_in_it_stands_in_the_way_of_its_own_policy() {
        let (_, page) = PageFile::Index.content();
        for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
        for script in page.split("<script").skip(1) {
            assert!(
                script.trim_start().starts_with("type=\"module\" src=\"") && script.contains("></script>"),
                "{script}"
            );
        }
        // Whatever it names is there, and what is there is named by one of them.
        for file in PageFile::ALL.iter().filter(|file| **file != PageFile::Index) {
            let name = file.as_str().rsplit('/').next().unwrap();
            assert!(PageFile::ALL.iter().any(|other| other.content().1.contains(name)), "{file}");
        }
    }
}
