# Sourced by ./quickstart and ./test: what both need of the machine.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Build products lie outside the checkout, so that a fresh clone does not build everything again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/karbor-target}"

# need_packages NAME...: installs the Debian packages that are missing.
need_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "please install these first: ${missing[*]}"
  local sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  say "installing Debian packages: ${missing[*]}"
  # The servers among them are started by whoever needs them, in directories of their own.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 sh -c '
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh "${missing[@]}" ||
    die "apt-get could not install ${missing[*]}: install them by hand and run this again"
}

# need_qemu_drivers: makes sure of a qemu-nbd that opens iSCSI and Ceph. Where the qemu-utils that is installed is not
# Debian's own, as from backports, there may be no drivers of its version: then Debian's pair is unpacked, not installed,
# and QEMU_BIN and QEMU_MODULES say where.
need_qemu_drivers() {
  need_packages qemu-utils libiscsi7 librbd1
  dpkg-query -W -f '${Status}' qemu-block-extra 2>/dev/null | grep -q 'ok installed' && return
  if apt-get install --simulate --no-install-recommends qemu-block-extra >/dev/null 2>&1; then
    need_packages qemu-block-extra
    return
  fi
  local version place
  version=$(apt-cache policy qemu-block-extra | sed -n 's/^ *Candidate: *//p')
  # Without its epoch: a colon would part the path.
  place="$CARGO_TARGET_DIR/qemu-${version#*:}"
  if [ ! -d "$place" ]; then
    say "unpacking qemu-utils and qemu-block-extra $version"
    rm -rf "$place.new"
    mkdir -p "$place.new"
    (cd "$place.new" && apt-get download -qq "qemu-utils=$version" "qemu-block-extra=$version" 2>/dev/null &&
      for package in *.deb; do dpkg -x "$package" .; done && rm ./*.deb) ||
      die "apt-get could not download qemu-utils and qemu-block-extra $version"
    mv "$place.new" "$place"
  fi
  QEMU_BIN="$place/usr/bin"
  QEMU_MODULES=$(echo "$place"/usr/lib/*/qemu)
}

need_cargo() {
  command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null || die "no Rust toolchain: install one (https://rustup.rs) and run this again"
}

# need_karborclient: makes sure of the old client's shell, and says where it is in $karborclient.
need_karborclient() {
  local venv="$CARGO_TARGET_DIR/venv-karborclient"
  if [ ! -x "$venv/bin/karbor" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check python-karborclient==2.1.0 setuptools==65.5.0
  fi
  karborclient="$venv/bin/karbor"
}
