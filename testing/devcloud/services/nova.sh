# Sourced by up. Nova, with its fake hypervisor.

configure_nova() {
  local database
  for database in nova_api nova nova_cell0; do create_database $database; done
  mkdir -p "$ETC/nova" "$DATA/nova/lock"
  cat > "$ETC/nova/nova.conf" <<END
[DEFAULT]
transport_url = $TRANSPORT_URL
my_ip = $HOST
host = devcloud
report_interval = 2
state_path = $DATA/nova
compute_driver = fake.FakeDriver
enabled_apis = osapi_compute
osapi_compute_listen = $HOST
osapi_compute_listen_port = 8774
osapi_compute_workers = 1
[wsgi]
api_paste_config = /etc/nova/api-paste.ini
[api]
auth_strategy = keystone
[api_database]
connection = $(db_url nova_api)
[conductor]
workers = 1
[scheduler]
workers = 1
[quota]
instances = 1000
cores = -1
ram = -1
[filter_scheduler]
track_instance_changes = false
[vnc]
enabled = false
[spice]
enabled = false
[glance]
api_servers = http://$HOST:9292
[cinder]
catalog_info = volumev3::publicURL
os_region_name = $REGION
[neutron]
$(service_auth nova)
[placement]
$(service_auth nova)
[keystone]
$(service_auth nova)
$(common_conf nova nova)
END
  manage() { logged nova-manage nova-manage --config-file "$ETC/nova/nova.conf" "$@"; }
  manage api_db sync
  manage cell_v2 map_cell0 --database_connection "$(db_url nova_cell0)"
  manage cell_v2 create_cell --name cell1
  manage db sync
  register nova nova compute http://$HOST:8774/v2.1
}

map_compute_host() {
  logged nova-manage nova-manage --config-file "$ETC/nova/nova.conf" cell_v2 discover_hosts
}

create_flavors() {
  openstack --os-cloud admin flavor create m1.tiny --ram 64 --disk 1 --vcpus 1 > /dev/null
  openstack --os-cloud admin flavor create m1.small --ram 512 --disk 5 --vcpus 1 > /dev/null
}

start_nova() {
  local service
  for service in api conductor scheduler compute; do
    start nova-$service nova-$service --config-file "$ETC/nova/nova.conf"
  done
}

ready_nova() {
  wait_http http://$HOST:8774/
  once create_flavors
  wait_heartbeats nova 3
  once map_compute_host
}
