# Sourced by up. Cinder: the NFS driver on a bind-mounted directory, the posix backup driver.

NFS_SHARE=$HOST:/devcloud

# The NFS driver looks for its share at <base>/<md5 of the share's name>; what is mounted there
# already it uses as it is, so a bind mount of a plain directory stands in for NFS.
mount_share() {
  local mount_point
  mount_point=$DATA/cinder/mnt/$(printf %s "$NFS_SHARE" | md5sum | cut -d' ' -f1)
  mkdir -p "$DATA/cinder/share" "$mount_point"
  mountpoint -q "$mount_point" || mount --bind "$DATA/cinder/share" "$mount_point"
}

configure_cinder() {
  create_database cinder
  mkdir -p "$ETC/cinder" "$DATA/cinder/lock" "$DATA/cinder/backups" "$DATA/cinder/conversion" \
    "$DATA/cinder/bin"
  # The NFS driver wants a mount.nfs to exist, though here it never mounts anything with it.
  ln -sf /bin/true "$DATA/cinder/bin/mount.nfs"
  echo "$NFS_SHARE" > "$ETC/cinder/nfs_shares"
  cat > "$ETC/cinder/cinder.conf" <<END
[DEFAULT]
transport_url = $TRANSPORT_URL
auth_strategy = keystone
my_ip = $HOST
host = devcloud
report_interval = 2
state_path = $DATA/cinder
api_paste_config = /etc/cinder/api-paste.ini
osapi_volume_listen = $HOST
osapi_volume_listen_port = 8776
osapi_volume_workers = 1
enabled_backends = nfs
default_volume_type = nfs
glance_api_servers = http://$HOST:9292
image_conversion_dir = $DATA/cinder/conversion
quota_volumes = 1000
quota_snapshots = 1000
quota_gigabytes = 10000
quota_backups = 1000
quota_backup_gigabytes = 10000
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
backup_posix_path = $DATA/cinder/backups
backup_workers = 1
[nfs]
volume_backend_name = nfs
volume_driver = devcloud_nfs.LoopbackNfsDriver
nfs_shares_config = $ETC/cinder/nfs_shares
nfs_mount_point_base = $DATA/cinder/mnt
nfs_snapshot_support = true
nas_secure_file_operations = false
nas_secure_file_permissions = false
[nova]
interface = internal
$(service_auth cinder)
[coordination]
backend_url = file://$DATA/cinder/coordination
$(common_conf cinder cinder)
END
  logged cinder-manage cinder-manage --config-file "$ETC/cinder/cinder.conf" db sync
  register cinder cinder volumev3 "http://$HOST:8776/v3/%(project_id)s"
}

create_volume_type() {
  openstack --os-cloud admin volume type create nfs --property volume_backend_name=nfs > /dev/null
}

start_cinder() {
  local service
  mount_share
  for service in api scheduler volume backup; do
    start_cinder_service cinder-$service cinder-$service cinder.conf
  done
}

# start_cinder_service NAME PROGRAM CONFIGURATION
start_cinder_service() {
  start "$1" env PATH="$PATH:$DATA/cinder/bin" PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 \
    "$2" --config-file "$ETC/cinder/$3"
}

ready_cinder() {
  wait_http http://$HOST:8776/
  once create_volume_type
  wait_heartbeats cinder 3
}
