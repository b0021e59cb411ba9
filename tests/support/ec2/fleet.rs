//! A fleet as it is and was: what the fast EC2 server shows, and what tests compare with.

use std::collections::BTreeMap;

use axum::body::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use quick_xml::escape::escape;

/// What is to be there at the start.
#[derive(Debug, Clone)]
pub struct FleetSpec {
    /// The first one is whose keys nobody handed out.
    pub accounts: Vec<String>,
    pub regions: Vec<String>,
    /// Running instances in each region of each account.
    pub instances_per_scope: usize,
    /// How long each call takes.
    pub latency: std::time::Duration,
}

impl FleetSpec {
    /// One account, one region.
    pub fn of(instances: usize) -> Self {
        Self {
            accounts: vec!["123456789012".to_owned()],
            regions: vec!["eu-west-1".to_owned()],
            instances_per_scope: instances,
            latency: std::time::Duration::ZERO,
        }
    }
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Stopped,
    /// Still listed.
    Terminated,
    /// No longer listed.
    Vanished,
}

impl State {
    /// As in EC2. What has vanished was terminated.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Terminated | Self::Vanished => "terminated",
        }
    }
    fn code(self) -> u8 {
        match self {
            Self::Running => 16,
            Self::Stopped => 80,
            Self::Terminated | Self::Vanished => 48,
        }
    }
}

/// What can differ between two moments of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    pub state: State,
    pub tags: BTreeMap<String, String>,
    pub launched_at: DateTime<Utc>,
}

/// An instance with all that it ever was, oldest first.
#[derive(Debug, Clone)]
pub struct Machine {
    pub id: String,
    pub account: String,
    pub region: String,
    pub history: Vec<(DateTime<Utc>, Fields)>,
    number: usize,
    pub(super) xml: Bytes,
}

