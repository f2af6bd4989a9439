# Sourced by up. Placement, for Nova.

configure_placement() {
  create_database placement
  mkdir -p "$ETC/placement" "$DATA/placement/lock"
  cat > "$ETC/placement/placement.conf" <<END
[DEFAULT]
use_stderr = true
[placement_database]
connection = $(db_url placement)
[api]
auth_strategy = keystone
$(common_conf placement placement)
END
  logged placement-manage placement-manage --config-file "$ETC/placement/placement.conf" db sync
  register placement placement placement http://$HOST:8778
}

start_placement() {
  start_wsgi placement 8778 /usr/bin/placement-api 1 OS_PLACEMENT_CONFIG_DIR="$ETC/placement"
}

ready_placement() { wait_http http://$HOST:8778/; }
