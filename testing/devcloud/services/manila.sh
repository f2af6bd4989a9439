# Sourced by up. Manila, with the dummy driver of its own tests.

configure_manila() {
  create_database manila
  mkdir -p "$ETC/manila" "$DATA/manila/lock"
  cat > "$ETC/manila/manila.conf" <<END
[DEFAULT]
transport_url = $TRANSPORT_URL
auth_strategy = keystone
my_ip = $HOST
host = devcloud
report_interval = 2
state_path = $DATA/manila
api_paste_config = /etc/manila/api-paste.ini
osapi_share_listen = $HOST
osapi_share_listen_port = 8786
osapi_share_workers = 1
enabled_share_backends = dummy
enabled_share_protocols = NFS,CIFS
default_share_type = default
[dummy]
share_backend_name = dummy
share_driver = manila.tests.share.drivers.dummy.DummyDriver
driver_handles_share_servers = false
dummy_driver_default_driver_method_delay = 0
[coordination]
backend_url = file://$DATA/manila/coordination
$(common_conf manila manila)
END
  logged manila-manage manila-manage --config-file "$ETC/manila/manila.conf" db sync
  register manila manila sharev2 http://$HOST:8786/v2
}

create_share_type() {
  openstack --os-cloud admin share type create default false --snapshot-support true \
    --create-share-from-snapshot-support true > /dev/null
}

start_manila() {
  local service
  for service in api scheduler share; do
    start manila-$service manila-$service --config-file "$ETC/manila/manila.conf"
  done
}

ready_manila() {
  wait_http http://$HOST:8786/
  once create_share_type
  wait_heartbeats manila 2
}
