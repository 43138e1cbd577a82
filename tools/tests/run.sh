#!/usr/bin/env bash
# The tests of reap-tools in a Python environment of their own, which is kept. Exit code 77, with the reason, where that
# cannot be had.
# usage: run.sh FOLDER [REAP_DIST]     FOLDER: of the environment; REAP_DIST: the program, to read what is written
set -euo pipefail
package=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
python=${REAP_PYTHON:-python3}

skip() {
  echo "skipped: $1"
  exit 77
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || skip "$python is older than 3.11, or is not there"
wanted=$("$python" -V; sha256sum <"$package/pyproject.toml")
if [[ ! -f $folder/wanted ]] || [[ $(<"$folder/wanted") != "$wanted" ]]; then
  rm -rf "$folder"
  "$python" -m venv "$folder" >/dev/null || skip "$python cannot make environments (on Debian: apt-get install python3-venv)"
  # Variables, unlike options, also reach the pip that gets the build's own requirements.
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_TIMEOUT=15 PIP_RETRIES=1 PIP_QUIET=1
  if ! "$folder/bin/pip" install --editable "$package[test]"; then
    "$folder/bin/pip" download --no-deps --no-cache-dir --dest "$folder/probe" tqdm || skip "PyPI cannot be reached"
    exit 1
  fi
  echo "$wanted" >"$folder/wanted"
fi

if [[ -n ${2:-} ]]; then export REAP_DIST=$2; fi
cd "$package"
PYTHONDONTWRITEBYTECODE=1 exec "$folder/bin/python" -m pytest
