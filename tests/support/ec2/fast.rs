//! An EC2 server that is fast enough for large fleets and keeps a model of what it shows, with all that ever happened.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, SecondsFormat, Utc};
use quick_xml::escape::escape;

use super::call::Call;
use super::fault::error;
use super::fleet::{Fields, FleetSpec, Machine, State};
use super::wire::{Reply, Server};

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
/// So many instances are on a page where the call does not say, and at most.
const PAGE: usize = 1000;

/// Serves DescribeInstances, DescribeTags, DescribeRegions, DescribeImages and STS.
pub struct FastEc2 {
    server: Server,
    shared: Arc<Mutex<Shared>>,
}

/// One run through the pages of a scope.
#[derive(Debug, Clone)]
pub struct Listing {
    pub account: String,
    pub region: String,
    /// When its first page was asked for.
    pub began: DateTime<Utc>,
    /// When its last page was answered.
    pub ended: Option<DateTime<Utc>>,
    pub pages: usize,
    pub instances: usize,
    /// Whether it had filters: then it does not show all.
    pub is_filtered: bool,
}

struct Shared {
    spec: FleetSpec,
    /// By scope and ID.
    machines: BTreeMap<(String, String), BTreeMap<String, Machine>>,
    /// Where each instance is.
    scopes: BTreeMap<String, (String, String)>,
    listings: Vec<Listing>,
    keys: usize,
}

impl FastEc2 {
    /// Starts one with that fleet.
    pub fn start(spec: FleetSpec) -> Self {
        let latency = spec.latency;
        let mut shared =
            Shared { spec, machines: BTreeMap::new(), scopes: BTreeMap::new(), listings: Vec::new(), keys: 0 };
        let FleetSpec { accounts, regions, instances_per_scope, .. } = shared.spec.clone();
        for account in &accounts {
            for region in &regions {
                (0..instances_per_scope).for_each(|_| drop(shared.launch(account, region)));
            }
        }
        let shared = Arc::new(Mutex::new(shared));
        let server = Server::start({
            let shared = shared.clone();
            move |request| {
                let shared = shared.clone();
                async move {
                    if !latency.is_zero() {
                        tokio::time::sleep(latency).await;
                    }
                    shared.lock().unwrap().answer(&Call::of(&request))
                }
            }
        });
        Self { server, shared }
    }

    /// What clients take for the endpoint of EC2 and STS.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A new running instance; its ID.
    pub fn launch(&self, account: &str, region: &str) -> String {
        self.shared.lock().unwrap().launch(account, region)
    }

    /// It is terminated, but listed still.
    pub fn terminate(&self, id: &str) {
        self.set_state(id, State::Terminated);
    }

    /// It is no longer listed, nor found by its ID.
    pub fn vanish(&self, id: &str) {
        self.set_state(id, State::Vanished);
    }

    pub fn stop(&self, id: &str) {
        self.set_state(id, State::Stopped);
    }

    /// It runs again, with a new time of launch.
    pub fn start_again(&self, id: &str) {
        self.change(id, |fields| Fields { state: State::Running, launched_at: Utc::now(), ..fields });
    }

    /// Sets a tag, or takes it away.
    pub fn retag(&self, id: &str, key: &str, value: Option<&str>) {
        self.change(id, |mut fields| {
            match value {
                Some(value) => drop(fields.tags.insert(key.to_owned(), value.to_owned())),
                None => drop(fields.tags.remove(key)),
            }
            fields
        });
    }

    fn set_state(&self, id: &str, state: State) {
        self.change(id, |fields| Fields { state, ..fields });
    }

    fn change(&self, id: &str, change: impl FnOnce(Fields) -> Fields) {
        let shared = &mut *self.shared.lock().unwrap();
        let machine = shared.scopes.get(id).and_then(|scope| shared.machines.get_mut(scope)?.get_mut(id));
        let machine = machine.unwrap_or_else(|| panic!("no instance {id}"));
        let changed = change(machine.now().clone());
        if changed != *machine.now() {
            machine.change(changed);
        }
    }

    /// Every instance that ever was, by ID.
    pub fn model(&self) -> BTreeMap<String, Machine> {
        let shared = self.shared.lock().unwrap();
        shared.machines.values().flatten().map(|(id, machine)| (id.clone(), machine.clone())).collect()
    }

    /// The instances that are alive now, by ID.
    pub fn alive(&self) -> BTreeMap<String, Machine> {
        self.model().into_iter().filter(|(_, machine)| machine.is_alive()).collect()
    }

