//! What EC2 tells of an instance, member by member: those that every profile renders, and `(IN_FULL)` those that are read
//! only where a profile asks for all. Pure. Members that the model does not know are not read.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::de::MapAccess;

use super::detail::{Detail, write_object};
use super::lenient::{Depth, Inspect, Lenient, List, Member, Name, Path, Read, Something, Text};
use super::model::objects;

objects! {
    /// EC2's `Instance`, with `OwnerId`, `RequesterId` and `ReservationId` of its reservation.
    Instance<'a> {
        ami_launch_index(IN_FULL): Member<i64> = "AmiLaunchIndex",
        architecture: Text<'a> = "Architecture",
        block_device_mappings: List<Member<BlockDevice<'a>>> = "BlockDeviceMappings",
        boot_mode(IN_FULL): Text<'a> = "BootMode",
        capacity_block_id(IN_FULL): Text<'a> = "CapacityBlockId",
        capacity_reservation_id(IN_FULL): Text<'a> = "CapacityReservationId",
        capacity_reservation_specification(IN_FULL): Member<CapacityReservationSpecification<'a>> = "CapacityReservationSpecification",
        client_token(IN_FULL): Text<'a> = "ClientToken",
        cpu_options(IN_FULL): Member<CpuOptions<'a>> = "CpuOptions",
        current_instance_boot_mode(IN_FULL): Text<'a> = "CurrentInstanceBootMode",
        ebs_optimized(IN_FULL): Member<bool> = "EbsOptimized",
        elastic_gpu_associations(IN_FULL): List<Member<ElasticGpuAssociation<'a>>> = "ElasticGpuAssociations",
        elastic_inference_accelerator_associations(IN_FULL): List<Member<ElasticInferenceAcceleratorAssociation<'a>>> = "ElasticInferenceAcceleratorAssociations",
        ena_support(IN_FULL): Member<bool> = "EnaSupport",
        enclave_options(IN_FULL): Member<EnclaveOptions<'a>> = "EnclaveOptions",
        hibernation_options(IN_FULL): Member<HibernationOptions<'a>> = "HibernationOptions",
        hypervisor: Text<'a> = "Hypervisor",
        iam_instance_profile: Member<IamInstanceProfile<'a>> = "IamInstanceProfile",
        image_id: Text<'a> = "ImageId",
        instance_id: Text<'a> = "InstanceId",
        instance_lifecycle(IN_FULL): Text<'a> = "InstanceLifecycle",
        instance_type: Text<'a> = "InstanceType",
        ipv6_address: Text<'a> = "Ipv6Address",
        kernel_id(IN_FULL): Text<'a> = "KernelId",
        key_name(IN_FULL): Text<'a> = "KeyName",
        launch_time: Member<DateTime<Utc>> = "LaunchTime",
        licenses(IN_FULL): List<Member<License<'a>>> = "Licenses",
        maintenance_options(IN_FULL): Member<MaintenanceOptions<'a>> = "MaintenanceOptions",
        metadata_options(IN_FULL): Member<MetadataOptions<'a>> = "MetadataOptions",
        monitoring(IN_FULL): Member<Monitoring<'a>> = "Monitoring",
        network_interfaces: List<Member<Interface<'a>>> = "NetworkInterfaces",
        network_performance_options(IN_FULL): Member<NetworkPerformanceOptions<'a>> = "NetworkPerformanceOptions",
        operator(IN_FULL): Member<Operator<'a>> = "Operator",
        outpost_arn(IN_FULL): Text<'a> = "OutpostArn",
        owner_id: Text<'a> = "OwnerId",
        placement: Member<Placement<'a>> = "Placement",
        platform: Text<'a> = "Platform",
        platform_details: Text<'a> = "PlatformDetails",
        private_dns_name: Text<'a> = "PrivateDnsName",
        private_dns_name_options(IN_FULL): Member<PrivateDnsNameOptions<'a>> = "PrivateDnsNameOptions",
        private_ip_address: Text<'a> = "PrivateIpAddress",
        product_codes(IN_FULL): List<Member<ProductCode<'a>>> = "ProductCodes",
        public_dns_name: Text<'a> = "PublicDnsName",
        public_ip_address: Text<'a> = "PublicIpAddress",
        ramdisk_id(IN_FULL): Text<'a> = "RamdiskId",
        requester_id(IN_FULL): Text<'a> = "RequesterId",
        reservation_id(IN_FULL): Text<'a> = "ReservationId",
        root_device_name(IN_FULL): Text<'a> = "RootDeviceName",
        root_device_type(IN_FULL): Text<'a> = "RootDeviceType",
        secondary_interfaces(IN_FULL): List<Member<SecondaryInterface<'a>>> = "SecondaryInterfaces",
        security_groups: List<Member<GroupIdentifier<'a>>> = "SecurityGroups",
        source_dest_check(IN_FULL): Member<bool> = "SourceDestCheck",
        spot_instance_request_id(IN_FULL): Text<'a> = "SpotInstanceRequestId",
        sriov_net_support(IN_FULL): Text<'a> = "SriovNetSupport",
        state: Member<InstanceState<'a>> = "State",
        state_reason(IN_FULL): Member<StateReason<'a>> = "StateReason",
        state_transition_reason(IN_FULL): Text<'a> = "StateTransitionReason",
        subnet_id: Text<'a> = "SubnetId",
        tags: List<Member<Tag<'a>>> = "Tags",
        tpm_support(IN_FULL): Text<'a> = "TpmSupport",
        usage_operation(IN_FULL): Text<'a> = "UsageOperation",
        usage_operation_update_time(IN_FULL): Member<DateTime<Utc>> = "UsageOperationUpdateTime",
        virtualization_type(IN_FULL): Text<'a> = "VirtualizationType",
        vpc_id: Text<'a> = "VpcId",
    }

    /// EC2's `InstanceBlockDeviceMapping`.
    BlockDevice<'a> {
        device_name(IN_FULL): Text<'a> = "DeviceName",
        ebs: Member<Volume<'a>> = "Ebs",
    }

    /// EC2's `EbsInstanceBlockDevice`.
    Volume<'a> {
        associated_resource(IN_FULL): Text<'a> = "AssociatedResource",
        attach_time: Member<DateTime<Utc>> = "AttachTime",
        delete_on_termination(IN_FULL): Member<bool> = "DeleteOnTermination",
        ebs_card_index(IN_FULL): Member<i64> = "EbsCardIndex",
        operator(IN_FULL): Member<Operator<'a>> = "Operator",
        status(IN_FULL): Text<'a> = "Status",
        volume_id(IN_FULL): Text<'a> = "VolumeId",
        volume_owner_id(IN_FULL): Text<'a> = "VolumeOwnerId",
    }

    /// EC2's `OperatorResponse`.
    Operator<'a> {
        hidden_by_default: Member<bool> = "HiddenByDefault",
        managed: Member<bool> = "Managed",
        principal: Text<'a> = "Principal",
    }

    /// EC2's `CapacityReservationSpecificationResponse`.
    CapacityReservationSpecification<'a> {
        capacity_reservation_preference: Text<'a> = "CapacityReservationPreference",
        capacity_reservation_target: Member<CapacityReservationTarget<'a>> = "CapacityReservationTarget",
    }

    /// EC2's `CapacityReservationTargetResponse`.
    CapacityReservationTarget<'a> {
        capacity_reservation_id: Text<'a> = "CapacityReservationId",
        capacity_reservation_resource_group_arn: Text<'a> = "CapacityReservationResourceGroupArn",
    }

    /// EC2's `CpuOptions`.
    CpuOptions<'a> {
        amd_sev_snp: Text<'a> = "AmdSevSnp",
        core_count: Member<i64> = "CoreCount",
        nested_virtualization: Text<'a> = "NestedVirtualization",
        threads_per_core: Member<i64> = "ThreadsPerCore",
    }

    /// EC2's `ElasticGpuAssociation`.
    ElasticGpuAssociation<'a> {
        elastic_gpu_association_id: Text<'a> = "ElasticGpuAssociationId",
        elastic_gpu_association_state: Text<'a> = "ElasticGpuAssociationState",
        elastic_gpu_association_time: Text<'a> = "ElasticGpuAssociationTime",
        elastic_gpu_id: Text<'a> = "ElasticGpuId",
    }

    /// EC2's `ElasticInferenceAcceleratorAssociation`.
    ElasticInferenceAcceleratorAssociation<'a> {
        elastic_inference_accelerator_arn: Text<'a> = "ElasticInferenceAcceleratorArn",
        elastic_inference_accelerator_association_id: Text<'a> = "ElasticInferenceAcceleratorAssociationId",
        elastic_inference_accelerator_association_state: Text<'a> = "ElasticInferenceAcceleratorAssociationState",
        elastic_inference_accelerator_association_time: Member<DateTime<Utc>> = "ElasticInferenceAcceleratorAssociationTime",
    }

    /// EC2's `EnclaveOptions`.
    EnclaveOptions<'a> {
        enabled: Member<bool> = "Enabled",
    }

    /// EC2's `HibernationOptions`.
    HibernationOptions<'a> {
        configured: Member<bool> = "Configured",
    }

    /// EC2's `LicenseConfiguration`.
    License<'a> {
        license_configuration_arn: Text<'a> = "LicenseConfigurationArn",
    }

    /// EC2's `InstanceMaintenanceOptions`.
    MaintenanceOptions<'a> {
        auto_recovery: Text<'a> = "AutoRecovery",
        reboot_migration: Text<'a> = "RebootMigration",
    }

    /// EC2's `InstanceMetadataOptionsResponse`.
    MetadataOptions<'a> {
        http_endpoint: Text<'a> = "HttpEndpoint",
        http_protocol_ipv6: Text<'a> = "HttpProtocolIpv6",
        http_put_response_hop_limit: Member<i64> = "HttpPutResponseHopLimit",
        http_tokens: Text<'a> = "HttpTokens",
        instance_metadata_tags: Text<'a> = "InstanceMetadataTags",
        state: Text<'a> = "State",
    }

    /// EC2's `Monitoring`.
    Monitoring<'a> {
        metric_category_ids: List<Text<'a>> = "MetricCategoryIds",
        state: Text<'a> = "State",
    }

    /// EC2's `InstanceNetworkInterface`.
    Interface<'a> {
        association(IN_FULL): Member<Association<'a>> = "Association",
        attachment: Member<Attachment<'a>> = "Attachment",
        connection_tracking_configuration(IN_FULL): Member<ConnectionTracking<'a>> = "ConnectionTrackingConfiguration",
        description: Text<'a> = "Description",
        groups(IN_FULL): List<Member<Group<'a>>> = "Groups",
        interface_type(IN_FULL): Text<'a> = "InterfaceType",
        ipv4_prefixes(IN_FULL): List<Member<Ipv4Prefix<'a>>> = "Ipv4Prefixes",
        ipv6_addresses: List<Member<Ipv6Address<'a>>> = "Ipv6Addresses",
        ipv6_prefixes(IN_FULL): List<Member<Ipv6Prefix<'a>>> = "Ipv6Prefixes",
        mac_address: Text<'a> = "MacAddress",
        network_interface_id: Text<'a> = "NetworkInterfaceId",
        operator(IN_FULL): Member<Operator<'a>> = "Operator",
        owner_id(IN_FULL): Text<'a> = "OwnerId",
        private_dns_name: Text<'a> = "PrivateDnsName",
        private_ip_address: Text<'a> = "PrivateIpAddress",
        private_ip_addresses(IN_FULL): List<Member<PrivateAddress<'a>>> = "PrivateIpAddresses",
        source_dest_check(IN_FULL): Member<bool> = "SourceDestCheck",
        status(IN_FULL): Text<'a> = "Status",
        subnet_id(IN_FULL): Text<'a> = "SubnetId",
        vpc_id(IN_FULL): Text<'a> = "VpcId",
    }

    /// EC2's `InstanceNetworkInterfaceAssociation`.
    Association<'a> {
        carrier_ip: Text<'a> = "CarrierIp",
        customer_owned_ip: Text<'a> = "CustomerOwnedIp",
        ip_owner_id: Text<'a> = "IpOwnerId",
        public_dns_name: Text<'a> = "PublicDnsName",
        public_ip: Text<'a> = "PublicIp",
    }

    /// EC2's `InstanceNetworkInterfaceAttachment`.
    Attachment<'a> {
        attach_time(IN_FULL): Member<DateTime<Utc>> = "AttachTime",
        attachment_id(IN_FULL): Text<'a> = "AttachmentId",
        delete_on_termination(IN_FULL): Member<bool> = "DeleteOnTermination",
        device_index: Member<i64> = "DeviceIndex",
        ena_queue_count(IN_FULL): Member<i64> = "EnaQueueCount",
        ena_srd_specification(IN_FULL): Member<EnaSrd<'a>> = "EnaSrdSpecification",
        network_card_index: Member<i64> = "NetworkCardIndex",
        status(IN_FULL): Text<'a> = "Status",
    }

    /// EC2's `InstanceAttachmentEnaSrdSpecification`.
    EnaSrd<'a> {
        ena_srd_enabled: Member<bool> = "EnaSrdEnabled",
        ena_srd_udp_specification: Member<EnaSrdUdp<'a>> = "EnaSrdUdpSpecification",
    }

    /// EC2's `InstanceAttachmentEnaSrdUdpSpecification`.
    EnaSrdUdp<'a> {
        ena_srd_udp_enabled: Member<bool> = "EnaSrdUdpEnabled",
    }

    /// EC2's `ConnectionTrackingSpecificationResponse`.
    ConnectionTracking<'a> {
        tcp_established_timeout: Member<i64> = "TcpEstablishedTimeout",
        udp_stream_timeout: Member<i64> = "UdpStreamTimeout",
        udp_timeout: Member<i64> = "UdpTimeout",
    }

    /// EC2's `GroupIdentifier`, named as OCSF does.
    Group<'a> {
        name: Text<'a> = "GroupName",
        uid: Text<'a> = "GroupId",
    }

    /// EC2's `InstanceIpv4Prefix`.
    Ipv4Prefix<'a> {
        ipv4_prefix: Text<'a> = "Ipv4Prefix",
    }

    /// EC2's `InstanceIpv6Prefix`.
    Ipv6Prefix<'a> {
        ipv6_prefix: Text<'a> = "Ipv6Prefix",
    }

    /// EC2's `InstancePrivateIpAddress`.
    PrivateAddress<'a> {
        association: Member<Association<'a>> = "Association",
        primary: Member<bool> = "Primary",
        private_dns_name: Text<'a> = "PrivateDnsName",
        private_ip_address: Text<'a> = "PrivateIpAddress",
    }

    /// EC2's `InstanceNetworkPerformanceOptions`.
    NetworkPerformanceOptions<'a> {
        bandwidth_weighting: Text<'a> = "BandwidthWeighting",
    }

    /// EC2's `Placement`.
    Placement<'a> {
        affinity(IN_FULL): Text<'a> = "Affinity",
        availability_zone: Text<'a> = "AvailabilityZone",
        availability_zone_id(IN_FULL): Text<'a> = "AvailabilityZoneId",
        group_id(IN_FULL): Text<'a> = "GroupId",
        group_name(IN_FULL): Text<'a> = "GroupName",
        host_id(IN_FULL): Text<'a> = "HostId",
        host_resource_group_arn(IN_FULL): Text<'a> = "HostResourceGroupArn",
        partition_number(IN_FULL): Member<i64> = "PartitionNumber",
        spread_domain(IN_FULL): Text<'a> = "SpreadDomain",
        tenancy(IN_FULL): Text<'a> = "Tenancy",
    }

    /// EC2's `PrivateDnsNameOptionsResponse`.
    PrivateDnsNameOptions<'a> {
        enable_resource_name_dns_a_record: Member<bool> = "EnableResourceNameDnsARecord",
        enable_resource_name_dns_aaaa_record: Member<bool> = "EnableResourceNameDnsAAAARecord",
        hostname_type: Text<'a> = "HostnameType",
    }

    /// EC2's `ProductCode`.
    ProductCode<'a> {
        product_code_id: Text<'a> = "ProductCodeId",
        product_code_type: Text<'a> = "ProductCodeType",
    }

    /// EC2's `InstanceSecondaryInterface`.
    SecondaryInterface<'a> {
        attachment: Member<SecondaryAttachment<'a>> = "Attachment",
        interface_type: Text<'a> = "InterfaceType",
        mac_address: Text<'a> = "MacAddress",
        owner_id: Text<'a> = "OwnerId",
        private_ip_addresses: List<Member<SecondaryAddress<'a>>> = "PrivateIpAddresses",
        secondary_interface_id: Text<'a> = "SecondaryInterfaceId",
        secondary_network_id: Text<'a> = "SecondaryNetworkId",
        secondary_subnet_id: Text<'a> = "SecondarySubnetId",
        source_dest_check: Member<bool> = "SourceDestCheck",
        status: Text<'a> = "Status",
    }

    /// EC2's `InstanceSecondaryInterfaceAttachment`.
    SecondaryAttachment<'a> {
        attach_time: Member<DateTime<Utc>> = "AttachTime",
        attachment_id: Text<'a> = "AttachmentId",
        delete_on_termination: Member<bool> = "DeleteOnTermination",
        device_index: Member<i64> = "DeviceIndex",
        network_card_index: Member<i64> = "NetworkCardIndex",
        status: Text<'a> = "Status",
    }

    /// EC2's `InstanceSecondaryInterfacePrivateIpAddress`.
    SecondaryAddress<'a> {
        private_ip_address: Text<'a> = "PrivateIpAddress",
    }

    /// EC2's `InstanceState`.
    InstanceState<'a> {
        code(IN_FULL): Member<i64> = "Code",
        name: Text<'a> = "Name",
    }

    /// EC2's `StateReason`.
    StateReason<'a> {
        code: Text<'a> = "Code",
        message: Text<'a> = "Message",
    }

    /// EC2's `InstanceIpv6Address`.
    Ipv6Address<'a> {
        ipv6_address: Text<'a> = "Ipv6Address",
        is_primary_ipv6: Member<bool> = "IsPrimaryIpv6",
    }

    /// EC2's `GroupIdentifier`.
    GroupIdentifier<'a> {
        group_id: Text<'a> = "GroupId",
        group_name: Text<'a> = "GroupName",
    }

    /// EC2's `Tag`.
    Tag<'a> {
        key: Text<'a> = "Key",
        value: Text<'a> = "Value",
    }
}

