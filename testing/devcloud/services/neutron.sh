# Sourced by up. Neutron: ML2 with the openvswitch driver, and no agent.

configure_neutron() {
  create_database neutron
  mkdir -p "$ETC/neutron" "$DATA/neutron/lock"
  cat > "$ETC/neutron/neutron.conf" <<END
[DEFAULT]
transport_url = $TRANSPORT_URL
auth_strategy = keystone
bind_host = $HOST
bind_port = 9696
state_path = $DATA/neutron
api_paste_config = /etc/neutron/api-paste.ini
core_plugin = ml2
service_plugins = router
api_workers = 1
rpc_workers = 1
rpc_state_report_workers = 0
dhcp_agent_notification = false
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
# The one agent is a database row (see add_agent_row) that never reports: let it live for ten years.
agent_down_time = 315360000
[quotas]
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_router = -1
quota_security_group = -1
quota_security_group_rule = -1
[oslo_policy]
policy_dirs = /etc/neutron/policy.d
$(common_conf neutron neutron)
END
  cat > "$ETC/neutron/ml2_conf.ini" <<END
[ml2]
type_drivers = local,flat,vlan,vxlan
tenant_network_types = vxlan
mechanism_drivers = openvswitch
extension_drivers = port_security
[ml2_type_flat]
flat_networks = public
[ml2_type_vxlan]
vni_ranges = 1:1000
[securitygroup]
enable_security_group = true
END
  logged neutron-db-manage neutron-db-manage --config-file "$ETC/neutron/neutron.conf" \
    --config-file "$ETC/neutron/ml2_conf.ini" upgrade heads
  add_agent_row
  register neutron neutron network http://$HOST:9696
}

# The openvswitch mechanism driver binds a port to a host that has a live agent. Nothing here moves
# packets, so a row in the agents table is all of the agent that a port binding needs.
add_agent_row() {
  sql neutron -e "INSERT INTO agents (id, agent_type, \`binary\`, topic, host, admin_state_up,
      created_at, started_at, heartbeat_timestamp, configurations)
    VALUES (UUID(), 'Open vSwitch agent', 'neutron-openvswitch-agent', 'N/A', 'devcloud', 1,
      UTC_TIMESTAMP(), UTC_TIMESTAMP(), UTC_TIMESTAMP(),
      '{\"bridge_mappings\": {\"public\": \"br-public\"}, \"tunnel_types\": [\"vxlan\"],
       \"tunneling_ip\": \"$HOST\", \"integration_bridge\": \"br-int\",
       \"datapath_type\": \"system\"}')"
}

create_public_network() {
  openstack --os-cloud admin network create public --external --provider-network-type flat \
    --provider-physical-network public > /dev/null
  openstack --os-cloud admin subnet create public --network public --no-dhcp \
    --subnet-range 203.0.113.0/24 > /dev/null
}

start_neutron() {
  start neutron-server neutron-server --config-file "$ETC/neutron/neutron.conf" \
    --config-file "$ETC/neutron/ml2_conf.ini"
}

ready_neutron() {
  wait_http http://$HOST:9696/
  once create_public_network
}
