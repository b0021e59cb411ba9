//! What EC2 tells of an instance beside what every profile renders. Pure.
//!
//! The members are those of EC2's model that [`Instance`](super::Instance) leaves out, and of its lists those that are
//! needed to render their elements in full. Members that the model does not know are not read.

use chrono::{DateTime, Utc};

use super::Ipv6Address;
use super::lenient::{List, Member, Text};
use super::model::objects;

objects! {
    /// The rest of EC2's `Instance`, with `RequesterId` and `ReservationId` of its reservation.
    Details<'a> {
        ami_launch_index: Member<i64> = "AmiLaunchIndex",
        block_device_mappings: List<Member<BlockDevice<'a>>> = "BlockDeviceMappings",
        boot_mode: Text<'a> = "BootMode",
        capacity_block_id: Text<'a> = "CapacityBlockId",
        capacity_reservation_id: Text<'a> = "CapacityReservationId",
        capacity_reservation_specification: Member<CapacityReservationSpecification<'a>> = "CapacityReservationSpecification",
        client_token: Text<'a> = "ClientToken",
        cpu_options: Member<CpuOptions<'a>> = "CpuOptions",
        current_instance_boot_mode: Text<'a> = "CurrentInstanceBootMode",
        ebs_optimized: Member<bool> = "EbsOptimized",
        elastic_gpu_associations: List<Member<ElasticGpuAssociation<'a>>> = "ElasticGpuAssociations",
        elastic_inference_accelerator_associations: List<Member<ElasticInferenceAcceleratorAssociation<'a>>> = "ElasticInferenceAcceleratorAssociations",
        ena_support: Member<bool> = "EnaSupport",
        enclave_options: Member<EnclaveOptions<'a>> = "EnclaveOptions",
        hibernation_options: Member<HibernationOptions<'a>> = "HibernationOptions",
        iam_instance_profile: Member<IamInstanceProfile<'a>> = "IamInstanceProfile",
        instance_lifecycle: Text<'a> = "InstanceLifecycle",
        kernel_id: Text<'a> = "KernelId",
        key_name: Text<'a> = "KeyName",
        licenses: List<Member<License<'a>>> = "Licenses",
        maintenance_options: Member<MaintenanceOptions<'a>> = "MaintenanceOptions",
        metadata_options: Member<MetadataOptions<'a>> = "MetadataOptions",
        monitoring: Member<Monitoring<'a>> = "Monitoring",
        network_interfaces: List<Member<Interface<'a>>> = "NetworkInterfaces",
        network_performance_options: Member<NetworkPerformanceOptions<'a>> = "NetworkPerformanceOptions",
        operator: Member<Operator<'a>> = "Operator",
        outpost_arn: Text<'a> = "OutpostArn",
        placement: Member<PlacementDetails<'a>> = "Placement",
        private_dns_name_options: Member<PrivateDnsNameOptions<'a>> = "PrivateDnsNameOptions",
        product_codes: List<Member<ProductCode<'a>>> = "ProductCodes",
        ramdisk_id: Text<'a> = "RamdiskId",
        requester_id: Text<'a> = "RequesterId",
        reservation_id: Text<'a> = "ReservationId",
        root_device_name: Text<'a> = "RootDeviceName",
        root_device_type: Text<'a> = "RootDeviceType",
        secondary_interfaces: List<Member<SecondaryInterface<'a>>> = "SecondaryInterfaces",
        source_dest_check: Member<bool> = "SourceDestCheck",
        spot_instance_request_id: Text<'a> = "SpotInstanceRequestId",
        sriov_net_support: Text<'a> = "SriovNetSupport",
        state: Member<StateDetails<'a>> = "State",
        state_reason: Member<StateReason<'a>> = "StateReason",
        state_transition_reason: Text<'a> = "StateTransitionReason",
        tpm_support: Text<'a> = "TpmSupport",
        usage_operation: Text<'a> = "UsageOperation",
        usage_operation_update_time: Member<DateTime<Utc>> = "UsageOperationUpdateTime",
        virtualization_type: Text<'a> = "VirtualizationType",
    }

    /// EC2's `InstanceBlockDeviceMapping`.
    BlockDevice<'a> {
        device_name: Text<'a> = "DeviceName",
        ebs: Member<Volume<'a>> = "Ebs",
    }

    /// EC2's `EbsInstanceBlockDevice`.
    Volume<'a> {
        associated_resource: Text<'a> = "AssociatedResource",
        attach_time: Member<DateTime<Utc>> = "AttachTime",
        delete_on_termination: Member<bool> = "DeleteOnTermination",
        ebs_card_index: Member<i64> = "EbsCardIndex",
        operator: Member<Operator<'a>> = "Operator",
        status: Text<'a> = "Status",
        volume_id: Text<'a> = "VolumeId",
        volume_owner_id: Text<'a> = "VolumeOwnerId",
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

    /// EC2's `IamInstanceProfile`.
    IamInstanceProfile<'a> {
        arn: Text<'a> = "Arn",
        id: Text<'a> = "Id",
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
        association: Member<Association<'a>> = "Association",
        attachment: Member<Attachment<'a>> = "Attachment",
        connection_tracking_configuration: Member<ConnectionTracking<'a>> = "ConnectionTrackingConfiguration",
        description: Text<'a> = "Description",
        groups: List<Member<Group<'a>>> = "Groups",
        interface_type: Text<'a> = "InterfaceType",
        ipv4_prefixes: List<Member<Ipv4Prefix<'a>>> = "Ipv4Prefixes",
        ipv6_addresses: List<Member<Ipv6Address<'a>>> = "Ipv6Addresses",
        ipv6_prefixes: List<Member<Ipv6Prefix<'a>>> = "Ipv6Prefixes",
        mac_address: Text<'a> = "MacAddress",
        network_interface_id: Text<'a> = "NetworkInterfaceId",
        operator: Member<Operator<'a>> = "Operator",
        owner_id: Text<'a> = "OwnerId",
        private_dns_name: Text<'a> = "PrivateDnsName",
        private_ip_address: Text<'a> = "PrivateIpAddress",
        private_ip_addresses: List<Member<PrivateAddress<'a>>> = "PrivateIpAddresses",
        source_dest_check: Member<bool> = "SourceDestCheck",
        status: Text<'a> = "Status",
        subnet_id: Text<'a> = "SubnetId",
        vpc_id: Text<'a> = "VpcId",
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
        attach_time: Member<DateTime<Utc>> = "AttachTime",
        attachment_id: Text<'a> = "AttachmentId",
        delete_on_termination: Member<bool> = "DeleteOnTermination",
        device_index: Member<i64> = "DeviceIndex",
        ena_queue_count: Member<i64> = "EnaQueueCount",
        ena_srd_specification: Member<EnaSrd<'a>> = "EnaSrdSpecification",
        network_card_index: Member<i64> = "NetworkCardIndex",
        status: Text<'a> = "Status",
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

    /// EC2's `Placement`, without the zone.
    PlacementDetails<'a> {
        affinity: Text<'a> = "Affinity",
        availability_zone_id: Text<'a> = "AvailabilityZoneId",
        group_id: Text<'a> = "GroupId",
        group_name: Text<'a> = "GroupName",
        host_id: Text<'a> = "HostId",
        host_resource_group_arn: Text<'a> = "HostResourceGroupArn",
        partition_number: Member<i64> = "PartitionNumber",
        spread_domain: Text<'a> = "SpreadDomain",
        tenancy: Text<'a> = "Tenancy",
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
    StateDetails<'a> {
        code: Member<i64> = "Code",
        name: Text<'a> = "Name",
    }

    /// EC2's `StateReason`.
    StateReason<'a> {
        code: Text<'a> = "Code",
        message: Text<'a> = "Message",
    }
}