/// EC2's `IamInstanceProfile`: absent where nothing in it says anything.
#[derive(Debug, Default)]
#[allow(missing_docs)] // The members are EC2's.
pub struct IamInstanceProfile<'a> {
    pub arn: Text<'a>,
    pub id: Text<'a>,
}

impl<'de: 'a, 'a> Lenient<'de> for IamInstanceProfile<'a> {
    fn from_map<D: Depth, A: MapAccess<'de>>(mut map: A) -> Result<Member<Self>, A::Error> {
        let (mut profile, mut says) = (Self::default(), false);
        while let Some(name) = map.next_key_seed(Name)? {
            let member = match &*name {
                "Arn" if D::IN_FULL => Some(&mut profile.arn),
                "Id" if D::IN_FULL => Some(&mut profile.id),
                _ => None,
            };
            says |= match member {
                Some(member) => {
                    *member = map.next_value_seed(Read::<D, Cow<'_, str>>::default())?;
                    *member != Member::Absent
                }
                None => map.next_value_seed(Read::<D, Something>::default())? != Member::Absent,
            };
        }
        Ok(if says { Member::Known(profile) } else { Member::Absent })
    }
}

impl Inspect for IamInstanceProfile<'_> {
    fn unreadable(&self, path: Path<'_>, report: &mut dyn FnMut(Path<'_>)) {
        self.arn.unreadable(Path::Member(&path, "Arn"), report);
        self.id.unreadable(Path::Member(&path, "Id"), report);
    }
}

impl Detail for IamInstanceProfile<'_> {
    fn write(&self, json: &mut Vec<u8>) -> bool {
        write_object(json, [("arn", &self.arn as _), ("id", &self.id as _)])
    }
}
