#!/usr/bin/env bash
# Installs what building and running reap_dist needs on Debian 12 or later, from Debian's own archive.
# With everything there already it does nothing, and needs neither root nor a network.
# usage: setup-debian.sh [--slurm] [--browser]
#   --slurm    also what tests/slurm needs: Slurm's daemons, left unconfigured
#   --browser  also what the tests of reap-tools open reports with: Chromium
set -euo pipefail

packages=(
  g++ cmake ninja-build git       # a C++20 compiler with OpenMP, the build
  openmpi-bin libopenmpi-dev      # ranks
  libdnnl-dev                     # matrix products
  libhdf5-dev                     # calibration and saliency files (the serial library)
  libboost-program-options-dev    # command line and ini files
  libfmt-dev libspdlog-dev        # texts and logs
  nlohmann-json3-dev              # config.json, index, plans
  libssl-dev libxxhash-dev        # SHA-256 and XXH3-128 of the manifest
  libgtest-dev strace python3     # tests, and the faults that they plant
)

for option in "$@"; do
  case $option in
    --slurm) packages+=(slurm-wlm slurm-wlm-basic-plugins munge iproute2) ;;
    --browser) packages+=(chromium fonts-dejavu-core) ;;
    *) echo "setup-debian.sh: unknown option $option; there are --slurm and --browser" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null; then
  echo "setup-debian.sh: this is not a Debian system; install the equivalents of: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "setup-debian.sh: neither root nor sudo here; ask an administrator for: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup-debian.sh: installing ${missing[*]}"
"${as_root[@]}" apt-get -o Acquire::Retries=3 update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y -q --no-install-recommends "${missing[@]}"
