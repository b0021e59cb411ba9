//! What the EC2 model knows of a DescribeInstances response that its XML does not say by itself.
//!
//! XML has elements and text. That `<tagSet/>` is an empty list called `Tags`, that `<code>16</code>` holds a number
//! and that `<dnsName>` is the `PublicDnsName` is written in the service model only. The table below has those members,
//! as of botocore 1.44.5 (API version 2016-11-15), and no others: most members are text under their own name with a
//! capital, and that is what becomes of any element that is not listed, be it known to the model or newer than it.

use crate::record::canonical::Name;
use Shape::{Any, Boolean, Integer, List, Stream, Struct};

/// How an element is to be read.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// As it looks: text without children, a list where these are all `<item>`, else an object.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A list, also when it is empty; each child is an element of the given shape.
    List(&'static Shape),
    /// The same, but objects among the items are handed out one by one as soon as they are read, and not kept.
    Stream(&'static Shape),
    /// An object, also when it is empty, with these members and any that are not listed.
    Struct(&'static [Member]),
}

/// A member of a structure that is not just text under its own name.
pub(super) struct Member {
    /// The name of the XML element.
    wire: Name<'static>,
    /// The member's name, where it is another than the element's with a capital.
    renamed: Option<Name<'static>>,
    shape: Shape,
}

impl Shape {
    /// What a child element of the given name is to a parent of this shape: the name of the member, or none if it is an
    /// item of a list; and the child's own shape.
    pub(super) fn child(self, wire: &str) -> (Option<Name<'_>>, Shape) {
        let members = match self {
            List(item) | Stream(item) => return (None, *item),
            Struct(members) => members,
            Any | Boolean | Integer if wire == "item" => return (None, Any),
            Any | Boolean | Integer => &[],
        };
        let wire = Name::new(wire);
        if let Some(member) = members.iter().find(|member| member.wire == wire) {
            return (Some(member.renamed.unwrap_or_else(|| wire.capitalised())), member.shape);
        }
        // A `<state>`, should there ever be one, must not take the place of `<instanceState>`, whose name is `State`.
        let name = wire.capitalised();
        let is_taken = members.iter().any(|member| member.renamed == Some(name));
        (Some(if is_taken { wire } else { name }), Any)
    }
}

/// A structure; each member is written `element: shape` or `element as Name: shape`.
macro_rules! structure {
    ($($wire:ident $(as $name:ident)?: $shape:expr),* $(,)?) => {
        Struct(&[$(Member {
            wire: Name::new(stringify!($wire)),
            renamed: structure!(@renamed $($name)?),
            shape: $shape,
        }),*])
    };
    (@renamed) => { None };
    (@renamed $name:ident) => { Some(Name::new(stringify!($name))) };
}

/// The root element of DescribeInstances.
pub(super) const INSTANCES_RESPONSE: Shape = structure! {
    reservationSet as Reservations: Stream(&RESERVATION),
};

/// The root element of DescribeTags.
pub(super) const TAGS_RESPONSE: Shape = structure! {
    tagSet as Tags: List(&TEXTS),
};

/// The root element of DescribeImages.
pub(super) const IMAGES_RESPONSE: Shape = structure! {
    imagesSet as Images: List(&TEXTS),
};

/// The root element of DescribeRegions.
pub(super) const REGIONS_RESPONSE: Shape = structure! {
    regionInfo as Regions: List(&TEXTS),
};

const RESERVATION: Shape = structure! {
    groupSet as Groups: List(&TEXTS),
    instancesSet as Instances: List(&INSTANCE),
};

const INSTANCE: Shape = structure! {
    amiLaunchIndex: Integer,
    blockDeviceMapping as BlockDeviceMappings: List(&BLOCK_DEVICE_MAPPING),
    capacityReservationSpecification: structure! { capacityReservationTarget: TEXTS },
    cpuOptions: structure! { coreCount: Integer, threadsPerCore: Integer },
    dnsName as PublicDnsName: Any,
    ebsOptimized: Boolean,
    elasticGpuAssociationSet as ElasticGpuAssociations: List(&TEXTS),
    elasticInferenceAcceleratorAssociationSet as ElasticInferenceAcceleratorAssociations: List(&TEXTS),
    enaSupport: Boolean,
    enclaveOptions: structure! { enabled: Boolean },
    groupSet as SecurityGroups: List(&TEXTS),
    hibernationOptions: structure! { configured: Boolean },
    iamInstanceProfile: TEXTS,
    instanceState as State: structure! { code: Integer },
    ipAddress as PublicIpAddress: Any,
    licenseSet as Licenses: List(&TEXTS),
    maintenanceOptions: TEXTS,
    metadataOptions: structure! { httpPutResponseHopLimit: Integer },
    monitoring: structure! { metricCategoryIdSet as MetricCategoryIds: List(&Any) },
    networkInterfaceSet as NetworkInterfaces: List(&NETWORK_INTERFACE),
    networkPerformanceOptions: TEXTS,
    operator: OPERATOR,
    placement: structure! { partitionNumber: Integer },
    privateDnsNameOptions: structure! {
        enableResourceNameDnsAAAARecord: Boolean,
        enableResourceNameDnsARecord: Boolean,
    },
    productCodes: List(&PRODUCT_CODE),
    reason as StateTransitionReason: Any,
    secondaryInterfaceSet as SecondaryInterfaces: List(&SECONDARY_INTERFACE),
    sourceDestCheck: Boolean,
    stateReason: TEXTS,
    tagSet as Tags: List(&TEXTS),
};

const BLOCK_DEVICE_MAPPING: Shape = structure! {
    ebs: structure! { deleteOnTermination: Boolean, ebsCardIndex: Integer, operator: OPERATOR },
};

const NETWORK_INTERFACE: Shape = structure! {
    association: TEXTS,
    attachment: structure! {
        deleteOnTermination: Boolean,
        deviceIndex: Integer,
        enaQueueCount: Integer,
        enaSrdSpecification: structure! {
            enaSrdEnabled: Boolean,
            enaSrdUdpSpecification: structure! { enaSrdUdpEnabled: Boolean },
        },
        networkCardIndex: Integer,
    },
    connectionTrackingConfiguration: structure! {
        tcpEstablishedTimeout: Integer,
        udpStreamTimeout: Integer,
        udpTimeout: Integer,
    },
    groupSet as Groups: List(&TEXTS),
    ipv4PrefixSet as Ipv4Prefixes: List(&TEXTS),
    ipv6AddressesSet as Ipv6Addresses: List(&structure! { isPrimaryIpv6: Boolean }),
    ipv6PrefixSet as Ipv6Prefixes: List(&TEXTS),
    operator: OPERATOR,
    privateIpAddressesSet as PrivateIpAddresses: List(&PRIVATE_IP_ADDRESS),
    sourceDestCheck: Boolean,
};

const PRIVATE_IP_ADDRESS: Shape = structure! { association: TEXTS, primary: Boolean };

const SECONDARY_INTERFACE: Shape = structure! {
    attachment: structure! {
        deleteOnTermination: Boolean,
        deviceIndex: Integer,
        networkCardIndex: Integer,
    },
    privateIpAddressSet as PrivateIpAddresses: List(&TEXTS),
    sourceDestCheck: Boolean,
};

const OPERATOR: Shape = structure! { hiddenByDefault: Boolean, managed: Boolean };

const PRODUCT_CODE: Shape = structure! {
    productCode as ProductCodeId: Any,
    type as ProductCodeType: Any,
};

/// A structure with nothing in it but text, under the names that the elements have.
const TEXTS: Shape = structure! {};
