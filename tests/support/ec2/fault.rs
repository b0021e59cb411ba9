//! What can be wrong with an answer of AWS, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use super::call::Call;
use super::wire::{Ending, Reply};
use super::xml::{Document, Element};

/// The code of EC2's throttling.
pub const THROTTLED: &str = "RequestLimitExceeded";

/// The token of an empty first page: what follows is the true first page.
pub(super) const AFTER_NOTHING: &str = "page-after-nothing";

/// Something wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error in place of the answer: code, HTTP status, message.
    Error(String, u16, String),
    /// Half of the XML, in an HTTP answer that is whole.
    CutXml,
    /// Half of the body that was announced, then the connection is closed.
    ShortBody,
    /// HTTP 200 with no body at all.
    EmptyBody,
    /// The answer comes later.
    Delay(Duration),
    /// The connection is closed without an answer.
    Close,
    /// No answer, and the connection stays open.
    Hang,
    /// The token of the page itself as that of the next one. A first page has none and is answered as it is.
    RepeatToken,
    /// A first page without instances, but with a token; the list follows behind it.
    EmptyFirstPage,
    /// These instances are not there, whoever asks and however: DescribeInstances and DescribeTags alike.
    Hide(BTreeSet<String>),
    /// About this share of all instances is not there, and always the same ones; else as `Hide`.
    HideShare(f64),
    /// These instances are lacking in listings; they are there when they are asked for by ID.
    HideFromListings(BTreeSet<String>),
    /// DescribeInstances knows no tags of these instances; of none at all where there is no set. DescribeTags does.
    StripTags(Option<BTreeSet<String>>),
    /// Every list of the XML in another order at each answer.
    Shuffle,
    /// Random bits above the low byte of the state's code.
    NoisyStateCode,
    /// XML that is put into these instances (all, where there is no set) as it stands.
    Insert(Option<BTreeSet<String>>, String),
    /// A member of every instance gets this text as it stands, in XML; the path is as in `placement/tenancy`.
    Replace(String, String),
    /// The server's clock, by the header `Date`, is so far ahead.
    ClockAhead(chrono::TimeDelta),
    /// A bucket of calls for each account (or key of unknown origin) and region; empty means `RequestLimitExceeded`.
    Throttle {
        /// Calls that the full bucket holds.
        size: f64,
        /// Calls that come back each second.
        refill_per_second: f64,
    },
}

impl Fault {
    /// An error, with a message that says that it was played.
    pub fn error(code: &str, status: u16) -> Self {
        Self::Error(code.to_owned(), status, "as the test wants it".to_owned())
    }
    /// The account may not do it.
    pub fn denied() -> Self {
        Self::error("UnauthorizedOperation", 403)
    }
    /// The credentials are not valid here: so EC2 answers in regions that are not enabled.
    pub fn region_disabled() -> Self {
        Self::error("AuthFailure", 401)
    }
    /// AWS is down.
    pub fn unavailable() -> Self {
        Self::error("Unavailable", 503)
    }
    /// See [`Fault::Hide`].
    pub fn hide<I: Into<String>>(instances: impl IntoIterator<Item = I>) -> Self {
        Self::Hide(instances.into_iter().map(Into::into).collect())
    }
    /// See [`Fault::HideFromListings`].
    pub fn hide_from_listings<I: Into<String>>(instances: impl IntoIterator<Item = I>) -> Self {
        Self::HideFromListings(instances.into_iter().map(Into::into).collect())
    }
}

/// When a fault is played: every condition that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct When {
    action: Option<String>,
    region: Option<String>,
    account: Option<String>,
    access_key: Option<String>,
    page: Option<usize>,
    form: Vec<(String, String)>,
    times: Option<usize>,
}

/// Calls of this action.
pub fn on(action: &str) -> When {
    When { action: Some(action.to_owned()), ..When::default() }
}

/// Calls of any action.
pub fn on_any() -> When {
    When::default()
}

