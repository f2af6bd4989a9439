# Sourced by up. Ceph: one monitor and one store in memory, and a second backend of Cinder whose volumes lie there, with
# the volume type `ceph`. What was written is lost with the store's process.

CEPH_PORT=16789

configure_ceph() {
  local place=$DATA/ceph
  local keyring=$place/keyring
  rm -rf "$place"
  mkdir -p "$place/mon" "$place/osd"
  cat > "$place/ceph.conf" <<END
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = v1:$HOST:$CEPH_PORT
public addr = $HOST
ms bind msgr2 = false
keyring = $keyring
admin socket =
log file = $LOG/\$name.log
pid file =
mon data = $place/mon
mon data avail crit = 0
mon allow pool size one = true
osd data = $place/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
[osd]
keyring = $place/osd/keyring
END
  logged ceph ceph-authtool "$keyring" --create-keyring --gen-key -n mon. --cap mon 'allow *'
  logged ceph ceph-authtool "$keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
  logged ceph monmaptool --create --addv a "[v1:$HOST:$CEPH_PORT]" \
    --fsid "$(sed -n 's/^fsid = //p' "$place/ceph.conf")" "$place/monmap"
  logged ceph ceph-mon --conf "$place/ceph.conf" --mkfs -i a --keyring "$keyring" --monmap "$place/monmap"
  sed -e 's/^host = .*/host = devceph/' -e 's/^enabled_backends = .*/enabled_backends = ceph/' \
    "$ETC/cinder/cinder.conf" > "$ETC/cinder/cinder-ceph.conf"
  cat >> "$ETC/cinder/cinder-ceph.conf" <<END
[ceph]
volume_backend_name = ceph
volume_driver = cinder.volume.drivers.rbd.RBDDriver
rbd_pool = volumes
rbd_user = cinder
rbd_ceph_conf = $place/ceph.conf
END
}

ceph_() { ceph --conf "$DATA/ceph/ceph.conf" "$@"; }

create_pool() {
  local keyring=$DATA/ceph/keyring
  logged ceph ceph_ osd pool create volumes 8
  logged ceph ceph_ osd pool application enable volumes rbd
  ceph_ auth get-or-create client.cinder mon 'profile rbd' osd 'profile rbd' >> "$keyring" 2>> "$LOG/ceph.log"
}

create_store() {
  local id
  id=$(cat /proc/sys/kernel/random/uuid)
  logged ceph ceph_ osd new "$id"
  ceph_ auth get-or-create osd.0 mon 'allow profile osd' osd 'allow *' > "$DATA/ceph/osd/keyring" 2>> "$LOG/ceph.log"
  logged ceph ceph-osd --conf "$DATA/ceph/ceph.conf" -i 0 --mkfs --osd-uuid "$id"
}

create_ceph_type() {
  openstack --os-cloud admin volume type create ceph --property volume_backend_name=ceph > /dev/null
}

start_ceph() {
  start ceph-mon ceph-mon --conf "$DATA/ceph/ceph.conf" -f -i a
  wait_for 60 "Ceph's monitor" ceph_ --connect-timeout 5 status
  once create_store
  start ceph-osd ceph-osd --conf "$DATA/ceph/ceph.conf" -f -i 0
  once create_pool
  start_cinder_service cinder-volume-ceph cinder-volume cinder-ceph.conf
}

ready_ceph() {
  once create_ceph_type
  wait_heartbeats cinder 4
}
