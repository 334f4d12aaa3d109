#!/usr/bin/env bash
# Sets up an Ubuntu or Debian machine (EC2 or any other): Docker Engine with the compose plugin, Miniforge
# with environment.yml, and JupyterLab as a service that listens on this machine alone.
#
#   ./setup_ec2.sh --dry-run    says what it would do and changes nothing
#   ./setup_ec2.sh              does it; safe to run again: what is there already is left alone
#
# DESTDIR=folder puts the system files below another root (used by the tests).
set -euo pipefail

MINIFORGE_VERSION=25.3.0-3
MINIFORGE_SHA256_x86_64=1b57f8cb991982063f79b56176881093abb1dc76d73fda32102afde60585b5a1
MINIFORGE_SHA256_aarch64=ac89f17b0eec4e98d38a53d1ae688e0f22c77d8ea5b5f008c2455e90ef095339
MINIFORGE_URL=https://github.com/conda-forge/miniforge/releases/download
DOCKER_URL=https://download.docker.com/linux # /ubuntu or /debian
DOCKER_KEY=9DC858229FC7DD38854AE2D88D81803C0EBFCD88 # of both, by Docker's own docs
BASE_PACKAGES=(ca-certificates curl gnupg git make gcc libc6-dev)
DOCKER_PACKAGES=(docker-ce docker-ce-cli containerd.io docker-buildx-plugin docker-compose-plugin)
ENV_NAME=taxi-duration
SERVICE=taxi-jupyter.service
PORT=8888

dry_run=false
changed=false
root=${DESTDIR:-}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Everything that changes the machine goes through here.
run() {
  if $dry_run; then
    say "would run: $*"
  else
    "$@"
  fi
}

as_root() {
  if [ "$(id -u)" = 0 ]; then run "$@"; else run sudo "$@"; fi
}

as_user() {
  if [ "$(id -un)" = "$user" ]; then run "$@"; else run sudo -H -u "$user" "$@"; fi
}

# write_file PATH MODE: the text of stdin becomes the file, unless it is that already.
write_file() {
  local path=$root$1 mode=$2 text
  text=$(mktemp "$scratch/file.XXXXXX")
  cat >"$text"
  changed=false
  if as_reader cmp -s "$text" "$path"; then
    say "$1 is there"
    return
  fi
  changed=true
  as_root install -D -m "$mode" "$text" "$path"
}

# Looking is allowed in a dry run too; files that only root may read are looked at by root.
as_reader() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif $dry_run; then "$@" 2>/dev/null; else sudo "$@"; fi
}

install_packages() {
  local package missing=()
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] ||
      missing+=("$package")
  done
  if [ ${#missing[@]} = 0 ]; then
    say "installed already: $*"
    return
  fi
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}"
}

check_machine() {
  step "This machine"
  # shellcheck source=/dev/null
  . "$root/etc/os-release"
  case "$ID $VERSION_ID" in
    "ubuntu 22.04" | "ubuntu 24.04" | "debian 12" | "debian 13") ;;
    *) fail "this is $ID $VERSION_ID; Ubuntu 22.04 and 24.04, Debian 12 and 13 are known" ;;
  esac
  machine=$(uname -m)
  case "$machine" in
    x86_64) debian_arch=amd64 miniforge_sha256=$MINIFORGE_SHA256_x86_64 ;;
    aarch64) debian_arch=arm64 miniforge_sha256=$MINIFORGE_SHA256_aarch64 ;;
    *) fail "this is a $machine; x86_64 and aarch64 (arm64) are known" ;;
  esac
  codename=$VERSION_CODENAME docker_url=$DOCKER_URL/$ID
  user=${SUDO_USER:-$(id -un)}
  home=$(getent passwd "$user" | cut -d: -f6)
  [ -n "$home" ] || fail "the user $user has no home directory"
  miniforge=$home/miniforge3
  say "$ID $VERSION_ID on $machine, for the user $user"
}

install_docker() {
  step "Docker Engine with the compose plugin"
  local keyring=/etc/apt/keyrings/docker.asc key=$scratch/docker.asc
  if [ -s "$root$keyring" ]; then
    say "$keyring is there"
  else
    run curl -fsSL --proto =https --retry 3 -o "$key" "$docker_url/gpg"
    $dry_run || check_key "$key"
    as_root install -D -m 0644 "$key" "$root$keyring"
  fi
  write_file /etc/apt/sources.list.d/docker.list 0644 <<TEXT
deb [arch=$debian_arch signed-by=$keyring] $docker_url $codename stable
TEXT
  install_packages "${DOCKER_PACKAGES[@]}"
  as_root systemctl enable --now docker.service
  if id -nG "$user" | tr ' ' '\n' | grep -qx docker; then
    say "$user is in the docker group"
  else
    as_root usermod -aG docker "$user"
    say "log in again for the docker group to take effect"
  fi
}