impl When {
    /// In this region only.
    pub fn region(self, region: &str) -> Self {
        Self { region: Some(region.to_owned()), ..self }
    }
    /// With keys of a role of this account only.
    pub fn account(self, account: &str) -> Self {
        Self { account: Some(account.to_owned()), ..self }
    }
    /// With this access key only.
    pub fn access_key(self, key: &str) -> Self {
        Self { access_key: Some(key.to_owned()), ..self }
    }
    /// On this page of a listing only; the first is 1.
    pub fn page(self, page: usize) -> Self {
        Self { page: Some(page), ..self }
    }
    /// With this parameter only, as in `DryRun` or `Filter.1.Name`.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }
    /// So many times, then no more.
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }

    fn matches(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.action, &call.action)
            && is(&self.region, &call.region)
            && is(&self.access_key, &call.access_key)
            && is(&self.account, call.account.as_deref().unwrap_or_default())
            && self.page.is_none_or(|page| page == call.page)
            && self.form.iter().all(|(name, value)| call.form.get(name) == Some(value))
    }
}

/// A fault with its condition and what it remembers.
#[derive(Debug)]
pub struct Rule {
    when: When,
    fault: Fault,
    random: fastrand::Rng,
    buckets: BTreeMap<(String, String), (f64, Instant)>,
}

impl Rule {
    /// Its random choices are the same in every run.
    pub fn new(when: When, fault: Fault) -> Self {
        Self { when, fault, random: fastrand::Rng::with_seed(1), buckets: BTreeMap::new() }
    }

    /// What it does to a call, if anything; it counts as played.
    pub fn play(&mut self, call: &Call) -> Option<Play> {
        if self.when.times == Some(0) || !self.when.matches(call) {
            return None;
        }
        let play = match &self.fault {
            Fault::Throttle { size, refill_per_second } => {
                let now = Instant::now();
                let (left, filled) = self.buckets.entry(call.scope()).or_insert((*size, now));
                *left = (*left + now.duration_since(*filled).as_secs_f64() * refill_per_second).min(*size);
                *filled = now;
                if *left >= 1.0 {
                    *left -= 1.0;
                    return None;
                }
                Play::Instead(error(call, THROTTLED, 503, "Request limit exceeded."))
            }
            Fault::EmptyFirstPage if call.token().is_some() => return None,
            Fault::EmptyFirstPage => Play::Instead(empty_page(call)),
            Fault::Error(code, status, message) => Play::Instead(error(call, code, *status, message)),
            Fault::EmptyBody => Play::Instead(Reply::xml(200, "")),
            Fault::Close => Play::Instead(Reply { ending: Ending::Closed, ..Reply::xml(200, "") }),
            Fault::Hang => Play::Instead(Reply { ending: Ending::Hung, ..Reply::xml(200, "") }),
            Fault::Delay(time) => Play::Later(*time),
            fault => Play::Edited(fault.clone(), self.random.fork()),
        };
        if let Some(times) = &mut self.when.times {
            *times -= 1;
        }
        Some(play)
    }
}

/// What is done to one call.
#[derive(Debug, Clone)]
pub enum Play {
    /// It is not forwarded: this is the answer.
    Instead(Reply),
    /// It waits.
    Later(Duration),
    /// Its answer is edited.
    Edited(Fault, fastrand::Rng),
}

/// An error as the service of the call writes it.
pub fn error(call: &Call, code: &str, status: u16, message: &str) -> Reply {
    let id = "00000000-0000-0000-0000-000000000000";
    let escaped = quick_xml::escape::escape(message);
    match call.service.as_str() {
        "organizations" => {
            let body = json!({"__type": code, "Message": message}).to_string();
            Reply::new(status, "application/x-amz-json-1.1", body)
        }
        "ec2" => Reply::xml(
            status,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
                 <Message>{escaped}</Message></Error></Errors><RequestID>{id}</RequestID></Response>"
            ),
        ),
        _ => Reply::xml(
            status,
            format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                 <Code>{code}</Code><Message>{escaped}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
            ),
        ),
    }
}

