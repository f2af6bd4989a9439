# Sourced by up. Glance: a store in a directory.

configure_glance() {
  create_database glance
  mkdir -p "$ETC/glance" "$DATA/glance/lock" "$DATA/glance/images" "$DATA/glance/staging" "$DATA/glance/tasks"
  cat > "$ETC/glance/glance-api.conf" <<END
[DEFAULT]
bind_host = $HOST
bind_port = 9292
workers = 1
enabled_backends = file:file
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = $DATA/glance/images
[os_glance_staging_store]
filesystem_store_datadir = $DATA/glance/staging
[os_glance_tasks_store]
filesystem_store_datadir = $DATA/glance/tasks
[paste_deploy]
flavor = keystone
config_file = /etc/glance/glance-api-paste.ini
$(common_conf glance glance)
END
  logged glance-manage glance-manage --config-file "$ETC/glance/glance-api.conf" db_sync
  register glance glance image http://$HOST:9292
}

start_glance() { start glance-api glance-api --config-file "$ETC/glance/glance-api.conf"; }

ready_glance() { wait_http http://$HOST:9292/healthcheck; }
