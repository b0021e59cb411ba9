//! What must not pass for a page.

use super::*;

const RESERVATIONS: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/describe-instances/reservations.xml"));

fn error(body: &str) -> String {
    decode(body.as_bytes()).expect_err("no page").to_string()
}

#[test]
fn no_answer_is_not_an_empty_answer() {
    let expected = "no <reservationSet> in the response";
    assert_eq!(error(&format!("<{ROOT}/>")), expected);
    let body = format!("<{ROOT}><requestId>x</requestId></{ROOT}>");
    assert_eq!(error(&body), expected);
}

#[test]
fn a_token_that_is_not_a_text_is_no_end() {
    let body = format!("<{ROOT}><reservationSet/><nextToken>a</nextToken><nextToken>b</nextToken></{ROOT}>");
    assert_eq!(error(&body), r#"<nextToken> is not one text but ["a","b"]"#);
}

#[test]
fn a_body_without_xml_is_an_error() {
    assert_eq!(error(""), "no XML element in a body of 0 bytes");
    assert_eq!(error("\u{feff} \n<!-- x -->"), "no XML element in a body of 15 bytes");
    assert_eq!(error("Bad Gateway"), "content outside of the root element, before byte 11");
}

#[test]
fn another_response_is_an_error() {
    let body = "<?xml version=\"1.0\"?><Response><Errors><Error/></Errors></Response>";
    assert_eq!(error(body), format!("expected <{ROOT}>, found <Response> before byte 31"));
    assert_eq!(error("<html>"), format!("expected <{ROOT}>, found <html> before byte 6"));
}

#[test]
fn malformed_xml_is_an_error_that_says_where() {
    // An empty page has 88 bytes, and 43 before what is put into it.
    let cases = [
        (page("<item></a>"), "malformed XML at byte 49: ill-formed"),
        (page("&nbsp;"), "malformed XML at byte 49: "),
        (page("&#0;"), "malformed XML at byte 47: "),
        (page("a & b"), "malformed XML at byte 45: "),
        (page("") + "</a>", "malformed XML at byte 88: "),
        (page("") + "x", "content outside of the root element, before byte 89"),
        (page("") + &page(""), "content outside of the root element, before byte 115"),
    ];
    for (body, expected) in cases {
        let message = error(&body);
        assert!(message.starts_with(expected), "{body}\n{message}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_an_error() {
    let body = page("<item>?</item>").replace('?', "\u{fffd}").into_bytes();
    let broken: Vec<u8> = body.into_iter().filter(|byte| *byte != 0xBF).collect();
    assert!(matches!(decode(&broken), Err(DecodeError::Malformed { .. })));
}

#[test]
fn a_body_that_ends_early_is_an_error_wherever_it_ends() {
    for length in 0..RESERVATIONS.len() {
        let start = &RESERVATIONS.as_bytes()[..length];
        assert!(decode(start).is_err(), "{length} bytes");
    }
    let length = RESERVATIONS.len() - ROOT.len() - "</>".len();
    let expected = format!("the body ends at byte {length}, inside <{ROOT}>");
    assert_eq!(error(&RESERVATIONS[..length]), expected);
}

#[test]
fn elements_nest_64_levels_deep_and_no_deeper() {
    // The root, reservationSet, item, instancesSet and item are five.
    let nested = |levels: usize| {
        let members = "<a>".repeat(levels) + &"</a>".repeat(levels);
        page(&reservation(&format!("<item>{members}</item>")))
    };
    assert!(decode(nested(64 - 5).as_bytes()).is_ok());
    assert_eq!(error(&nested(65 - 5)), "elements nested more than 64 levels deep, before byte 249");
    assert!(matches!(decode("<a>".repeat(1_000_000).as_bytes()), Err(DecodeError::OtherRoot { .. })));
    assert!(matches!(decode(page(&"<a>".repeat(1_000_000)).as_bytes()), Err(DecodeError::TooDeep { .. })));
}

proptest! {
    /// A page or an error, but no panic, whatever comes.
    #[test]
    fn damage_does_no_harm(
        at in 0..RESERVATIONS.len(),
        length in 0..40_usize,
        patch in "[<>&;/a-z\"!\\[\\]? -]{0,8}",
    ) {
        let mut body = RESERVATIONS.as_bytes().to_vec();
        body.splice(at..(at + length).min(RESERVATIONS.len()), patch.into_bytes());
        let _ = decode(&body);
    }
}