impl Machine {
    /// A running one, launched now.
    pub fn launch(number: usize, account: &str, region: &str) -> Self {
        // Odd factor: different numbers give different IDs, and they do not come in the order of the launches.
        let id = format!("i-0{:016x}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let tags = [("Name", format!("machine-{number}")), ("Team", "a&b <c>".to_owned())];
        let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let at = Utc::now();
        let fields = Fields { state: State::Running, tags, launched_at: at };
        let (account, region) = (account.to_owned(), region.to_owned());
        let mut machine = Self { id, account, region, history: vec![(at, fields)], number, xml: Bytes::new() };
        machine.render();
        machine
    }

    /// As it is now.
    pub fn now(&self) -> &Fields {
        &self.history.last().unwrap().1
    }

    /// Whether EC2 lists it.
    pub fn is_listed(&self) -> bool {
        self.now().state != State::Vanished
    }

    /// Whether it is an instance that somebody has.
    pub fn is_alive(&self) -> bool {
        matches!(self.now().state, State::Running | State::Stopped)
    }

    /// What it was from the beginning of a time to its end without a change; `None` where there was one, or before its
    /// launch. A listing of that time shows it so.
    pub fn throughout(&self, began: DateTime<Utc>, ended: DateTime<Utc>) -> Option<&Fields> {
        let (_, fields) = self.history.iter().rev().find(|(at, _)| *at <= began)?;
        let changed = self.history.iter().any(|(at, _)| began < *at && *at <= ended);
        (!changed).then_some(fields)
    }

    pub(super) fn change(&mut self, to: Fields) {
        self.history.push((Utc::now(), to));
        self.render();
    }

    /// Writes its XML, of about the size of a real instance with one interface and one volume.
    fn render(&mut self) {
        let fields = &self.history.last().unwrap().1;
        let Self { id, account, region, number, .. } = self;
        let zone = format!("{region}{}", ["a", "b", "c"][*number % 3]);
        let suffix = &id[2..];
        let address = format!("10.{}.{}.{}", *number >> 16 & 255, *number >> 8 & 255, *number & 255);
        let mac = format!(
            "0a:00:{:02x}:{:02x}:{:02x}:{:02x}",
            *number >> 24 & 255,
            *number >> 16 & 255,
            *number >> 8 & 255,
            *number & 255
        );
        let launched = fields.launched_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let (code, state) = (fields.state.code(), fields.state.name());
        let tags: String = fields
            .tags
            .iter()
            .map(|(key, value)| format!("<item><key>{}</key><value>{}</value></item>", escape(key), escape(value)))
            .collect();
        let attached = self.history[0].0.to_rfc3339_opts(SecondsFormat::Millis, true);
        let name = format!("ip-{}.{region}.compute.internal", address.replace('.', "-"));
        let groups = "<groupSet><item><groupId>sg-0a1b2c3d4e5f60718</groupId><groupName>web</groupName></item>\
                      <item><groupId>sg-0f1e2d3c4b5a69788</groupId><groupName>admin</groupName></item></groupSet>";
        self.xml = format!(
            "<item><reservationId>r-{suffix}</reservationId><ownerId>{account}</ownerId><groupSet/><instancesSet><item>\
<instanceId>{id}</instanceId><imageId>ami-0abcdef1234567890</imageId>\
<instanceState><code>{code}</code><name>{state}</name></instanceState>\
<privateDnsName>{name}</privateDnsName><dnsName/><reason/><keyName>operations</keyName>\
<amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>m6i.large</instanceType>\
<launchTime>{launched}</launchTime><placement><availabilityZone>{zone}</availabilityZone><groupName/>\
<tenancy>default</tenancy></placement><monitoring><state>disabled</state></monitoring>\
<subnetId>subnet-0a1b2c3d4e5f60718</subnetId><vpcId>vpc-0a1b2c3d4e5f60718</vpcId>\
<privateIpAddress>{address}</privateIpAddress><sourceDestCheck>true</sourceDestCheck>{groups}\
<architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName>\
<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-{suffix}</volumeId>\
<status>attached</status><attachTime>{attached}</attachTime><deleteOnTermination>true</deleteOnTermination></ebs>\
</item></blockDeviceMapping><virtualizationType>hvm</virtualizationType><clientToken>token-{suffix}</clientToken>\
<tagSet>{tags}</tagSet><hypervisor>xen</hypervisor>\
<networkInterfaceSet><item><networkInterfaceId>eni-{suffix}</networkInterfaceId>\
<subnetId>subnet-0a1b2c3d4e5f60718</subnetId><vpcId>vpc-0a1b2c3d4e5f60718</vpcId><description/>\
<ownerId>{account}</ownerId><status>in-use</status><macAddress>{mac}</macAddress>\
<privateIpAddress>{address}</privateIpAddress><privateDnsName>{name}</privateDnsName>\
<sourceDestCheck>true</sourceDestCheck>{groups}<attachment><attachmentId>eni-attach-{suffix}</attachmentId>\
<deviceIndex>0</deviceIndex><status>attached</status><attachTime>{attached}</attachTime>\
<deleteOnTermination>true</deleteOnTermination><networkCardIndex>0</networkCardIndex></attachment>\
<privateIpAddressesSet><item><privateIpAddress>{address}</privateIpAddress><privateDnsName>{name}</privateDnsName>\
<primary>true</primary></item></privateIpAddressesSet><ipv6AddressesSet/><interfaceType>interface</interfaceType>\
</item></networkInterfaceSet><iamInstanceProfile><arn>arn:aws:iam::{account}:instance-profile/web</arn>\
<id>AIPA0123456789ABCDEF0</id></iamInstanceProfile><ebsOptimized>true</ebsOptimized><enaSupport>true</enaSupport>\
<cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>\
<capacityReservationSpecification><capacityReservationPreference>open</capacityReservationPreference>\
</capacityReservationSpecification><hibernationOptions><configured>false</configured></hibernationOptions>\
<metadataOptions><state>applied</state><httpTokens>required</httpTokens>\
<httpPutResponseHopLimit>2</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>\
<httpProtocolIpv6>disabled</httpProtocolIpv6><instanceMetadataTags>disabled</instanceMetadataTags></metadataOptions>\
<enclaveOptions><enabled>false</enabled></enclaveOptions><platformDetails>Linux/UNIX</platformDetails>\
<usageOperation>RunInstances</usageOperation><usageOperationUpdateTime>{attached}</usageOperationUpdateTime>\
<privateDnsNameOptions><hostnameType>ip-name</hostnameType><enableResourceNameDnsARecord>false\
</enableResourceNameDnsARecord></privateDnsNameOptions><maintenanceOptions><autoRecovery>default</autoRecovery>\
</maintenanceOptions><currentInstanceBootMode>uefi</currentInstanceBootMode>\
<operator><managed>false</managed></operator></item></instancesSet></item>\n"
        )
        .into();
    }

    /// As in `eu-west-1a`.
    pub fn zone(&self) -> String {
        format!("{}{}", self.region, ["a", "b", "c"][self.number % 3])
    }
}