# A repository's key decides what root installs: it must be the known one.
check_key() {
  gpg --batch --with-colons --show-keys "$1" 2>/dev/null | grep -q "^fpr:.*:$DOCKER_KEY:" ||
    fail "the key from $docker_url is not $DOCKER_KEY; nothing was installed with it"
}

install_miniforge() {
  step "Miniforge $MINIFORGE_VERSION"
  if [ -x "$miniforge/bin/conda" ]; then
    say "$miniforge is there"
    return
  fi
  local installer=$scratch/miniforge.sh name=Miniforge3-$MINIFORGE_VERSION-Linux-$machine.sh
  run curl -fsSL --proto =https --retry 3 -o "$installer" "$MINIFORGE_URL/$MINIFORGE_VERSION/$name"
  $dry_run || printf '%s  %s\n' "$miniforge_sha256" "$installer" | sha256sum --check --quiet - ||
    fail "$name has another SHA-256 than the known one; it was not run"
  run chmod 0755 "$scratch" # it may be another user's
  as_user bash "$installer" -b -p "$miniforge"
}

install_environment() {
  step "The environment $ENV_NAME"
  local wanted stamp=$miniforge/envs/$ENV_NAME/.taxi-setup
  wanted=$(cat "$project/environment.yml" "$project/requirements.txt" | sha256sum | cut -d' ' -f1)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    say "it is that of environment.yml and requirements.txt"
    return
  fi
  if [ -d "$miniforge/envs/$ENV_NAME" ]; then
    as_user "$miniforge/bin/conda" env update --quiet -n "$ENV_NAME" -f "$project/environment.yml"
  else
    as_user "$miniforge/bin/conda" env create --quiet -f "$project/environment.yml"
  fi
  as_user "$miniforge/envs/$ENV_NAME/bin/pip" install --quiet --no-deps --no-build-isolation \
    -e "$project"
  # Last, so that a broken run starts again here.
  # shellcheck disable=SC2016
  as_user sh -c 'printf "%s\n" "$1" >"$2"' sh "$wanted" "$stamp"
}

install_jupyter() {
  step "JupyterLab on 127.0.0.1:$PORT"
  local token_file=/etc/taxi-duration/jupyter.env restart=false
  if as_reader test -s "$root$token_file"; then
    say "$token_file is there, the token stays"
  else
    # Read by the service alone, and in no process list.
    write_file "$token_file" 0600 <<TEXT
JUPYTER_TOKEN=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
TEXT
    restart=true
  fi
  # In a unit % begins a specifier, and $ a variable; a line's other signs stand for themselves.
  local place=${project//%/%%} bin=${miniforge//%/%%}/envs/$ENV_NAME/bin
  write_file "/etc/systemd/system/$SERVICE" 0644 <<TEXT
[Unit]
Description=JupyterLab of the taxi trip duration project
After=network.target

[Service]
User=$user
WorkingDirectory=$place
EnvironmentFile=$token_file
Environment="PATH=$bin:/usr/local/bin:/usr/bin:/bin"
ExecStart="$bin/jupyter" lab --no-browser --ip=127.0.0.1 --port=$PORT --ServerApp.port_retries=0 --notebook-dir=notebooks
Restart=on-failure
RestartSec=5
NoNewPrivileges=true
PrivateTmp=true

[Install]
WantedBy=multi-user.target
TEXT
  if $changed; then
    as_root systemctl daemon-reload
    restart=true
  fi
  as_root systemctl enable "$SERVICE"
  if $restart; then
    as_root systemctl restart "$SERVICE"
  else
    as_root systemctl start "$SERVICE"
  fi
}

say_next() {
  step "Done"
  cat <<TEXT
From your own computer, with no port opened to the world but SSH:
  ssh -L $PORT:localhost:$PORT -L 9696:localhost:9696 $user@THIS_MACHINE
then http://localhost:$PORT with the token that this machine shows for
  sudo cut -d= -f2 /etc/taxi-duration/jupyter.env
Security group: let in SSH (22) from your own address and nothing else.
TEXT
}

main() {
  case "${1:-}" in
    "") ;;
    --dry-run) dry_run=true ;;
    -h | --help)
      usage
      return
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  check_machine
  step "Base packages"
  install_packages "${BASE_PACKAGES[@]}"
  install_docker
  install_miniforge
  install_environment
  install_jupyter
  if $dry_run; then say "a dry run: nothing was changed"; else say_next; fi
}

main "$@"