    /// Every listing that was begun, oldest first. Answers to calls by ID are none.
    pub fn listings(&self) -> Vec<Listing> {
        self.shared.lock().unwrap().listings.clone()
    }
}

impl Shared {
    fn launch(&mut self, account: &str, region: &str) -> String {
        let machine = Machine::launch(self.scopes.len(), account, region);
        let (id, scope) = (machine.id.clone(), (account.to_owned(), region.to_owned()));
        self.scopes.insert(id.clone(), scope.clone());
        self.machines.entry(scope).or_default().insert(id.clone(), machine);
        id
    }

    fn answer(&mut self, call: &Call) -> Reply {
        let account = self.account(call);
        if call.form.get("DryRun").is_some_and(|value| value == "true") {
            return error(call, "DryRunOperation", 412, "Request would have succeeded, but DryRun flag is set.");
        }
        match call.action.as_str() {
            "DescribeInstances" => self.describe_instances(call, account),
            "DescribeTags" => self.describe_tags(call, account),
            "DescribeRegions" => {
                let item = |region: &String| {
                    format!(
                        "<item><regionName>{region}</regionName><regionEndpoint>ec2.{region}.amazonaws.com\
                         </regionEndpoint><optInStatus>opt-in-not-required</optInStatus></item>"
                    )
                };
                let items: String = self.spec.regions.iter().map(item).collect();
                ec2(call, &format!("<regionInfo>{items}</regionInfo>"))
            }
            "DescribeImages" => {
                let item = |id: &str| {
                    format!(
                        "<item><imageId>{id}</imageId><name>image of {id}</name><imageState>available</imageState>\
                         <imageOwnerId>{account}</imageOwnerId></item>"
                    )
                };
                let items: String = call.list("ImageId").into_iter().map(item).collect();
                ec2(call, &format!("<imagesSet>{items}</imagesSet>"))
            }
            "GetCallerIdentity" => sts(
                call,
                &format!(
                    "<Arn>arn:aws:iam::{account}:user/test</Arn><UserId>AIDATEST</UserId><Account>{account}</Account>"
                ),
            ),
            "AssumeRole" | "AssumeRoleWithWebIdentity" => self.assume_role(call),
            other => error(call, "InvalidAction", 400, &format!("The action {other} is not valid")),
        }
    }

    /// The account is in the key that was handed out for it.
    fn account(&self, call: &Call) -> String {
        let handed_out = call.access_key.strip_prefix("ASIAFLEET").and_then(|rest| rest.get(..12));
        handed_out.unwrap_or(&self.spec.accounts[0]).to_owned()
    }