fn empty_page(call: &Call) -> Reply {
    let (action, set) = (&call.action, if call.action == "DescribeTags" { "tagSet" } else { "reservationSet" });
    Reply::xml(
        200,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>empty</requestId>\
             <{set}/><nextToken>{AFTER_NOTHING}</nextToken></{action}Response>"
        ),
    )
}

/// Plays a fault on an answer. Those on XML leave errors, and what is not XML, alone.
pub fn edit(fault: &Fault, mut random: fastrand::Rng, call: &Call, reply: &mut Reply) {
    match fault {
        Fault::CutXml => reply.body = reply.body.slice(..reply.body.len() / 2),
        Fault::ShortBody => reply.ending = Ending::Short,
        Fault::ClockAhead(by) => {
            reply.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
            let date = (chrono::Utc::now() + *by).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            reply.headers.push(("Date".to_owned(), date));
        }
        _ if reply.status != 200 => {}
        _ => {
            let document = std::str::from_utf8(&reply.body).ok().and_then(Document::parse);
            let Some(mut document) = document else { return };
            edit_xml(fault, &mut random, call, &mut document.root);
            reply.body = document.write().into();
        }
    }
}

fn edit_xml(fault: &Fault, random: &mut fastrand::Rng, call: &Call, root: &mut Element) {
    match fault {
        Fault::RepeatToken => {
            if let Some(token) = call.token() {
                root.at_mut(&["nextToken"]).set(&quick_xml::escape::escape(token));
            }
        }
        Fault::Hide(hidden) => hide(root, |id| hidden.contains(id)),
        Fault::HideFromListings(hidden) if !call.is_by_id() => hide(root, |id| hidden.contains(id)),
        Fault::HideShare(share) => hide(root, |id| lot(id) < *share),
        Fault::StripTags(of) => {
            for instance in chosen(root, of) {
                instance.retain(|member| member.name != "tagSet");
            }
        }
        Fault::Shuffle => root.shuffle(random),
        Fault::NoisyStateCode => {
            for instance in root.instances_mut() {
                let code = instance.at_mut(&["instanceState", "code"]);
                let low: u32 = code.text().parse().unwrap();
                code.set(&(low & 0xff | random.u32(1..=0xff) << 8).to_string());
            }
        }
        Fault::Insert(into, xml) => {
            for instance in chosen(root, into) {
                instance.children.push(super::xml::Node::Raw(xml.clone()));
            }
        }
        Fault::Replace(path, text) => {
            let path: Vec<_> = path.split('/').collect();
            for instance in root.instances_mut() {
                instance.at_mut(&path).set(text);
            }
        }
        _ => {}
    }
}

fn chosen<'a>(root: &'a mut Element, of: &'a Option<BTreeSet<String>>) -> impl Iterator<Item = &'a mut Element> {
    root.instances_mut().filter(|instance| of.as_ref().is_none_or(|ids| ids.contains(&id(instance))))
}

/// Takes instances out of a DescribeInstances answer with what is left of their reservations, or their tags out of a
/// DescribeTags answer.
fn hide(root: &mut Element, is_hidden: impl Fn(&str) -> bool) {
    if let Some(reservations) = root.get_mut("reservationSet") {
        reservations.retain(|reservation| {
            let Some(instances) = reservation.get_mut("instancesSet") else { return true };
            instances.retain(|instance| !is_hidden(&id(instance)));
            instances.elements().next().is_some()
        });
    }
    if let Some(tags) = root.get_mut("tagSet") {
        tags.retain(|tag| !is_hidden(&tag.get("resourceId").map(Element::text).unwrap_or_default()));
    }
}

/// A number from 0 to 1 that depends on the ID alone.
fn lot(id: &str) -> f64 {
    let bytes = *blake3::hash(id.as_bytes()).as_bytes().first_chunk::<4>().unwrap();
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

fn id(instance: &Element) -> String {
    instance.get("instanceId").map(Element::text).unwrap_or_default()
}