    fn assume_role(&mut self, call: &Call) -> Reply {
        let arn = call.form.get("RoleArn").map(String::as_str).unwrap_or_default();
        let account = arn.split(':').nth(4).unwrap_or_default();
        if !self.spec.accounts.iter().any(|known| known == account) {
            return error(
                call,
                "AccessDenied",
                403,
                &format!("not authorized to perform sts:{} on {arn}", call.action),
            );
        }
        self.keys += 1;
        let expiration = (Utc::now() + chrono::TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
        sts(
            call,
            &format!(
                "<Credentials><AccessKeyId>ASIAFLEET{account}{:06}</AccessKeyId><SecretAccessKey>secret\
                 </SecretAccessKey><SessionToken>session</SessionToken><Expiration>{expiration}</Expiration>\
                 </Credentials><AssumedRoleUser><Arn>{arn}</Arn><AssumedRoleId>AROATEST:test</AssumedRoleId>\
                 </AssumedRoleUser>",
                self.keys
            ),
        )
    }

    fn describe_instances(&mut self, call: &Call, account: String) -> Reply {
        let filters = call.filters();
        let known = ["instance-id", "availability-zone", "instance-state-name"];
        if let Some(unknown) = filters.keys().find(|name| !known.contains(name)) {
            return error(call, "InvalidParameterValue", 400, &format!("The filter '{unknown}' is invalid"));
        }
        let by_id = call.list("InstanceId");
        if !by_id.is_empty() && call.form.contains_key("MaxResults") {
            let message = "The parameter instancesSet cannot be used with the parameter maxResults";
            return error(call, "InvalidParameterCombination", 400, message);
        }
        let region = call.region.clone();
        let machines = self.machines.entry((account.clone(), region.clone())).or_default();
        if let Some(lost) = by_id.iter().find(|id| machines.get(**id).is_none_or(|found| !found.is_listed())) {
            return error(call, "InvalidInstanceID.NotFound", 400, &format!("The instance ID '{lost}' does not exist"));
        }
        // A listing goes on behind the last ID that it showed, whatever has changed since.
        let (number, behind) = match call.token().map(|token| token.split_once('/').and_then(place)) {
            None => (None, Bound::Unbounded),
            Some(Some((number, id))) if number < self.listings.len() => (Some(number), Bound::Excluded(id)),
            Some(_) => return error(call, "InvalidParameterValue", 400, "The token is invalid"),
        };
        let size = call.form.get("MaxResults").and_then(|text| text.parse().ok()).unwrap_or(PAGE).min(PAGE);
        let is = |name: &str, found: &str| filters.get(name).is_none_or(|values| values.contains(&found));
        let mut found = machines.range::<str, _>((behind, Bound::Unbounded)).filter(|(id, machine)| {
            machine.is_listed()
                && (by_id.is_empty() || by_id.contains(&id.as_str()))
                && is("instance-id", id)
                && is("availability-zone", &machine.zone())
                && is("instance-state-name", machine.now().state.name())
        });
        let page: Vec<&Machine> = found.by_ref().take(size).map(|(_, machine)| machine).collect();
        let is_last = found.next().is_none();

        let number = if call.is_by_id() { number } else { number.or(Some(self.listings.len())) };
        if number == Some(self.listings.len()) {
            let (began, is_filtered) = (call.at, !filters.is_empty());
            let listing = Listing { account, region, began, ended: None, pages: 0, instances: 0, is_filtered };
            self.listings.push(listing);
        }
        if let Some(listing) = number.and_then(|number| self.listings.get_mut(number)) {
            listing.pages += 1;
            listing.instances += page.len();
            listing.ended = is_last.then(Utc::now);
        }
        let length = page.iter().map(|machine| machine.xml.len()).sum::<usize>() + 400;
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(head("DescribeInstances").as_bytes());
        body.extend_from_slice(b"<reservationSet>");
        page.iter().for_each(|machine| body.extend_from_slice(&machine.xml));
        body.extend_from_slice(b"</reservationSet>");
        if let (false, Some(last)) = (is_last, page.last()) {
            let token = format!("{}/{}", number.unwrap_or_default(), last.id);
            body.extend_from_slice(format!("<nextToken>{token}</nextToken>").as_bytes());
        }
        body.extend_from_slice(b"</DescribeInstancesResponse>");
        Reply::xml(200, body)
    }

    fn describe_tags(&mut self, call: &Call, account: String) -> Reply {
        let filters = call.filters();
        let ids = filters.get("resource-id");
        let machines = self.machines.entry((account, call.region.clone())).or_default();
        let behind = call.token().map_or(Bound::Unbounded, Bound::Excluded);
        let size = call.form.get("MaxResults").and_then(|text| text.parse().ok()).unwrap_or(PAGE);
        let mut items = String::new();
        let mut count = 0;
        let mut token = String::new();
        // A page ends with an instance: it may have some tags more than were asked for.
        for (id, machine) in machines.range::<str, _>((behind, Bound::Unbounded)) {
            if !machine.is_listed() || ids.is_some_and(|ids| !ids.contains(&id.as_str())) {
                continue;
            }
            if count >= size {
                break;
            }
            for (key, value) in &machine.now().tags {
                let (key, value) = (escape(key), escape(value));
                items.push_str(&format!(
                    "<item><resourceId>{id}</resourceId><resourceType>instance</resourceType><key>{key}</key>\
                     <value>{value}</value></item>"
                ));
                count += 1;
            }
            token.clone_from(id);
        }
        let next = if count >= size { format!("<nextToken>{token}</nextToken>") } else { String::new() };
        ec2(call, &format!("<tagSet>{items}</tagSet>{next}"))
    }
}

fn place<'a>((number, id): (&str, &'a str)) -> Option<(usize, &'a str)> {
    Some((number.parse().ok()?, id))
}

fn head(action: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{NAMESPACE}\">\
         <requestId>5b2b3c4d-0000-4000-8000-000000000000</requestId>"
    )
}

fn ec2(call: &Call, content: &str) -> Reply {
    Reply::xml(200, format!("{}{content}</{}Response>", head(&call.action), call.action))
}

fn sts(call: &Call, result: &str) -> Reply {
    let action = &call.action;
    Reply::xml(
        200,
        format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{result}\
             </{action}Result><ResponseMetadata><RequestId>fast</RequestId></ResponseMetadata></{action}Response>"
        ),
    )
}
